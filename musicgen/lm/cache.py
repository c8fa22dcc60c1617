"""What a layer remembers of the columns it has seen: keys and values on static buffers, written by index."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .tables import from_rows, to_rows, weight_type, width

BLOCK = 32  # columns whose keys lie side by side in a TableCache


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
    cross_keys: Tensor | None  # [R, H, N, D / H], computed once; or folded, as `Block.folded_cross` says
    cross_values: Tensor | None  # likewise
    n_folded: int = field(
        default=0, kw_only=True
    )  # the first rows, which alone attend to text, to the same; 0: not folded

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
class TableCache(LayerCache):
    """Keys and values as `cpu_step` reads them on an x86 CPU: tables of float16 or of bytes (tables.py), which take a
    half or a quarter of the memory and of the time to read.

    keys: [R, H, max_len / BLOCK, D / H, width(BLOCK)], values: [R, H, max_len, width(D / H)]; max_len is a multiple of
    BLOCK. Keys go in when a block of columns is whole: until then they are in `tail` as they came. The last block's
    values that are not yet written are zeros, for they are added too, times zero; what is beyond it has never been set.
    """

    tail: Tensor  # [R, H, BLOCK, D / H] float32

    @classmethod
    def of_layers(
        cls, n_rows: int, n_heads: int, max_len: int, head_dim: int, dtype: torch.dtype,
        crosses: Sequence[tuple[Tensor | None, Tensor | None]], n_folded: int = 0,
    ) -> "list[TableCache]":  # fmt: skip
        """An empty one a layer. They share their memory, which is so large that it goes back to the system at once."""
        n_layers, room = len(crosses), cls.room(max_len)
        keys = (n_layers, n_rows, n_heads, room // BLOCK, head_dim, width(BLOCK, dtype))
        values = (n_layers, n_rows, n_heads, room, width(head_dim, dtype))
        tables = zip(torch.empty(keys, dtype=dtype), torch.empty(values, dtype=dtype), strict=True)
        tails = torch.zeros(n_layers, n_rows, n_heads, BLOCK, head_dim)
        return [
            cls(*own, *cross, tail, n_folded=n_folded) for own, cross, tail in zip(tables, crosses, tails, strict=True)
        ]

    @staticmethod
    def room(n_columns: int) -> int:
        """The columns that are kept for so many."""
        return -(-n_columns // BLOCK) * BLOCK

    @classmethod
    def n_bytes(cls, n_heads: int, n_columns: int, head_dim: int, dtype: torch.dtype) -> int:
        """Memory of a row of one layer, cross-attention not counted."""
        room = cls.room(n_columns)
        table = room // BLOCK * head_dim * width(BLOCK, dtype) + room * width(head_dim, dtype)
        return n_heads * (table * dtype.itemsize + 4 * BLOCK * head_dim)

    def write(self, columns: Columns, keys: Tensor, values: Tensor) -> None:
        assert isinstance(columns.start, int)
        start, end = columns.start, columns.start + keys.shape[2]
        self.values[:, :, start:end] = to_rows(values, self.values.dtype)
        self.values[:, :, end : self.room(end)] = 0
        keys = torch.cat([self.tail[:, :, : start % BLOCK], keys], dim=2)
        n_whole = keys.shape[2] // BLOCK
        whole, rest = keys.split([n_whole * BLOCK, keys.shape[2] % BLOCK], dim=2)
        if n_whole:
            blocks = to_rows(whole.unflatten(2, (n_whole, BLOCK)).transpose(3, 4), self.keys.dtype)
            self.keys[:, :, start // BLOCK : start // BLOCK + n_whole] = blocks
        self.tail[:, :, : rest.shape[2]] = rest

    def read(self, end: int) -> tuple[Tensor, Tensor]:
        """Of all columns that are written, and no fewer."""
        n_rows, n_heads, _, head_dim = self.tail.shape
        keys = torch.empty(n_rows, n_heads, end, head_dim)
        whole, rest = keys.split([end - end % BLOCK, end % BLOCK], dim=2)
        whole.unflatten(2, (-1, BLOCK)).transpose(3, 4).copy_(from_rows(self.keys[:, :, : end // BLOCK]))
        rest.copy_(self.tail[:, :, : end % BLOCK])
        return keys, from_rows(self.values[:, :, :end])


class Bags:
    """Which rows of a TableCache's tables are added up for the columns so far; the same for all layers."""

    def __init__(self) -> None:
        self._n_whole, self._tables = -1, []

    def of(self, cache: TableCache, n_columns: int, mask: Tensor | None) -> list[Tensor]:
        """What `cpu_step.attend_tables` takes: indices and offsets for keys, then for values, and what is added to the scores
        of the tail, [1, 1, BLOCK] float32, -inf where it has no column yet.

        mask: [R, 1, 1, n_columns] boolean, True = may attend; None = all of them. It adds one more: what is added to all
        scores, [R, 1, 1, n] of `weight_type`, whole blocks and then the tail.
        """
        n_whole = (n_columns - 1) // BLOCK
        if n_whole != self._n_whole:
            n_rows, n_heads, n_blocks, head_dim, _ = cache.keys.shape
            each = torch.arange(n_rows * n_heads, dtype=torch.int32)
            self._tables = []
            # A bag of keys is one block of one head, its rows the head's dimensions; a bag of values is one head, its rows
            # the columns.
            for n_bags, size, in_table in (
                (n_whole, head_dim, n_blocks * head_dim),
                (1, (n_whole + 1) * BLOCK, n_blocks * BLOCK),
            ):
                inside = torch.arange(n_bags * size, dtype=torch.int32)
                self._tables.append((each[:, None] * in_table + inside).flatten())
                self._tables.append(torch.arange(len(each) * n_bags, dtype=torch.int32) * size)
            self._n_whole = n_whole
        tail = torch.full((1, 1, BLOCK), -torch.inf)
        tail[..., : n_columns - n_whole * BLOCK] = 0.0
        if mask is None:
            return [*self._tables, tail]
        hidden = torch.zeros(len(mask), 1, 1, (n_whole + 1) * BLOCK, dtype=weight_type(cache.keys.dtype))
        hidden[..., :n_columns].masked_fill_(~mask, -torch.inf)
        return [*self._tables, tail, hidden]


def bags_of_all(blocks: Tensor, n_times: int) -> list[Tensor]:
    """Index and offsets that add up all rows of each block of a table [blocks, rows, n], and that so many times."""
    n_blocks, n_rows = blocks.shape[:2]
    index = torch.arange(n_blocks * n_rows, dtype=torch.int32).repeat(n_times)
    return [index, torch.arange(n_blocks * n_times, dtype=torch.int32) * n_rows]
