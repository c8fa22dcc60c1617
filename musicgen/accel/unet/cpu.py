"""The U-Net on a CPU.

Convolutions are Winograd matrix products over [B, T, C]. Each block takes norm, ReLU, product and bias while it is in
the cache. Residual sums are in place; the decoders accumulate into the skip connections.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...diffusion.unet import NO_HOOKS, Decoder, Encoder, Norm, ResBlock, RunHooks, Unet
from .winograd import Taps2, Taps3, blocks

_NUMBERS = 2**19  # values of a signal whose statistics are summed at a time


def faster_unet(unet: Unet) -> Callable[..., Tensor]:
    """The CPU form of a float32 `unet` on the CPU, else `unet` itself. The CPU form holds transformed copies of the weights."""
    config = unet.config
    fits = config.kernel == 2 * config.stride and config.stride % 2 == 0
    weight = unet.conv_codec.weight
    return CpuUnet(unet) if fits and weight.device.type == "cpu" and weight.dtype == torch.float32 else unet


class CpuUnet:
    """CPU form of a Unet, with the same call signature."""

    def __init__(self, unet: Unet):
        self._unet = unet
        self._encoders = [_Encoder(encoder) for encoder in unet.encoders]
        self._decoders = [_Decoder(decoder) for decoder in unet.decoders]

    def __call__(self, x: Tensor, step: int, condition: Tensor, hooks: RunHooks = NO_HOOKS) -> Tensor:
        length, skips = x.shape[-1], []
        z = x.transpose(1, 2).contiguous()
        for level, encoder in enumerate(self._encoders):
            z = encoder(z, self._unet.step_shift(level, step), hooks)
            skips.append(z)
        inner = self._unet.bottleneck(z.transpose(1, 2), condition, hooks)
        z = skips.pop()
        if inner is not None:
            z += inner.transpose(1, 2)
        for decoder in self._decoders:
            skip = skips.pop() if skips else x.new_zeros(x.shape[0], length, 1)
            decoder(z, skip, hooks)
            z = skip
        return z.transpose(1, 2)


def _measured(norm: Norm, x: Tensor, hooks: RunHooks) -> tuple[Tensor, Tensor]:
    """Factor and offset [B, 1, C] of the norm of x [B, T, C]."""
    x = hooks.counted(x, 1)
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
    if hooks.moments is not None:
        mean, variance = hooks.moments(mean, variance)
    hooks.tick()
    factor, offset = norm.affine_of(mean, variance)
    return factor.float()[:, None], offset.float()[:, None]


def _padded(x: Tensor, begin: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros [B, end - begin, C] for the frames begin..end-1; their part inside x [B, T, C]; that part of x."""
    low, high = max(begin, 0), min(end, x.shape[1])
    buffer = x.new_zeros(x.shape[0], end - begin, x.shape[2])
    return buffer, buffer[:, low - begin : high - begin], x[:, low:high]


def _activate(x: Tensor, factor: Tensor, offset: Tensor, out: Tensor) -> None:
    """relu(x * factor + offset) -> out."""
    torch.addcmul(offset, x, factor, out=out).relu_()


class _Block:
    """Norm, ReLU and a convolution of 3 taps that keeps the length."""

    def __init__(self, norm: Norm, conv: nn.Conv1d):
        assert conv.bias is not None  # ResBlock's have one
        self._norm, self._bias = norm, conv.bias
        self._taps = Taps3(conv.weight, conv.dilation[0])

    def __call__(self, x: Tensor, out: Tensor, add: bool, hooks: RunHooks) -> None:
        """Write the result for x [B, T, C] to out [B, T, C], or add it there if `add`."""
        taps, n_frames = self._taps, x.shape[1]
        factor, offset = _measured(self._norm, x, hooks)
        for first, last in blocks(n_frames, taps, x.shape[0]):
            n = -(-(last - first) // taps.tile) * taps.tile
            buffer, target, source = _padded(x, first - taps.halo // 2, first + n + taps.halo // 2)
            _activate(source, factor, offset, target)
            result = taps(buffer)[:, : last - first]
            if add:
                out[:, first:last] += result.add_(self._bias)
            else:
                torch.add(result, self._bias, out=out[:, first:last])
            hooks.tick()


class _ResBlock:
    def __init__(self, block: ResBlock):
        self._first, self._second = _Block(block.norm1, block.conv1), _Block(block.norm2, block.conv2)

    def __call__(self, x: Tensor, hooks: RunHooks) -> None:
        """Update x [B, T, C] in place."""
        hidden = torch.empty_like(x)
        self._first(x, hidden, False, hooks)
        self._second(hidden, x, True, hooks)


class _Encoder:
    def __init__(self, encoder: Encoder):
        weight, stride = encoder.conv.weight, encoder.conv.stride[0]
        # Frames of `stride` samples side by side: the strided convolution of 2 * stride taps has 2 taps of these.
        first, second = (part.permute(0, 2, 1).flatten(1, 2).t() for part in weight.split(stride, dim=2))
        self._taps, self._stride, self._margin = Taps2(first, second), stride, int(encoder.conv.padding[0])
        self._norm = encoder.norm
        self._res_blocks = [_ResBlock(block) for block in encoder.res_blocks]

    def __call__(self, x: Tensor, shift: Tensor | None, hooks: RunHooks) -> Tensor:
        """x [B, T, C] -> [B, ceil(T / stride), C']."""
        taps, stride, n_frames = self._taps, self._stride, x.shape[1]
        n_out = -(-n_frames // stride)
        out = x.new_empty(x.shape[0], n_out, taps.n_out)
        for first, last in blocks(n_out, taps, x.shape[0]):
            n = -(-(last - first) // taps.tile) * taps.tile
            begin = first * stride - self._margin
            buffer, target, source = _padded(x, begin, begin + (n + 1) * stride)
            target.copy_(source)
            out[:, first:last] = taps(buffer.view(x.shape[0], n + 1, -1))[:, : last - first]
            hooks.tick()
        _activate(out, *_measured(self._norm, out, hooks), out=out)
        hooks.tick()
        for block in self._res_blocks:
            block(out, hooks)
        if shift is not None:
            out += shift
        return out


class _Decoder:
    def __init__(self, decoder: Decoder):
        weight, stride = decoder.convtr.weight, decoder.convtr.stride[0]
        # Each frame of `stride` outputs gets the first half of its own input's taps, and the second half of the last's.
        own, last = (part.permute(0, 2, 1).flatten(1, 2) for part in weight.split(stride, dim=2))
        self._taps, self._stride, self._margin = Taps2(last, own), stride, int(decoder.convtr.padding[0])
        self._norm = decoder.norm
        self._res_blocks = [_ResBlock(block) for block in decoder.res_blocks]

    def __call__(self, x: Tensor, out: Tensor, hooks: RunHooks) -> None:
        """Add the result for x [B, T, C] to out [B, T', C'], T' <= T * stride. Overwrites x."""
        for block in self._res_blocks:
            block(x, hooks)
        taps, stride, n_frames = self._taps, self._stride, x.shape[1]
        factor, offset = _measured(self._norm, x, hooks)
        for first, last in blocks(n_frames + 1, taps, x.shape[0]):
            n = -(-(last - first) // taps.tile) * taps.tile
            buffer, target, source = _padded(x, first - 1, first + n)
            _activate(source, factor, offset, target)
            result = taps(buffer).view(x.shape[0], n * stride, -1)
            begin = first * stride - self._margin
            low, high = max(begin, 0), min(begin + n * stride, out.shape[1], n_frames * stride)
            if low < high:
                out[:, low:high] += result[:, low - begin : high - begin]
            hooks.tick()
