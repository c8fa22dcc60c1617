"""Weights that are known by name and shape but not yet read: read from the file when they are needed."""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError

SLAB_BYTES = 32 * 2**20  # of one tensor held at a time where weights are computed or converted
_CHUNK_BYTES = 2**20  # of one tensor read at a time: it stays in the cache until it is converted

Check = Callable[
    [], None
]  # called many times a second while weights are read: what it raises (Cancel) ends the reading


def unchecked() -> None:
    """The Check of those who cannot cancel."""


class WeightsFile:
    """A file that weights are read from. It is open only while it is read, so that it can be replaced at any time."""

    def __init__(self, path: Path):
        self.path = path
        self._identity: tuple | None = None  # size, time and place on the disk, when it was first opened
        with self._open() as file:
            self._size = os.fstat(file.fileno()).st_size
        if not self._size:
            raise CheckpointError(f"{path} is empty. Download it again.")

    @contextlib.contextmanager
    def _open(self) -> Iterator[FileIO]:
        try:
            with open(self.path, "rb", buffering=0) as file:
                stat = os.fstat(file.fileno())
                identity = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
                if self._identity not in (None, identity):
                    raise CheckpointError(f"{self.path} was changed after the model was loaded. Load it again.")
                self._identity = identity
                yield file
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def __len__(self) -> int:
        return self._size

    def read(self, start: int, stop: int) -> bytes:
        with self._open() as file:
            file.seek(start)
            return file.read(stop - start)

    def read_into(self, out: Tensor, offset: int, check: Check = unchecked) -> None:
        """Fill the contiguous CPU tensor `out` with the bytes from `offset` on; `check` is called for each chunk."""
        memory = out.view(-1).view(torch.uint8).numpy().data
        with self._open() as file:
            file.seek(offset)
            while len(memory):
                check()
                if not (n_bytes := file.readinto(memory[:_CHUNK_BYTES])):
                    raise CheckpointError(f"{self.path} ends too early. Download it again.")
                memory = memory[n_bytes:]


