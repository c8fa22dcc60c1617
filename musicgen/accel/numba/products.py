"""Products of rows with one matrix by the kernels."""

import torch
from torch import Tensor

from ...lm import Int8Linear, Linear
from .compile import kernels
from .threads import team


def product(linear: Linear | Int8Linear, x: Tensor) -> Tensor:
    """x [R, in] float32 through a Linear of 16 bits or an Int8Linear -> [R, out] float32. Rows never see each other's."""
    weight = linear.weight
    x, n_rows, n_out = x.detach().float().contiguous(), len(x), len(weight)
    out = torch.empty(n_rows, n_out)
    if not isinstance(linear, Int8Linear):
        sums = torch.empty(n_rows * n_out)
        is_bfloat16 = weight.dtype == torch.bfloat16
        team.run(kernels().multiply_half, x.numpy(), weight.data_ptr(), is_bfloat16, sums.numpy(), out.numpy())
        return out
    padded = kernels().padded_rows(n_rows)
    quantized = torch.zeros(padded, x.shape[1] + kernels().SPARE, dtype=torch.int16)
    sums = torch.empty(kernels().SUMS * padded * n_out, dtype=torch.int32)
    team.run(
        kernels().multiply, x.numpy(), weight.data_ptr(), linear.scale.data_ptr(), quantized.numpy(),
        torch.empty(n_rows).numpy(), sums.numpy(), out.numpy(),
    )  # fmt: skip
    return out
