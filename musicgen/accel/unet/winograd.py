"""Winograd convolutions along time, as matrix products. For the CPU, in float32.

Signals are [B, T, C]: channels are contiguous, the layout of a matrix product. A tile of outputs of a short filter
needs fewer products than outputs x taps (S. Winograd, 1980): F(4, 3) takes 6 instead of 12, F(3, 2) 4 instead of 6.
Weights are transformed once. Inputs and outputs are transformed by additions, which pays off for many channels.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

MIN_CHANNELS = 256  # below, the additions cost more than the products they save
_OUTPUTS = 1024  # output frames of a block, at least: shorter matrix products are slow, unless the weights are large
_NUMBERS = 2**18  # values of one block of signal, to stay in the L2 cache
_PRODUCTS = 1.6e10  # multiplications of one block: Cancel is checked every half second on two slow cores
_ROWS = 64  # rows of a weight matrix transformed at a time, to stay in the cache


def blocks(n_outputs: int, taps: "Taps2 | Taps3", n_rows: int) -> Iterator[tuple[int, int]]:
    """(first, last) of blocks of outputs; each block but the last is a multiple of the tile."""
    size = min(max(_OUTPUTS, _NUMBERS // taps.n_out), _PRODUCTS * taps.tile / taps.products)
    size = max(int(size) // (n_rows * taps.tile) * taps.tile, taps.tile)
    for first in range(0, n_outputs, size):
        yield first, min(first + size, n_outputs)


def _transformed(taps: Sequence[Tensor], transform: Callable[..., Sequence[Tensor]], n: int) -> Tensor:
    """transform(*taps) of matrices [M, N], in blocks of rows: [n, M, N]."""
    out = torch.empty(n, *taps[0].shape)
    for first in range(0, len(taps[0]), _ROWS):
        rows = [tap[first : first + _ROWS].contiguous() for tap in taps]
        for row, part in zip(out[:, first : first + _ROWS], transform(*rows)):
            row.copy_(part)
    return out


def _for_3_taps(w0: Tensor, w1: Tensor, w2: Tensor) -> Sequence[Tensor]:
    even, odd = (w0 + w2) / 6, w1 / 6
    wide, steep = w0 / 24 + w2 / 6, w1 / 12
    return w0 / 4, -even - odd, odd - even, wide + steep, wide - steep, w2


def _for_2_taps(w0: Tensor, w1: Tensor) -> Sequence[Tensor]:
    return w0, (w0 + w1) / 2, (w0 - w1) / 2, w1


class Taps3:
    """A filter of 3 taps: y[t] = sum_k x[t + k * dilation] W_k."""

    def __init__(self, weight: Tensor, dilation: int):
        """weight [C', C, 3]."""
        self.n_out, self.n_in, _ = weight.shape
        self.dilation, self.halo = dilation, 2 * dilation
        self.fast = dilation == 1 and min(self.n_in, self.n_out) >= MIN_CHANNELS
        self.tile = 4 if self.fast else 1
        taps = weight.unbind(2)
        matrices = _transformed(taps, _for_3_taps, 6) if self.fast else torch.stack(taps)
        self._weights = matrices.transpose(1, 2)  # [6 or 3, C, C'], a view: bmm takes transposed operands

    @property
    def products(self) -> float:
        """Multiplications of one tile."""
        return len(self._weights) * self.n_in * self.n_out

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, n + halo, C], contiguous, n a multiple of `tile` -> [B, n, C']."""
        n = x.shape[1] - self.halo
        if not self.fast:
            return _direct(x, self._weights, self.dilation, n)
        d = [x[:, i : i + n - 3 : 4] for i in range(6)]
        v = x.new_empty(6, x.shape[0], n // 4, self.n_in)
        torch.add(d[4], d[2], alpha=-5, out=v[0]).add_(d[0], alpha=4)
        torch.add(d[5], d[3], alpha=-5, out=v[5]).add_(d[1], alpha=4)
        a, b = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
        torch.add(a, b, out=v[1])
        torch.sub(a, b, out=v[2])
        torch.sub(d[4], d[2], out=a)
        torch.sub(d[3], d[1], out=b)
        torch.add(a, b, alpha=2, out=v[3])
        torch.sub(a, b, alpha=2, out=v[4])
        m = torch.bmm(v.flatten(1, 2), self._weights).unflatten(1, v.shape[1:3])
        out = x.new_empty(x.shape[0], n // 4, 4, self.n_out)
        a, b = m[1] + m[2], m[1].sub_(m[2])
        c, d = m[3] + m[4], m[3].sub_(m[4])
        torch.add(m[0], a, out=out[:, :, 0]).add_(c)
        torch.add(b, d, alpha=2, out=out[:, :, 1])
        torch.add(a, c, alpha=4, out=out[:, :, 2])
        torch.add(m[5], b, out=out[:, :, 3]).add_(d, alpha=8)
        return out.flatten(1, 2)


class Taps2:
    """A filter of 2 taps: y[t] = x[t] W_0 + x[t + 1] W_1."""

    halo = 1

    def __init__(self, first: Tensor, second: Tensor):
        """The two matrices [C, C']."""
        self.n_in, self.n_out = first.shape
        self.fast = min(first.shape) >= MIN_CHANNELS
        self.tile = 3 if self.fast else 1
        transposed = first.stride(0) < first.stride(1)
        taps = (first.t(), second.t()) if transposed else (first, second)
        matrices = _transformed(taps, _for_2_taps, 4) if self.fast else torch.stack(taps)
        self._weights = matrices.transpose(1, 2) if transposed else matrices

    @property
    def products(self) -> float:
        """Multiplications of one tile."""
        return len(self._weights) * self.n_in * self.n_out

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, n + 1, C], contiguous, n a multiple of `tile` -> [B, n, C']."""
        n = x.shape[1] - 1
        if not self.fast:
            return _direct(x, self._weights, 1, n)
        d = [x[:, i : i + n - 2 : 3] for i in range(4)]
        v = x.new_empty(4, x.shape[0], n // 3, self.n_in)
        torch.sub(d[0], d[2], out=v[0])
        torch.add(d[1], d[2], out=v[1])
        torch.sub(d[2], d[1], out=v[2])
        torch.sub(d[1], d[3], out=v[3])
        m = torch.bmm(v.flatten(1, 2), self._weights).unflatten(1, v.shape[1:3])
        out = x.new_empty(x.shape[0], n // 3, 3, self.n_out)
        torch.add(m[1], m[2], out=out[:, :, 2]).sub_(m[3])
        torch.sub(m[1], m[2], out=out[:, :, 1])
        torch.add(m[0], m[1], out=out[:, :, 0]).add_(m[2])
        return out.flatten(1, 2)


def _direct(x: Tensor, weights: Tensor, dilation: int, n: int) -> Tensor:
    """Direct convolution, one matrix product a tap: x [B, n + halo, C], weights [taps, C, C']."""
    rows = []
    for row in x:
        out = row[:n] @ weights[0]
        for tap in range(1, len(weights)):
            out.addmm_(row[tap * dilation : tap * dilation + n], weights[tap])
        rows.append(out)
    return rows[0][None] if len(rows) == 1 else torch.stack(rows)
