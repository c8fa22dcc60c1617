"""Linear layers by torch's own operators for CPUs: what serves where the Numba kernels do not."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..lm import Int8Linear, Linear
from ..lm import replace_linears as replace_each

# The order of a product's sums depends on its number of rows: FBGEMM has other kernels for one and two rows, MKL chooses by
# the shape. Rows are padded, or cut into products of one shape, so that a row's sums are the same in any batch.
_HALF_ROWS = 6  # a multiple of this many
_STEP_ROWS, _PREFILL_ROWS = 16, 64  # rows of a float32 product for single columns, and for several


def has_fbgemm() -> bool:
    """Whether torch has FBGEMM, whose packed weights x86 CPUs read near the memory's bandwidth."""
    return torch.backends.quantized.engine in ("x86", "fbgemm")


def replace_linears(module: nn.Module, check: Callable[[], None] | None = None) -> None:
    """Replace the linear layers below `module` by those of this file, where there is one for their weights."""
    replace_each(module, _replacement, check)


def _replacement(linear: Linear | Int8Linear) -> nn.Module:
    if isinstance(linear, Linear) and linear.weight.dtype == torch.float32:
        return FloatLinear(linear.weight)
    if not has_fbgemm():
        return linear
    return PackedInt8Linear(linear) if isinstance(linear, Int8Linear) else PackedHalfLinear(linear)


def _padded(x: Tensor, multiple: int) -> Tensor:
    """Rows [R, n] -> [R', n], R' the next multiple."""
    return F.pad(x, (0, 0, 0, -len(x) % multiple))


class FloatLinear(Linear):
    """A float32 layer: single columns are multiplied with the weight as the left factor, which MKL reads up to twice as fast."""

    def __init__(self, weight: nn.Parameter) -> None:
        nn.Module.__init__(self)
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """x [R, S, in] -> [R, S, out]."""
        rows = x.reshape(-1, x.shape[-1])
        if x.shape[-2] == 1:
            products = [(self.weight @ part.t()).t() for part in _padded(rows, _STEP_ROWS).split(_STEP_ROWS)]
        else:
            products = [F.linear(part, self.weight) for part in _padded(rows, _PREFILL_ROWS).split(_PREFILL_ROWS)]
        return torch.cat(products)[: len(rows)].view(*x.shape[:-1], -1)


class _Packed(nn.Module):
    """A layer whose weight is kept in FBGEMM's layout alone, and computed with in float32. It stays on the CPU."""

    compute_dtype = torch.float32

    def dequantized(self) -> Tensor:
        """The weight [out, in] in float32."""
        raise NotImplementedError

    def _plain(self) -> dict[str, Tensor]:
        """The state of the layer that this one was packed from."""
        raise NotImplementedError

    def _product(self, rows: Tensor) -> Tensor:
        """[R, in] float32 -> [R, out] float32."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x.float().reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)

    def _apply(self, fn, recurse: bool = True) -> nn.Module:
        if fn(torch.empty(0)).device.type != "cpu":
            raise RuntimeError("this model was loaded for the CPU; load it with the device that it is to run on")
        return self

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: tensor for name, tensor in self._plain().items()})


class PackedHalfLinear(_Packed):
    """float16, or bfloat16, which float16 holds exactly between 2^-17 and 65504 and to within 2^-25 below."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self._weight = torch.ops.quantized.linear_prepack_fp16(linear.dequantized(), None)
        self._dtype = linear.weight.dtype

    def dequantized(self) -> Tensor:
        return torch.ops.quantized.linear_unpack_fp16(self._weight)[0]

    def _plain(self) -> dict[str, Tensor]:
        return {"weight": self.dequantized().to(self._dtype)}

    def _product(self, rows: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(_padded(rows, _HALF_ROWS), self._weight)[: len(rows)]


class PackedInt8Linear(_Packed):
    """int8 with a scale an output. Each row of the input is quantized by its own peak.

    To 63 steps either way: FBGEMM adds two products of 8 bits each in 16 bits, which more would overflow.
    """

    def __init__(self, linear: Int8Linear) -> None:
        super().__init__()
        zero = torch.zeros(len(linear.scale), dtype=torch.long)
        pack = torch._make_per_channel_quantized_tensor  # pyright: ignore[reportPrivateImportUsage]  # has no other name
        quantized = pack(linear.weight, linear.scale.double(), zero, 0)
        self._weight = torch.ops.quantized.linear_prepack(quantized, None)

    def dequantized(self) -> Tensor:
        return torch.ops.quantized.linear_unpack(self._weight)[0].dequantize()

    def _plain(self) -> dict[str, Tensor]:
        weight = torch.ops.quantized.linear_unpack(self._weight)[0]
        return {"weight": weight.int_repr(), "scale": weight.q_per_channel_scales().float()}

    def _product(self, rows: Tensor) -> Tensor:
        # A row of zeros becomes 0 / 0, which is quantized to any byte, times zero.
        peak = rows.abs().amax(dim=1, keepdim=True)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / peak, 1 / 63, 64, self._weight
        )
        return product.mul_(peak)
