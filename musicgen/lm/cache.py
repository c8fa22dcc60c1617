"""What a layer remembers of the columns it has seen: keys and values on static buffers, written by index."""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32  # columns whose keys lie side by side in a HalfCache


@dataclass(frozen=True)
class Columns:
    """Which columns of the cache a pass writes, and what its queries may attend to."""

    start: int | Tensor  # the first one written; a tensor [1] where only the device knows it, for one column
    end: int  # columns before this one are attended to
    mask: Tensor | None  # [R or 1, 1, S, end] boolean, True = may attend; None = causal from `start`


@dataclass
class LayerCache:
    """What one layer remembers of R rows."""

    keys: Tensor  # [R, H, max_len, D / H]
    values: Tensor  # likewise
    cross_keys: Tensor | None  # [R, H, N, D / H], computed once
    cross_values: Tensor | None

    def write(self, columns: Columns, keys: Tensor, values: Tensor) -> None:
        """keys, values: [R, H, S, D / H]."""
        for cache, new in ((self.keys, keys), (self.values, values)):
            if isinstance(columns.start, Tensor):
                cache.index_copy_(2, columns.start, new)
            else:
                cache[:, :, columns.start : columns.start + new.shape[2]] = new

    def read(self, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the columns before `end`, each [R, H, end, D / H]."""
        return self.keys[:, :, :end], self.values[:, :, :end]


@dataclass
class HalfCache(LayerCache):
    """Keys and values in float16, as `cpu_step` reads them on an x86 CPU: at half the memory, and faster than it would
    float32, by `embedding_bag` of FBGEMM, which widens float16 on its way.

    keys: [R, H, max_len / BLOCK, D / H, BLOCK], values: [R, H, max_len, D / H]; max_len is a multiple of BLOCK. Columns
    not yet written are zeros, for they are multiplied too, by zero.
    """

    @classmethod
    def empty(
        cls, n_rows: int, n_heads: int, max_len: int, head_dim: int, cross: tuple[Tensor | None, Tensor | None]
    ) -> "HalfCache":
        room = cls.room(max_len)
        keys = torch.zeros(n_rows, n_heads, room // BLOCK, head_dim, BLOCK, dtype=torch.float16)
        return cls(keys, torch.zeros(n_rows, n_heads, room, head_dim, dtype=torch.float16), *cross)

    @staticmethod
    def room(n_columns: int) -> int:
        """The columns that are kept for so many."""
        return -(-n_columns // BLOCK) * BLOCK

    def write(self, columns: Columns, keys: Tensor, values: Tensor) -> None:
        assert isinstance(columns.start, int)
        at = torch.arange(columns.start, columns.start + keys.shape[2])
        self.keys.transpose(3, 4)[:, :, at // BLOCK, at % BLOCK] = keys.half()
        self.values[:, :, columns.start : columns.start + keys.shape[2]] = values

    def read(self, end: int) -> tuple[Tensor, Tensor]:
        keys = self.keys[:, :, : -(-end // BLOCK)].transpose(3, 4).flatten(2, 3)
        return keys[:, :, :end].float(), self.values[:, :, :end].float()


class Bags:
    """Which rows of a HalfCache's tables `embedding_bag` adds up for the columns so far; the same for all layers."""

    def __init__(self) -> None:
        self._n_blocks, self._tables = 0, []

    def of(self, cache: HalfCache, n_columns: int, mask: Tensor | None) -> list[Tensor]:
        """Indices and offsets for keys, then for values, as `cpu_step.attend_halves` takes them, and what is added to the
        scores, -inf where a column is hidden: [R or 1, 1, 1, blocks * BLOCK] float16.

        mask: [R, 1, 1, n_columns] boolean, True = may attend; None = all of them.
        """
        n_blocks = -(-n_columns // BLOCK)
        if n_blocks != self._n_blocks:
            n_rows, n_heads, room, head_dim, _ = cache.keys.shape
            each = torch.arange(n_rows * n_heads, dtype=torch.int32)
            self._tables = []
            # A bag of keys is one block of one head, its rows the head's dimensions; a bag of values is one head, its rows
            # the columns.
            for n_bags, size, in_table in ((n_blocks, head_dim, room * head_dim), (1, n_blocks * BLOCK, room * BLOCK)):
                inside = torch.arange(n_bags * size, dtype=torch.int32)
                self._tables.append((each[:, None] * in_table + inside).flatten())
                self._tables.append(torch.arange(len(each) * n_bags, dtype=torch.int32) * size)
            self._n_blocks = n_blocks
        n_rows = 1 if mask is None else len(mask)
        hidden = torch.full((n_rows, 1, 1, n_blocks * BLOCK), -torch.inf, dtype=torch.float16)
        seen = hidden[..., :n_columns]
        seen.fill_(0.0) if mask is None else seen.masked_fill_(mask, 0.0)
        return [*self._tables, hidden]
