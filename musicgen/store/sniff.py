"""What a single file seems to be, from a glance at it: for lists of models, which must be quick."""

import zipfile
from pathlib import Path

from ..checkpoints.containers.safetensors import looks_like_safetensors
from ..checkpoints.formats.converted import KEY
from ..diffusion.checkpoint import KEY as DIFFUSION_KEY
from ..errors import CheckpointError
from .published import CODEC

_LOOKED_AT = 16 * 2**20  # bytes of a header or table of contents; larger ones are not listed


def sniff(path: Path) -> str | None:
    """model: loads by itself. weights: fits into another model. diffusion: MultiBand Diffusion. None: anything else.

    Nothing is unpickled: settings are looked for as text.
    """
    try:
        if looks_like_safetensors(path):
            header = _header(path)
            if f'"{DIFFUSION_KEY}":'.encode() in header:
                return "diffusion"
            return "model" if f'"{KEY}":'.encode() in header else None
        contents = _pickle(path)
    except (CheckpointError, OSError, ValueError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile):
        return None
    if b"model_state" in contents and b"processor_state" in contents:
        return "diffusion"
    if b"xp.cfg" not in contents or b"transformer_lm" not in contents:
        return None
    return "model" if f"//pretrained/{CODEC}".encode() in contents else "weights"


def _header(path: Path) -> bytes:
    with open(path, "rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        return file.read(min(n_header, _LOOKED_AT))


def _pickle(path: Path) -> bytes:
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return b""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            sound = info.compress_type == zipfile.ZIP_STORED and info.file_size <= _LOOKED_AT
            if info.filename.endswith("/data.pkl") and sound:
                return archive.read(info)
    return b""
