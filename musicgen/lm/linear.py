"""The matrix products of the language model: how weights are kept, and the fastest stock product for a step."""

from collections.abc import Callable
from typing import Tuple  # noqa: UP035

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import PRECISIONS
from ..errors import InputError
from ..memory import release_freed_memory
from . import cpu_fused

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}

PackedWeight = torch.classes.quantized.LinearPackedParamsBase


def _has_fbgemm(device: torch.device) -> bool:
    """Whether torch has FBGEMM there, whose packed weights x86 CPUs read near the speed of memory."""
    return device.type == "cpu" and torch.backends.quantized.engine in ("x86", "fbgemm")


def plain_product(x: Tensor, weight: Tensor) -> Tensor:
    """[R, in] float32 -> [R, out] float32, on a CPU. TorchScript reads it too."""
    n_rows = x.shape[0]
    if weight.dtype != torch.float32:
        return F.linear(x.to(weight.dtype), weight).float()
    if n_rows > 32:
        return F.linear(x, weight)
    # A step's few rows: with the weight as the left factor, and 4 columns rather than 2 or 3 on the right, MKL reads
    # weights up to twice as fast.
    if n_rows == 2 or n_rows == 3:
        x = F.pad(x, [0, 0, 0, 4 - n_rows])
    return (weight @ x.t()).t()[:n_rows].contiguous()


def int8_product_of_peaks(x: Tensor, packed: PackedWeight) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """[R, in] float32 -> two factors of the product, [R, out] and [R, 1] float32. TorchScript reads it too.

    Each row is quantized by its own largest value, the second factor. To 63 steps either way: two products of 8 bits each
    would overflow the 16 bits that they are added in. A row of zeros becomes 0 / 0, quantized to any byte, times zero.
    """
    peak = x.abs().amax(dim=1, keepdim=True)
    return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(x / peak, 1 / 63, 64, packed), peak


