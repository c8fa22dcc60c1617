"""Strict reader of safetensors headers: every offset, size and type is checked before a byte is used."""

import math
import re
from pathlib import Path

import torch

from ...errors import CheckpointError
from ...foreign import MAX_JSON, guarded, read_json
from ..settings import Settings
from ..weights.lazy import Stored, WeightsFile

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
FP16_FILE = "model.fp16.safetensors"  # how half-precision variants are published
MAX_HEADER_BYTES = MAX_JSON  # with the longest tokenizer in it, some 5 million; the format allows 100 million
MAX_TENSORS = 50_000  # a large model has some 1,500
MAX_DIMENSIONS = 8

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def looks_like_safetensors(path: Path) -> bool:
    """True for a file that begins with a header's length and brace, and for one that only bears the suffix."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if start.startswith(b"PK"):
        return False
    sound = len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER_BYTES
    return sound or path.suffix == ".safetensors"


def read_safetensors(path: Path) -> dict[str, Stored]:
    """Tensors of the file by name, none of them read yet. CheckpointError for anything but a sound file."""
    return read_with_metadata(path)[0]


def read_with_metadata(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Tensors of the file by name, and its metadata. CheckpointError for anything but a sound file."""
    file = WeightsFile(path)
    if len(file) < 8:
        raise _damaged(path, f"is only {len(file)} bytes long")
    n_header = int.from_bytes(file.read(0, 8), "little")
    if n_header > MAX_HEADER_BYTES:
        raise _damaged(path, f"claims a header of {n_header} bytes, of which at most {MAX_HEADER_BYTES} are read")
    if 8 + n_header > len(file):
        raise _damaged(path, f"ends inside its header ({len(file)} bytes of {8 + n_header})")
    start = 8 + n_header
    with guarded(str(path), "has an unreadable header: it is damaged or no safetensors file"):
        text = file.read(8, start).decode("utf-8")
    header = read_json(text, f"{path} (header)", unique=True)
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise _damaged(path, f"has a header that is no table of at most {MAX_TENSORS} tensors")
    tensors = {name: _tensor(file, start, name, entry) for name, entry in header.items() if name != "__metadata__"}
    _check_layout(tensors, start, file)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "has metadata that are no texts")
    return tensors, metadata


def read_folder(folder: Path) -> dict[str, Stored]:
    """All tensors of model.safetensors, of its variant in half precision, or of the shards that its index lists."""
    for name in (WEIGHTS_FILE, FP16_FILE):
        if (folder / name).is_file():
            return read_safetensors(folder / name)
    if not (folder / INDEX_FILE).is_file():
        hint = ""
        if (folder / "pytorch_model.bin").is_file() or (folder / "pytorch_model.bin.index.json").is_file():
            hint = " The pytorch_model.bin in it is not read: download the safetensors version."
        raise CheckpointError(f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}: its weights are missing.{hint}")
    index = Settings.from_json(folder / INDEX_FILE)
    places = index.section("weight_map").table
    tensors: dict[str, Stored] = {}
    for shard in sorted({str(place) for place in places.values()}):
        if not re.fullmatch(r"[\w.-]+\.safetensors", shard):
            raise CheckpointError(f"{index.source} refers to {shard[:100]!r}, which is no file name beside it")
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder / shard} is missing, but {index.source} lists it. Download it there.")
        for name, tensor in read_safetensors(folder / shard).items():
            if name in tensors or places.get(name) != shard:
                raise CheckpointError(f"{folder / shard} holds '{name}', which {index.source} does not expect there")
            tensors[name] = tensor
    for name, shard in places.items():
        if name not in tensors:
            raise CheckpointError(f"{folder / str(shard)} lacks the tensor '{name}' that {index.source} promises")
    return tensors


def _tensor(file: WeightsFile, start: int, name: str, entry: object) -> Stored:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(file.path, f"describes tensor '{name}' wrongly")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{file.path}: tensor '{name}' has the type {str(dtype)[:20]!r}, which is not supported")
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS or not _sizes(offsets) or len(offsets) != 2:
        raise _damaged(file.path, f"describes tensor '{name}' wrongly")
    n_bytes = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != n_bytes:
        raise _damaged(file.path, f"gives tensor '{name}' {offsets[1] - offsets[0]} bytes, its shape needs {n_bytes}")
    if start + offsets[1] > len(file):
        raise _damaged(file.path, f"ends inside tensor '{name}' ({len(file)} bytes of {start + offsets[1]})")
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return Stored(tuple(shape), (name,), file, start + offsets[0], DTYPES[dtype], strides)


def _sizes(value: object) -> bool:
    """True for a list of whole numbers from 0 to 2^48."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= 2**48 for item in value)


def _check_layout(tensors: dict[str, Stored], start: int, file: WeightsFile) -> None:
    """The format packs tensors without gap or overlap, up to the end of the file."""
    position, previous = start, "the header"
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.extent)):
        if tensor.offset != position:
            kind = "overlaps" if tensor.offset < position else "leaves a gap after"
            raise _damaged(file.path, f"is laid out wrongly: '{tensor.label}' {kind} {previous}")
        position += tensor.extent * tensor.dtype.itemsize
        previous = f"'{tensor.label}'"
    if position != len(file):
        raise _damaged(file.path, "has bytes behind its last tensor")


def _damaged(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path} {problem}: it is damaged or no safetensors file. Download it again.")
