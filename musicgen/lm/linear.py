"""Matrix products of the language model in the precisions that weights are kept in."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..memory import release_freed_memory

_STORAGE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}
_IN_CACHE = 1 << 18  # elements that stay in a core's cache while they are quantized


def storage_dtype(precision: str) -> torch.dtype:
    """The type that matrices are read from a checkpoint into; int8 is quantized from float32."""
    return _STORAGE[precision]


class Linear(nn.Module):
    """A linear layer without bias: [..., in] -> [..., out], computed in the weight's type."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type of the product, and of what is cached of it."""
        return self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight)

    def dequantized(self) -> Tensor:
        """The weight [out, in] in float32."""
        return self.weight.detach().float()


class Int8Linear(nn.Module):
    """A linear layer without bias whose weight is int8 with one scale an output channel.

    The weight is dequantized for each product: a quarter of float32's memory, not of its time. `accel` has faster products.
    """

    def __init__(self, weight: Tensor, compute_dtype: torch.dtype = torch.float32):
        """weight: [out, in] float32. compute_dtype: float16 for GPUs, whose products in float32 are slow."""
        super().__init__()
        scale = torch.maximum(weight.amax(dim=1), -weight.amin(dim=1)).clamp(min=1e-12) / 127  # without a copy
        self.weight: Tensor
        self.scale: Tensor
        self.register_buffer("weight", torch.empty(weight.shape, dtype=torch.int8, device=weight.device))
        n = max(1, _IN_CACHE // weight.shape[1])
        for rows, per_row, out in zip(weight.split(n), scale.split(n), self.weight.split(n), strict=True):
            out.copy_((rows / per_row[:, None]).round_().clamp_(-127, 127))
        self.register_buffer("scale", scale)
        self.compute_dtype = compute_dtype

    def forward(self, x: Tensor) -> Tensor:
        # Scaled before the product: sums of unscaled products overflow float16.
        return F.linear(x.to(self.compute_dtype), (self.weight * self.scale[:, None]).to(self.compute_dtype))

    def dequantized(self) -> Tensor:
        """The weight [out, in] in float32."""
        return self.weight.float() * self.scale[:, None]


def quantize_linears(
    module: nn.Module, compute_dtype: torch.dtype = torch.float32, check: Callable[[], None] | None = None
) -> None:
    """Replace every linear layer below `module` by its int8 form, one at a time."""
    replace_linears(module, lambda linear: Int8Linear(linear.dequantized(), compute_dtype), check)


def replace_linears(
    module: nn.Module, replacement: Callable[[Linear | Int8Linear], nn.Module], check: Callable[[], None] | None = None
) -> None:
    """Replace every Linear and Int8Linear below `module` by replacement(linear), and return freed memory to the system.

    check() is called before each: what it raises (Cancel) leaves the rest as it is.
    """
    for name, child in module.named_children():
        if isinstance(child, Linear | Int8Linear):
            if check is not None:
                check()
            setattr(module, name, replacement(child))
        else:
            replace_linears(child, replacement, check)
    release_freed_memory()
