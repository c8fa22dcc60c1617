"""The U-Net on a CPU: the same numbers up to rounding, in about half the time and a third of the memory.

Convolutions are matrix products over [B, T, C] with Winograd's savings, taken in blocks that pass norm, ReLU, product
and bias while they are in the cache. Residual sums happen in place; the decoders write into the skip connections.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .unet import UNWATCHED, Decoder, Encoder, Norm, ResBlock, Unet, Watch
from .winograd import Taps2, Taps3, blocks

_NUMBERS = 2**19  # of a signal that are measured at a time


def fast_unet(unet: Unet) -> Callable[..., Tensor]:
    """`unet`, or its double for the CPU. The double has transformed weights of its own: let it go after use."""
    config = unet.config
    fits = config.kernel == 2 * config.stride and config.stride % 2 == 0
    weight = unet.conv_codec.weight
    return CpuUnet(unet) if fits and weight.device.type == "cpu" and weight.dtype == torch.float32 else unet


class CpuUnet:
    """Called as the Unet that it is made from."""

    def __init__(self, unet: Unet):
        self._unet = unet
        self._encoders = [_Encoder(encoder) for encoder in unet.encoders]
        self._decoders = [_Decoder(decoder) for decoder in unet.decoders]

    def __call__(self, x: Tensor, step: int, condition: Tensor, watch: Watch = UNWATCHED) -> Tensor:
        length, skips = x.shape[-1], []
        z = x.transpose(1, 2).contiguous()
        for level, encoder in enumerate(self._encoders):
            z = encoder(z, self._unet.step_shift(level, step), watch)
            skips.append(z)
        inner = self._unet.bottleneck(z.transpose(1, 2), condition, watch)
        z = skips.pop()
        if inner is not None:
            z += inner.transpose(1, 2)
        for decoder in self._decoders:
            skip = skips.pop() if skips else x.new_zeros(x.shape[0], length, 1)
            decoder(z, skip, watch)
            z = skip
        return z.transpose(1, 2)


def _measured(norm: Norm, x: Tensor, watch: Watch) -> tuple[Tensor, Tensor]:
    """The norm of x [B, T, C] as factor and offset [B, 1, C]."""
    x = watch.counted(x, 1)
    n_rows, n_frames, n_channels = x.shape
    total = x.new_zeros(n_rows, n_channels, dtype=torch.float64)
    squares = torch.zeros_like(total)
    size = max(1, _NUMBERS // (n_rows * n_channels))
    for first in range(0, n_frames, size):
        block = x[:, first : first + size]
        total += block.sum(1)
        squares += block.square().sum(1)
    count = n_frames * n_channels // norm.num_groups
    mean, power = (sums.unflatten(1, (norm.num_groups, -1)).sum(-1) / count for sums in (total, squares))
    variance = power - mean.square()
    if watch.moments is not None:
        mean, variance = watch.moments(mean, variance)
    watch.tick()
    factor, offset = norm.affine_of(mean, variance)
    return factor.float()[:, None], offset.float()[:, None]


def _activate(x: Tensor, factor: Tensor, offset: Tensor, out: Tensor) -> None:
    """relu(x * factor + offset) -> out."""
    torch.addcmul(offset, x, factor, out=out).relu_()


class _Block:
    """Norm, ReLU and a convolution of 3 taps that keeps the length."""

    def __init__(self, norm: Norm, conv: nn.Conv1d):
        self._norm, self._bias = norm, conv.bias
        self._taps = Taps3(conv.weight, conv.dilation[0])

    def __call__(self, x: Tensor, out: Tensor, add: bool, watch: Watch) -> None:
        """x [B, T, C] -> out [B, T, C], which the result is added to if `add`."""
        taps, n_frames = self._taps, x.shape[1]
        factor, offset = _measured(self._norm, x, watch)
        for first, last in blocks(n_frames, taps, x.shape[0]):
            n = -(-(last - first) // taps.tile) * taps.tile
            begin, end = first - taps.halo // 2, first + n + taps.halo // 2
            inside, given = slice(max(begin, 0), min(end, n_frames)), x.new_zeros(x.shape[0], end - begin, x.shape[2])
            _activate(x[:, inside], factor, offset, given[:, inside.start - begin : inside.stop - begin])
            made = taps(given)[:, : last - first]
            if add:
                out[:, first:last] += made.add_(self._bias)
            else:
                torch.add(made, self._bias, out=out[:, first:last])
            watch.tick()


class _ResBlock:
    def __init__(self, block: ResBlock):
        self._first, self._second = _Block(block.norm1, block.conv1), _Block(block.norm2, block.conv2)

    def __call__(self, x: Tensor, watch: Watch) -> None:
        """In place: x [B, T, C]."""
        hidden = torch.empty_like(x)
        self._first(x, hidden, False, watch)
        self._second(hidden, x, True, watch)


class _Encoder:
    def __init__(self, encoder: Encoder):
        weight, stride = encoder.conv.weight, encoder.conv.stride[0]
        # Frames of `stride` samples side by side: the strided convolution of 2 * stride taps has 2 taps of these.
        first, second = (part.permute(0, 2, 1).flatten(1, 2).t() for part in weight.split(stride, dim=2))
        self._taps, self._stride, self._margin = Taps2(first, second), stride, encoder.conv.padding[0]
        self._norm = encoder.norm
        self._res_blocks = [_ResBlock(block) for block in encoder.res_blocks]

    def __call__(self, x: Tensor, shift: Tensor | None, watch: Watch) -> Tensor:
        """x [B, T, C] -> [B, ceil(T / stride), C']."""
        taps, stride, n_frames = self._taps, self._stride, x.shape[1]
        n_out = -(-n_frames // stride)
        out = x.new_empty(x.shape[0], n_out, taps.n_out)
        for first, last in blocks(n_out, taps, x.shape[0]):
            n = -(-(last - first) // taps.tile) * taps.tile
            begin = first * stride - self._margin
            given = x.new_zeros(x.shape[0], n + 1, stride * x.shape[2])
            inside = slice(max(begin, 0), min(begin + (n + 1) * stride, n_frames))
            given.view(x.shape[0], -1, x.shape[2])[:, inside.start - begin : inside.stop - begin] = x[:, inside]
            out[:, first:last] = taps(given)[:, : last - first]
            watch.tick()
        _activate(out, *_measured(self._norm, out, watch), out=out)
        watch.tick()
        for block in self._res_blocks:
            block(out, watch)
        if shift is not None:
            out += shift
        return out


class _Decoder:
    def __init__(self, decoder: Decoder):
        weight, stride = decoder.convtr.weight, decoder.convtr.stride[0]
        # Each frame of `stride` outputs gets the first half of its own input's taps, and the second half of the last's.
        own, last = (part.permute(0, 2, 1).flatten(1, 2) for part in weight.split(stride, dim=2))
        self._taps, self._stride, self._margin = Taps2(last, own), stride, decoder.convtr.padding[0]
        self._norm = decoder.norm
        self._res_blocks = [_ResBlock(block) for block in decoder.res_blocks]

    def __call__(self, x: Tensor, out: Tensor, watch: Watch) -> None:
        """x [B, T, C], which is altered, is added to out [B, T', C'] with T' at most T * stride."""
        for block in self._res_blocks:
            block(x, watch)
        taps, stride, n_frames = self._taps, self._stride, x.shape[1]
        factor, offset = _measured(self._norm, x, watch)
        for first, last in blocks(n_frames + 1, taps, x.shape[0]):
            n = -(-(last - first) // taps.tile) * taps.tile
            given = x.new_zeros(x.shape[0], n + 1, x.shape[2])
            inside = slice(max(first - 1, 0), min(first + n, n_frames))
            _activate(x[:, inside], factor, offset, given[:, inside.start - first + 1 : inside.stop - first + 1])
            made = taps(given).view(x.shape[0], n * stride, -1)
            begin = first * stride - self._margin
            low, high = max(begin, 0), min(begin + n * stride, out.shape[1], n_frames * stride)
            if low < high:
                out[:, low:high] += made[:, low - begin : high - begin]
            watch.tick()
