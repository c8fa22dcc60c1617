"""Writes a checkpoint of any format as one safetensors file (`converted`), a slab of one tensor at a time."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from ...conditioning import Tokenizer
from ...diffusion.checkpoint import DiffusionCheckpoint, metadata_of
from ...errors import InputError
from ...outputs import DISK_FULL, atomic_file, check_output
from ..checkpoint import Checkpoint, TextEncoderSource
from ..containers.safetensors import DTYPES
from ..formats.converted import DIGEST_KEY, KEY, TOKENIZER_KEY, config_json
from ..weights.lazy import Weight

PRECISIONS = ("float32", "bfloat16", "float16")
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_NO_DIGEST = "0" * 64  # in its place until all data are written
_ALIGNMENT = 8

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Entry:
    """One tensor to be written."""

    name: str
    weight: Weight
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        return torch.Size(self.weight.shape).numel() * self.dtype.itemsize


def convert(
    checkpoint: Checkpoint,
    target: Path,
    precision: str | None = None,
    text_encoder: TextEncoderSource | None = None,
    on_step: OnStep | None = None,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write `checkpoint`, with `text_encoder` if there is one, as the file `target`.

    precision: of the language model's matrices; None keeps every tensor as it is stored. Norms, embeddings,
    projections, codec and text encoder are always kept: they are small, and worth their digits.
    on_step(bytes written, bytes in all); what it raises ends the work. The file appears whole or not at all.
    notes: further metadata of the file. InputError: a target that exists or cannot be written, a full disk.
    """
    check_target(target, precision)
    entries = list(_entries(checkpoint, precision, text_encoder))
    config = config_json(
        checkpoint.config, text_encoder.config if text_encoder else None, bool(checkpoint.beat_tracker)
    )
    metadata = {**(notes or {}), "format": "pt", KEY: config}
    if text_encoder:
        Tokenizer(text_encoder.tokenizer_json, text_encoder.origin, text_encoder.config["vocab_size"])  # one that loads
        metadata[TOKENIZER_KEY] = text_encoder.tokenizer_json
    return save(target, entries, metadata, on_step)


def convert_diffusion(
    checkpoint: DiffusionCheckpoint, target: Path, precision: str | None = None, on_step: OnStep | None = None
) -> Path:
    """Write a MultiBand Diffusion model as the file `target`. `precision` is that of the convolutions' weights."""
    check_target(target, precision)
    entries = []
    for name, weight in checkpoint.weights.items():
        wide = ".unet." in name and len(weight.shape) > 2
        entries.append(Entry(name, weight, getattr(torch, precision) if precision and wide else weight.dtype))
    entries.sort(key=lambda entry: -entry.dtype.itemsize)
    return save(target, entries, {"format": "pt", **metadata_of(checkpoint.config)}, on_step)


def save(target: Path, entries: Sequence[Entry], metadata: dict[str, str], on_step: OnStep | None) -> Path:
    """Write tensors, widest types first, and metadata as a safetensors file with a digest."""
    header = _header(entries, metadata)
    total = len(header) + sum(entry.n_bytes for entry in entries)
    try:
        with atomic_file(target) as file:
            if (free := shutil.disk_usage(target.parent).free) < total:
                raise _no_space(target, total, free)
            _write(file, header, entries, lambda done: on_step and on_step(done, total))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in DISK_FULL:
            raise _no_space(target, total, shutil.disk_usage(target.parent).free) from error
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def check_target(target: Path, precision: str | None = None) -> None:
    """InputError for a precision that there is not, and for a target that exists or cannot be written."""
    if precision not in (None, *PRECISIONS):
        raise InputError(f"'precision' must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    check_output(target, ["safetensors"])
    if target.exists():
        raise InputError(f"'{target}' exists already. Remove it first, or choose another name.")


def _no_space(target: Path, needed: int, free: int) -> InputError:
    return InputError(
        f"'{target}' needs {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free on its disk. Make room, or "
        "choose another disk, or a smaller precision."
    )


def _entries(checkpoint: Checkpoint, precision: str | None, text_encoder: TextEncoderSource | None) -> Iterator[Entry]:
    """Tensors to write, widest types first, so that every tensor is aligned."""
    parts = {
        "lm": checkpoint.lm,
        "conditioner": checkpoint.conditioner,
        "codec": checkpoint.codec,
        "beat_tracker": checkpoint.beat_tracker,
    }
    parts["text_encoder"] = dict(text_encoder.weights) if text_encoder else {}
    parts["text_encoder"].pop("encoder.embed_tokens.weight", None)  # the same tensor as shared.weight
    entries = []
    for part, weights in parts.items():
        for name, weight in weights.items():
            matrix = part == "lm" and len(weight.shape) == 2
            dtype = getattr(torch, precision) if precision and matrix else weight.dtype
            entries.append(Entry(f"{part}.{name}", weight, dtype))
    yield from sorted(entries, key=lambda entry: -entry.dtype.itemsize)


def _header(entries: Sequence[Entry], metadata: dict[str, str]) -> bytes:
    table: dict = {"__metadata__": {**metadata, DIGEST_KEY: _NO_DIGEST}}
    position = 0
    for entry in entries:
        end = position + entry.n_bytes
        table[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.weight.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write(file: BinaryIO, header: bytes, entries: Sequence[Entry], on_bytes: Callable[[int], None]) -> None:
    file.write(header)
    done, digest = len(header), hashlib.sha256()
    for entry in entries:
        for _, rows in entry.weight.slabs():
            data = rows.read(entry.dtype).reshape(-1).view(torch.uint8).numpy().data
            file.write(data)
            digest.update(data)
            done += data.nbytes
            on_bytes(done)
    mark = f'"{DIGEST_KEY}":"'.encode()
    file.seek(header.index(mark) + len(mark))
    file.write(digest.hexdigest().encode())
