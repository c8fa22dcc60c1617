"""Tables whose rows FBGEMM adds up, weighted, on an x86 CPU: float16, or bytes with a scale and an offset in each row.

Both are read at the speed of memory or near it and added in float32. TorchScript reads these functions too.
"""

import torch
from torch import Tensor

SCALE_BYTES = 8  # of a row of bytes: the float32 scale and offset at its end


def width(n_values: int, dtype: torch.dtype) -> int:
    """Elements of a table of that type that a row of so many values takes."""
    return n_values + SCALE_BYTES if dtype == torch.uint8 else n_values


def to_rows(values: Tensor, dtype: torch.dtype) -> Tensor:
    """[..., n] float32 -> rows [..., width(n)] of a table of float16 or uint8: each row from its least value to its largest."""
    if dtype != torch.uint8:
        return values.to(dtype)
    return torch.ops.quantized.embedding_bag_byte_prepack(values)


def from_rows(rows: Tensor) -> Tensor:
    """The values [..., n] float32 of rows [..., width(n)]."""
    if rows.dtype != torch.uint8:
        return rows.float()
    # The operator takes it for contiguous, whatever it is.
    return torch.ops.quantized.embedding_bag_byte_unpack(rows.contiguous())


def weight_type(dtype: torch.dtype) -> torch.dtype:
    """What the rows of a table of that type are weighted by, and added up into."""
    return torch.float32 if dtype == torch.uint8 else dtype


def add_up(table: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Sums of weighted rows [bags, n] of a contiguous table [..., width(n)].

    index [N] int32: the rows, all bags' one after the other; offsets [bags]: where each begins; weights [N]. Weights and
    sums are of `weight_type`.
    """
    rows = table.view(-1, table.shape[-1])
    if table.dtype == torch.uint8:
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            rows, index, offsets, False, 0, False, weights, None, False
        )
    return torch.embedding_bag(rows, index, offsets, False, 0, False, weights)[0]
