"""What a single file seems to be, from a glance at it: for lists of models, which must be quick."""

import functools
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ..checkpoints.containers.safetensors import looks_like_safetensors
from ..checkpoints.formats.bare import mentions_bare
from ..checkpoints.formats.converted import KEY
from ..checkpoints.formats.peft import holds_adapter
from ..checkpoints.formats.peft_names import mentions_adapter
from ..checkpoints.open import detect
from ..checkpoints.settings import DIFFUSION_KEY
from ..errors import CheckpointError
from .published import CODEC

MAX_DEPTH = 3  # folders below a models folder: owner/model, and one more for those who sort theirs
_LOOKED_AT = 16 * 2**20  # bytes of a header or table of contents; larger ones are not listed


def checkpoints_below(folder: Path, kinds: set[str], depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Checkpoints of these kinds below `folder`; what lies inside the folder of a checkpoint is its own."""
    try:
        children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    except OSError:  # absent, or not ours to read
        return
    for child in children:
        if child.is_file():
            if kind_of(child) in kinds:
                yield child
        elif holds_adapter(child):
            if "weights" in kinds:
                yield child
        elif detect(child):
            if "model" in kinds:
                yield child
        elif depth > 1:
            yield from checkpoints_below(child, kinds, depth - 1)


def kind_of(path: Path) -> str | None:
    """model: loads by itself. weights: fits into another model. diffusion: MultiBand Diffusion. None: anything else.

    Nothing is unpickled: settings are looked for as text.
    """
    try:
        stat = path.stat()
        return _kind_of(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=1000)
def _kind_of(path: Path, size: int, mtime_ns: int) -> str | None:
    """ComfyUI asks for the list of models often: each version of a file is looked at once."""
    try:
        if looks_like_safetensors(path):
            header = _header(path)
            if f'"{DIFFUSION_KEY}":'.encode() in header:
                return "diffusion"
            if f'"{KEY}":'.encode() in header:
                return "model"
            return "weights" if mentions_bare(header) or mentions_adapter(header) else None
        contents = _pickle(path)
    except (CheckpointError, OSError, ValueError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile):
        return None
    if b"model_state" in contents and b"processor_state" in contents:
        return "diffusion"
    if b"xp.cfg" not in contents:
        return "weights" if mentions_bare(contents) or mentions_adapter(contents) else None
    if b"transformer_lm" not in contents:
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
            readable = info.compress_type == zipfile.ZIP_STORED and info.file_size <= _LOOKED_AT
            if info.filename.endswith("/data.pkl") and readable:
                return archive.read(info)
    return b""