@dataclass(frozen=True)
class Weight:
    """One destination parameter, not yet read. `names` are its source tensors, for messages."""

    shape: tuple[int, ...]
    names: tuple[str, ...]

    def copy_into(self, out: Tensor, check: Check = unchecked) -> None:
        """Read into `out`, of the same shape, in its dtype and on its device."""
        if tuple(out.shape) != self.shape:
            raise CheckpointError(f"{self.label} has the shape {list(self.shape)}, where {list(out.shape)} is needed")
        with torch.no_grad():
            self._copy(out, check)

    def _copy(self, out: Tensor, check: Check) -> None:
        raise NotImplementedError

    def rows(self, start: int, stop: int) -> "Weight":
        """Rows start..stop-1 of the first dimension, as a weight of its own."""
        raise NotImplementedError

    def as_row(self) -> "Weight":
        """The same values [...] as [1, ...]."""
        return replace(self, shape=(1, *self.shape))

    @property
    def label(self) -> str:
        return " + ".join(self.names[:3]) + (" + ..." if len(self.names) > 3 else "")

    @property
    def dtype(self) -> torch.dtype:
        """The smallest type that holds every value exactly."""
        return torch.float32

    @property
    def divisible(self) -> bool:
        """True if some rows can be read without computing all."""
        return True

    def slabs(self) -> Iterator[tuple[int, "Weight"]]:
        """(first row, those rows as a weight) of SLAB_BYTES each in float32, one row at least; else the whole."""
        if not self.divisible:
            yield 0, self
            return
        step = max(1, SLAB_BYTES // max(4 * math.prod(self.shape[1:]), 1))
        for start in range(0, self.shape[0], step):
            yield start, self.rows(start, min(start + step, self.shape[0]))

    def files(self) -> Iterator[WeightsFile]:
        """The files that it is read from."""
        yield from ()

    def read(self, dtype: torch.dtype = torch.float32, check: Check = unchecked) -> Tensor:
        """A new CPU tensor with the values. For small tensors and tests."""
        out = torch.empty(self.shape, dtype=dtype)
        self.copy_into(out, check)
        return out


@dataclass(frozen=True)
class Stored(Weight):
    """A tensor as it lies in a file; `strides` in elements."""

    file: WeightsFile
    offset: int  # bytes from the start of the file
    stored_as: torch.dtype
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.extent * self.dtype.itemsize + self.offset > len(self.file):
            raise CheckpointError(f"{self.file.path}: tensor '{self.label}' reaches beyond the end of the file")

    @property
    def dtype(self) -> torch.dtype:
        return self.stored_as

    def files(self) -> Iterator[WeightsFile]:
        yield self.file

    @property
    def extent(self) -> int:
        """Elements from the first to the last one, both included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    def rows(self, start: int, stop: int) -> "Stored":
        offset = self.offset + start * self.strides[0] * self.dtype.itemsize
        return replace(self, shape=(stop - start, *self.shape[1:]), offset=offset)

    def as_row(self) -> "Stored":
        return replace(self, shape=(1, *self.shape), strides=(self.extent, *self.strides))

    def _copy(self, out: Tensor, check: Check) -> None:
        by_rows = bool(self.shape) and self.strides[0] == math.prod(self.shape[1:])  # as nearly every tensor lies
        step = max(1, _CHUNK_BYTES // max(self.dtype.itemsize * self.strides[0], 1)) if by_rows else 0
        if by_rows and step < len(out):
            for start in range(0, len(out), step):
                stop = min(start + step, len(out))
                self.rows(start, stop)._copy(out[start:stop], check)
            return
        if by_rows and out.dtype == self.dtype and out.device.type == "cpu" and out.is_contiguous():
            self.file.read_into(out, self.offset, check)
            return
        values = torch.empty(self.extent, dtype=self.dtype)
        self.file.read_into(values, self.offset, check)
        out.copy_(values.as_strided(self.shape, self.strides))


@dataclass(frozen=True)
class Joined(Weight):
    """Several weights one below the other along the first dimension."""

    parts: tuple[Weight, ...]

    @property
    def dtype(self) -> torch.dtype:
        return functools.reduce(torch.promote_types, (part.dtype for part in self.parts))

    @property
    def divisible(self) -> bool:
        return all(part.divisible for part in self.parts)

    def files(self) -> Iterator[WeightsFile]:
        for part in self.parts:
            yield from part.files()

    def rows(self, start: int, stop: int) -> Weight:
        pieces, position = [], 0
        for part in self.parts:
            first, last = max(start - position, 0), min(stop - position, part.shape[0])
            if first < last:
                pieces.append(part.rows(first, last))
            position += part.shape[0]
        return join(pieces)

    def _copy(self, out: Tensor, check: Check) -> None:
        start = 0
        for part in self.parts:
            part._copy(out[start : start + part.shape[0]], check)
            start += part.shape[0]


@dataclass(frozen=True)
class Computed(Weight):
    """Values that a function makes of other weights in float32, such as a folded weight norm."""

    parts: tuple[Weight, ...]
    compute: Callable[..., Tensor]
    by_rows: bool = False  # each row is made of the same row of the parts, and of nothing else

    @property
    def divisible(self) -> bool:
        return self.by_rows and all(part.divisible for part in self.parts)

    def files(self) -> Iterator[WeightsFile]:
        for part in self.parts:
            yield from part.files()

    def rows(self, start: int, stop: int) -> Weight:
        shape = (stop - start, *self.shape[1:])
        if not self.divisible:
            return Computed(shape, self.names, (self,), lambda whole: whole[start:stop])
        return replace(self, shape=shape, parts=tuple(part.rows(start, stop) for part in self.parts))

    def _copy(self, out: Tensor, check: Check) -> None:
        for start, slab in self.slabs():
            assert isinstance(slab, Computed)
            values = slab.compute(*(part.read(check=check) for part in slab.parts))
            out[start : start + len(values)].copy_(values)


def join(parts: Sequence[Weight]) -> Weight:
    """Weights [n_i, ...] -> one weight [sum n_i, ...]."""
    if len(parts) == 1:
        return parts[0]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Joined(shape, tuple(name for part in parts for name in part.names), tuple(parts))


def weight_norm(gain: Weight, direction: Weight) -> Weight:
    """v * g / ||v||, the norm over all dimensions but the first, by the function behind torch's weight_norm."""
    names = (*gain.names, *direction.names)
    return Computed(direction.shape, names, (gain, direction), _folded)


def _folded(gain: Tensor, direction: Tensor) -> Tensor:
    return torch._weight_norm(direction, gain, 0)  # pyright: ignore[reportPrivateImportUsage]  # no public one is as plain


def identity(size: int) -> Weight:
    """For a projection that a format leaves out."""
    return Computed((size, size), ("identity",), (), lambda: torch.eye(size))


def zeros(size: int) -> Weight:
    return Computed((size,), ("zeros",), (), lambda: torch.zeros(size))
