"""Keys and values that a layer keeps between the columns of a run."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Columns:
    """Where a pass stands in the cache, and what its queries may attend to."""

    start: int | Tensor  # first column written; a tensor [1] on the device for one column of a captured step
    end: int  # number of columns attended to
    mask: Tensor | None  # [R or 1, 1, S, end], boolean (True = may attend) or added to scores; None = causal


@dataclass(frozen=True)
class KVCache:
    """Keys and values of R rows in one layer."""

    keys: Tensor  # [R, H, L, D / H]
    values: Tensor  # likewise

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> "KVCache":
        """shape: (R, H, L, D / H). Zeros, for a captured step also reads columns that are not yet written."""
        return cls(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))

    def update(self, columns: Columns, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values [R, H, S, D / H] of these columns -> all before `columns.end`, each [R, H, end, D / H]."""
        for buffer, new in ((self.keys, keys), (self.values, values)):
            if isinstance(columns.start, Tensor):
                buffer.index_copy_(2, columns.start, new)
            else:
                buffer[:, :, columns.start : columns.start + new.shape[2]] = new
        return self.keys[:, :, : columns.end], self.values[:, :, : columns.end]


@dataclass(frozen=True)
class TextCache:
    """Keys and values of the text that R rows of one layer attend to."""

    keys: Tensor  # [R, H, N, D / H]
    values: Tensor  # likewise
    mask: Tensor | None  # [R, 1, 1, N], boolean (True = may attend) or added to scores; None = all tokens
