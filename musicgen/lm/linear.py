"""The matrix products of the language model: how weights are kept, and the fastest stock product for a step."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import PRECISIONS
from ..errors import InputError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}
_FEW_ROWS = 32


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """What `auto` stands for on a device: float16 on CUDA, as the reference's autocast; else float32."""
    if precision not in PRECISIONS:
        raise InputError(f"'precision' must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    return "float16" if torch.device(device).type == "cuda" else "float32"


def storage_dtype(precision: str) -> torch.dtype:
    """The type that matrices are read from a checkpoint into (int8 is then made from float32)."""
    return _DTYPES[precision]


class Linear(nn.Module):
    """A linear layer without bias: [..., in] -> [..., out]."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))

    @property
    def input_dtype(self) -> torch.dtype:
        return self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        n_rows = x.numel() // x.shape[-1]
        if x.device.type == "cpu" and x.dtype == torch.float32 and n_rows <= _FEW_ROWS:
            # A step's few rows: reading the weight as the left factor is up to twice as fast on CPUs.
            return (self.weight @ x.reshape(n_rows, -1).t()).t().reshape(*x.shape[:-1], -1)
        return F.linear(x, self.weight)


class Int8Linear(nn.Module):
    """A linear layer without bias whose weight is int8, with one scale an output channel.

    On an x86 CPU each row of the input is quantized to 7 bits and multiplied as integers (torch's dynamic
    quantized linear); elsewhere the weight is widened on the fly.
    """

    input_dtype = torch.float32

    def __init__(self, weight: Tensor):
        super().__init__()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)
        self._packed = None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] float32 -> [..., out] float32."""
        if x.device.type != "cpu" or torch.backends.quantized.engine not in ("x86", "fbgemm", "onednn"):
            return F.linear(x, self.weight.to(x.dtype)) * self.scale
        rows = x.reshape(-1, x.shape[-1])
        peak = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        # torch picks one range for all rows. A guard row that spans -1..1 makes it the same for every batch,
        # so that a row's result does not depend on its neighbours.
        guard = torch.zeros_like(rows[:1])
        guard[0, 0], guard[0, 1] = -1.0, 1.0
        scaled = torch.cat([rows / peak, guard])
        product = torch.ops.quantized.linear_dynamic(scaled, self._pack(), reduce_range=True)
        return (product[:-1] * peak).reshape(*x.shape[:-1], -1)

    def _pack(self) -> object:
        if self._packed is None:
            zero = torch.zeros(len(self.scale), dtype=torch.long)
            weight = torch._make_per_channel_quantized_tensor(self.weight, self.scale.double(), zero, 0)
            self._packed = torch.ops.quantized.linear_prepack(weight, None)
        return self._packed


def quantize_linears(module: nn.Module) -> None:
    """Replace every linear layer below `module` by its int8 form, one at a time."""
    for name, child in module.named_children():
        if isinstance(child, Linear):
            setattr(module, name, Int8Linear(child.weight.data.float()))
        else:
            quantize_linears(child)
