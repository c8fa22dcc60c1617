"""Weights that are known by name and shape but not yet read: copied from a mapped file when they are needed."""

import functools
import math
import mmap
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError

SLAB_BYTES = 32 * 2**20  # of one tensor held at a time where weights are computed or converted
_CHUNK_BYTES = 8 * 2**20  # of one tensor mapped at a time, so that a huge tensor does not count twice


class MappedFile:
    """A file mapped read-only into memory. `close` unmaps it until it is next read."""

    def __init__(self, path: Path):
        self.path = path
        self._mapping: mmap.mmap | None = None
        self._identity: tuple | None = None  # size, time and place on the disk, when it was first opened
        self._size = len(self._map)

    @property
    def _map(self) -> mmap.mmap:
        if self._mapping is None:
            try:
                with open(self.path, "rb") as file:
                    stat = os.fstat(file.fileno())
                    identity = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
                    if self._identity not in (None, identity):
                        raise CheckpointError(f"{self.path} was changed after the model was loaded. Load it again.")
                    self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # how mmap refuses an empty file
                raise CheckpointError(f"{self.path} is empty. Download it again.") from error
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read: {error.strerror or error}") from error
            self._identity = identity
        return self._mapping

    def close(self) -> None:
        """Let the file go, so that it can be replaced. It is mapped again, if still the same, when next read."""
        self._mapping = None  # unmapped once no tensor refers to it

    def __len__(self) -> int:
        return self._size

    def read(self, start: int, stop: int) -> bytes:
        return self._map[start:stop]

    def tensor(self, offset: int, n_elements: int, dtype: torch.dtype) -> Tensor:
        """Flat read-only view of `n_elements` from byte `offset` on: only ever copied from."""
        if offset % dtype.itemsize:
            raw = bytearray(self._map[offset : offset + n_elements * dtype.itemsize])
            return torch.frombuffer(raw, dtype=dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            return torch.frombuffer(self._map, dtype=dtype, count=n_elements, offset=offset)

    def release(self, offset: int, n_bytes: int) -> None:
        """Drop the pages of a range from this process's memory; the system may keep them in its file cache."""
        if not hasattr(self._map, "madvise") or not hasattr(mmap, "MADV_DONTNEED"):
            return  # Windows trims mapped pages by itself
        start = offset - offset % mmap.PAGESIZE
        stop = min(-(-(offset + n_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE, len(self._map))
        self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)


@dataclass(frozen=True)
class Weight:
    """One destination parameter, not yet read. `names` are its source tensors, for messages."""

    shape: tuple[int, ...]
    names: tuple[str, ...]

    def copy_into(self, out: Tensor) -> None:
        """Read into `out`, of the same shape, in its dtype and on its device."""
        if tuple(out.shape) != self.shape:
            raise CheckpointError(f"{self.label} has the shape {list(self.shape)}, where {list(out.shape)} is needed")
        with torch.no_grad():
            self._copy(out)

    def _copy(self, out: Tensor) -> None:
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

    def files(self) -> Iterator[MappedFile]:
        """The files that it is read from."""
        yield from ()

    def read(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """A new CPU tensor with the values. For small tensors and tests."""
        out = torch.empty(self.shape, dtype=dtype)
        self.copy_into(out)
        return out


@dataclass(frozen=True)
class Stored(Weight):
    """A tensor as it lies in a file; `strides` in elements."""

    file: MappedFile
    offset: int  # bytes from the start of the file
    stored_as: torch.dtype
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.extent * self.dtype.itemsize + self.offset > len(self.file):
            raise CheckpointError(f"{self.file.path}: tensor '{self.label}' reaches beyond the end of the file")

    @property
    def dtype(self) -> torch.dtype:
        return self.stored_as

    def files(self) -> Iterator[MappedFile]:
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

    def _copy(self, out: Tensor) -> None:
        if out.numel() == 0:
            return
        n_bytes = self.extent * self.dtype.itemsize
        if n_bytes > _CHUNK_BYTES and self.shape[0] > 1:
            step = max(1, self.shape[0] * _CHUNK_BYTES // n_bytes)
            for start in range(0, self.shape[0], step):
                stop = min(start + step, self.shape[0])
                self.rows(start, stop)._copy(out[start:stop])
            return
        view = self.file.tensor(self.offset, self.extent, self.dtype)
        out.copy_(view.as_strided(self.shape, self.strides))
        del view
        self.file.release(self.offset, n_bytes)


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

    def files(self) -> Iterator[MappedFile]:
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

    def _copy(self, out: Tensor) -> None:
        start = 0
        for part in self.parts:
            part._copy(out[start : start + part.shape[0]])
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

    def files(self) -> Iterator[MappedFile]:
        for part in self.parts:
            yield from part.files()

    def rows(self, start: int, stop: int) -> Weight:
        shape = (stop - start, *self.shape[1:])
        if not self.divisible:
            return Computed(shape, self.names, (self,), lambda whole: whole[start:stop])
        return replace(self, shape=shape, parts=tuple(part.rows(start, stop) for part in self.parts))

    def _copy(self, out: Tensor) -> None:
        for start, slab in self.slabs():
            values = slab.compute(*(part.read() for part in slab.parts))
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
    return Computed(direction.shape, names, (gain, direction), lambda g, v: torch._weight_norm(v, g, 0))


def identity(size: int) -> Weight:
    """For a projection that a format leaves out."""
    return Computed((size, size), ("identity",), (), lambda: torch.eye(size))


def zeros(size: int) -> Weight:
    return Computed((size,), ("zeros",), (), lambda: torch.zeros(size))
