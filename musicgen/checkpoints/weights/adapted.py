"""Weights that adapters change: the whole weight, plus a strength times each change, summed in float32 and rounded once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .lazy import Check, Computed, Weight, WeightsFile


@dataclass(frozen=True)
class LowRank(Weight):
    """scale * B A, [out, in]: the change that LoRA makes of a linear layer. Rows i..j need those rows of B, and all of A."""

    a: Weight  # [r, in]
    b: Weight  # [out, r]
    scale: float

    def files(self) -> Iterator[WeightsFile]:
        yield from self.a.files()
        yield from self.b.files()

    def rows(self, start: int, stop: int) -> "LowRank":
        return replace(self, shape=(stop - start, self.shape[1]), b=self.b.rows(start, stop))

    def _copy(self, out: Tensor, check: Check) -> None:
        a = self.a.read(check=check)
        for start, slab in self.slabs():
            assert isinstance(slab, LowRank)
            values = slab.b.read(check=check) @ a
            out[start : start + len(values)].copy_(values.mul_(self.scale))


@dataclass(frozen=True)
class Change:
    """What is added to some rows of a weight, at a strength."""

    delta: Weight  # [n, ...]
    first_row: int
    strength: float


@dataclass(frozen=True)
class Adapted(Weight):
    """`whole` plus the sum of `changes`. Their order does not matter: none of them is made of another one's result."""

    whole: Weight
    changes: tuple[Change, ...]

    @property
    def divisible(self) -> bool:
        return self.whole.divisible

    def files(self) -> Iterator[WeightsFile]:
        yield from self.whole.files()
        for change in self.changes:
            yield from change.delta.files()

    def rows(self, start: int, stop: int) -> "Adapted":
        changes = []
        for change in self.changes:
            first = max(start - change.first_row, 0)
            last = min(stop - change.first_row, change.delta.shape[0])
            if first < last:
                delta = change.delta.rows(first, last)
                changes.append(replace(change, delta=delta, first_row=change.first_row + first - start))
        shape = (stop - start, *self.shape[1:])
        return replace(self, shape=shape, whole=self.whole.rows(start, stop), changes=tuple(changes))

    def _copy(self, out: Tensor, check: Check) -> None:
        for start, slab in self.slabs():
            assert isinstance(slab, Adapted)
            values = slab.whole.read(check=check)
            for change in slab.changes:
                rows = values[change.first_row : change.first_row + change.delta.shape[0]]
                rows.add_(change.delta.read(check=check), alpha=change.strength)
            out[start : start + len(values)].copy_(values)


def whole_of(weight: Weight) -> Weight:
    """The weight without the changes of adapters."""
    return weight.whole if isinstance(weight, Adapted) else weight


def with_whole(weight: Weight, whole: Weight) -> Weight:
    """`whole` with the changes that adapters make of `weight`."""
    return replace(weight, whole=whole) if isinstance(weight, Adapted) else whole


def with_changes(weights: Mapping[str, Weight], changes: Mapping[str, Sequence[Change]]) -> dict[str, Weight]:
    """The table with the changes of one more adapter, by the names of the weights."""
    table = dict(weights)
    for name, more in changes.items():
        weight = table[name]
        before = weight.changes if isinstance(weight, Adapted) else ()
        names = tuple(dict.fromkeys([*weight.names, *(name for change in more for name in change.delta.names)]))
        table[name] = Adapted(weight.shape, names, whole_of(weight), (*before, *more))
    return table


def held(name: str, tensor: Tensor) -> Weight:
    """A weight whose values are in memory already."""
    return Computed(tuple(tensor.shape), (name,), (), lambda: tensor.detach().to("cpu", torch.float32, copy=True))


# --- the changes of one module: weights [rows, ...] like those of the base that they are added to


def linear_delta(a: Weight, b: Weight, scale: float) -> Weight:
    """A [r, in], B [out, r] -> [out, in]."""
    return LowRank((b.shape[0], a.shape[1]), (*a.names, *b.names), a, b, scale)


def embedding_delta(a: Weight, b: Weight, scale: float) -> Weight:
    """A [r, n], B [dim, r] -> [1, n, dim], one row of the table of embeddings."""

    def compute(a: Tensor, b: Tensor) -> Tensor:
        return (b @ a).mul_(scale).T[None]

    return Computed((1, a.shape[1], b.shape[0]), (*a.names, *b.names), (a, b), compute)


def scaled(weight: Weight, scale: float) -> Weight:
    """A bias beside B, at the scale of its module."""
    return Computed(weight.shape, weight.names, (weight,), lambda values: values.mul_(scale), by_rows=True)


def replaced(base: Weight, saved: Weight) -> Weight:
    """Of a tensor that stands in place of the base's: saved - base."""
    return Computed(base.shape, saved.names, (base, saved), lambda old, new: new.sub_(old), by_rows=True)


def linear_dora(base: Weight, delta: Weight, magnitude: Weight) -> Weight:
    """m V / ||V|| - W with V = W + delta, the norm of each output row. Source: PEFT `DoraLinearVariant.merge_safe`."""

    def compute(base: Tensor, delta: Tensor, magnitude: Tensor) -> Tensor:
        return _directed(base, delta, magnitude[:, None], dim=1)

    return Computed(base.shape, (*delta.names, *magnitude.names), (base, delta, magnitude), compute, by_rows=True)


def embedding_dora(base: Weight, delta: Weight, magnitude: Weight) -> Weight:
    """The same of an embedding [1, n, dim], the norm of each column. Source: PEFT `DoraEmbeddingVariant`."""

    def compute(base: Tensor, delta: Tensor, magnitude: Tensor) -> Tensor:
        return _directed(base, delta, magnitude, dim=1)

    return Computed(base.shape, (*delta.names, *magnitude.names), (base, delta, magnitude), compute)


def _directed(base: Tensor, delta: Tensor, magnitude: Tensor, dim: int) -> Tensor:
    moved = delta.add_(base)
    norm = torch.linalg.norm(moved, dim=dim, keepdim=True).clamp_(min=1e-12)  # of a row of zeros: it stays one
    return moved.mul_(magnitude / norm).sub_(base)
