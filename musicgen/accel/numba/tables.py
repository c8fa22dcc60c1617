"""Keys and values as the kernels read them: tables of float16, or of bytes with a scale and an offset a row.

Bytes go with int8 weights. They take a quarter of float32's memory and of the time to read, float16 takes half.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import LMConfig

BLOCK = 32  # columns whose keys lie side by side
SCALE_BYTES = 8  # of a row of bytes: the float32 scale and offset at its end


def row_width(n_values: int, dtype: torch.dtype) -> int:
    """Elements of a table's row of n values."""
    return n_values + SCALE_BYTES if dtype == torch.uint8 else n_values


def to_rows(values: Tensor, dtype: torch.dtype) -> Tensor:
    """[..., n] float32 -> rows [..., row_width(n)] of float16 or uint8; a row of bytes spans its least to its largest value."""
    if dtype != torch.uint8:
        return values.to(dtype)
    return torch.ops.quantized.embedding_bag_byte_prepack(values)


@dataclass(frozen=True)
class Tables:
    """Keys and values of R rows in one layer, with room for L columns, a multiple of BLOCK.

    Keys are written when a block of columns is complete; until then they are in `tail` as they came. Values of the last
    block's columns that are not yet written are zeros, for they are summed too, times zero.
    """

    keys: Tensor  # [R, H, L / BLOCK, D / H, row_width(BLOCK)]
    values: Tensor  # [R, H, L, row_width(D / H)]
    tail: Tensor  # [R, H, BLOCK, D / H] float32

    @classmethod
    def of_layers(cls, config: LMConfig, n_rows: int, n_columns: int, dtype: torch.dtype) -> "list[Tables]":
        """Empty tables, one a layer. They share one allocation, so large that it goes back to the system when it is freed."""
        room = -(-n_columns // BLOCK) * BLOCK
        each = (config.n_layers, n_rows, config.n_heads)
        keys = torch.empty(*each, room // BLOCK, config.head_dim, row_width(BLOCK, dtype), dtype=dtype)
        values = torch.empty(*each, room, row_width(config.head_dim, dtype), dtype=dtype)
        tails = torch.zeros(*each, BLOCK, config.head_dim)
        return [cls(*layer) for layer in zip(keys, values, tails, strict=True)]