def int8_product(x: Tensor, packed: PackedWeight) -> Tensor:
    """[R, in] float32 -> [R, out] float32. TorchScript reads it too."""
    product, peak = int8_product_of_peaks(x, packed)
    return product.mul_(peak)


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """What `auto` stands for on a device: the fastest that is safe.

    float16 on CUDA, as the reference's autocast, and on x86 CPUs, where only weights are rounded to it; else float32.
    """
    if precision not in PRECISIONS:
        raise InputError(f"'precision' must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    device = torch.device(device)
    return "float16" if device.type == "cuda" or _has_fbgemm(device) else "float32"


def storage_dtype(precision: str) -> torch.dtype:
    """The type that matrices are read from a checkpoint into (int8 is then made from float32)."""
    return _DTYPES[precision]


class _Packed(nn.Module):
    """A layer whose `weight` is laid out anew for an x86 CPU when it is first used there, in the place of the old.

    Moving the layer, or reading its state, gives the plain weight back.
    """

    weight: Tensor
    is_fused = False  # whether the kernels of `cpu_fused` multiply, by the plain weight

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self._size = n_in, n_out
        self._packed: PackedWeight | None = None

    @property
    def has_packed_form(self) -> bool:
        """Whether FBGEMM has one where its weight now is."""
        raise NotImplementedError

    @property
    def packs(self) -> bool:
        """Whether it is packed where its weight now is."""
        return self.has_packed_form and not self.is_fused

    def _pack(self, weight: Tensor) -> PackedWeight:
        raise NotImplementedError

    def _unpack(self, packed: PackedWeight) -> Tensor:
        raise NotImplementedError

    @property
    def can_fuse(self) -> bool:
        """Whether the kernels of `cpu_fused`, where there are any, can multiply by it."""
        raise NotImplementedError

    def fuse(self, fused: bool) -> None:
        """Whether they do, by the plain weight, or FBGEMM."""
        self.is_fused = fused
        if fused:
            self.restore()

    @property
    def is_packed(self) -> bool:
        return self._packed is not None

    @torch.no_grad()
    def plain(self) -> Tensor:
        """The matrix [out, in] that it multiplies by, in float32."""
        return self._widened(self.weight.data if self._packed is None else self._unpack(self._packed))

    def _widened(self, weight: Tensor) -> Tensor:
        return weight.float()

    @torch.no_grad()
    def packed(self) -> PackedWeight:
        if self._packed is None:
            self._packed = self._pack(self.weight.data)
            self.weight.data = self.weight.data.new_empty(0)
        return self._packed

    @torch.no_grad()
    def restore(self) -> None:
        """Back to the plain weight."""
        if self._packed is not None:
            self.weight.data, self._packed = self._unpack(self._packed), None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        probe = fn(self.weight.data.new_empty(1))
        if (probe.device, probe.dtype) == (self.weight.device, self.weight.dtype):
            return self  # ComfyUI "moves" a model to the CPU before every run
        self.restore()
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._packed is not None:
            destination[prefix + "weight"] = self._unpack(self._packed)


class Linear(_Packed):
    """A linear layer without bias: [..., in] -> [..., out].

    On an x86 CPU, FBGEMM reads a weight in 16 bits and multiplies in float32. It knows float16 alone, which holds every
    bfloat16 between 2^-17 and 65504 as it is; what is smaller is kept to within 2^-25.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out)
        self.weight = nn.Parameter(torch.empty(n_out, n_in))

    @property
    def input_dtype(self) -> torch.dtype:
        """What it is given, and gives: CPUs compute in float32 also where they keep weights in halves of it."""
        return torch.float32 if self.weight.device.type == "cpu" else self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.linear(x, self.weight)
        if self.is_fused:
            return cpu_fused.product_of_halves(x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)
        if self.packs:
            return torch.ops.quantized.linear_dynamic_fp16(x, self.packed())
        return plain_product(x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)

    @property
    def has_packed_form(self) -> bool:
        return self.weight.dtype in (torch.float16, torch.bfloat16) and _has_fbgemm(self.weight.device)

    @property
    def can_fuse(self) -> bool:
        return self.has_packed_form and cpu_fused.fits(*self._size)

    def _pack(self, weight: Tensor) -> PackedWeight:
        return torch.ops.quantized.linear_prepack_fp16(weight.float(), None)

    def _unpack(self, packed: PackedWeight) -> Tensor:
        return torch.ops.quantized.linear_unpack_fp16(packed)[0].to(self.weight.dtype)


class Int8Linear(_Packed):
    """A linear layer without bias whose weight is int8, with one scale an output channel.

    On an x86 CPU each row of the input is quantized by its own largest value and multiplied as integers, so that a row's
    result does not depend on its neighbours: to 7 bits for FBGEMM, to 12 and more for the kernels of `cpu_fused`.
    Elsewhere the weight is widened on the fly.
    """

    def __init__(self, weight: Tensor):
        super().__init__(weight.shape[1], len(weight))
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)

    @property
    def input_dtype(self) -> torch.dtype:
        """What it is given, and gives: GPUs compute in the type that they are fast in."""
        return torch.float16 if self.weight.device.type == "cuda" else torch.float32

    @property
    def has_packed_form(self) -> bool:
        return _has_fbgemm(self.weight.device)

    @property
    def can_fuse(self) -> bool:
        return self.has_packed_form and cpu_fused.fits(*self._size)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], of `input_dtype`."""
        if x.dtype != torch.float32:  # float16 would not hold a sum of unscaled products
            return F.linear(x, (self.weight * self.scale[:, None]).to(x.dtype))
        if not self.has_packed_form:
            return F.linear(x, self.weight.to(x.dtype)) * self.scale
        if self.is_fused:
            made = cpu_fused.product(x.reshape(-1, x.shape[-1]), self.weight, self.scale)
            return made.view(*x.shape[:-1], -1)
        return int8_product(x.reshape(-1, x.shape[-1]), self.packed()).view(*x.shape[:-1], -1)

    def _pack(self, weight: Tensor) -> PackedWeight:
        zero = torch.zeros(len(self.scale), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(weight, self.scale.double(), zero, 0)
        return torch.ops.quantized.linear_prepack(quantized, None)

    def _unpack(self, packed: PackedWeight) -> Tensor:
        return torch.ops.quantized.linear_unpack(packed)[0].int_repr()

    def _widened(self, weight: Tensor) -> Tensor:
        return weight.float() * self.scale[:, None]


def quantize_linears(module: nn.Module) -> None:
    """Replace every linear layer below `module` by its int8 form, one at a time."""
    _quantize(module)
    release_freed_memory()


def _quantize(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Linear):
            setattr(module, name, Int8Linear(child.weight.data.float()))
        else:
            _quantize(child)
