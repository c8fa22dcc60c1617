"""Frequency bands as julius splits them, filtered in blocks: the bands of a full signal are never in memory together.

Band 0 is the signal through the first low-pass filter, band i the difference between the filters i and i - 1, the
last one the residual. A weighted sum of bands is thus one filter.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dependencies import require

_FFT_SIZE = 2**15  # samples of an FFT block, at least


def low_pass_filters(n_bands: int, rate_hz: int) -> Tensor:
    """[n_bands - 1, taps]: julius' windowed sincs at the borders of bands of one width on the mel scale."""
    if n_bands == 1:
        return torch.zeros(0, 1)
    julius = require("julius", "Splitting audio into frequency bands")
    return julius.SplitBands(rate_hz, n_bands=n_bands).lowpass.filters[:, 0]


def weighted(filters: Tensor, gains: Tensor) -> Tensor:
    """The filter [..., taps] that is the sum of all bands at `gains` [..., n_bands]."""
    taps = (gains[..., :-1] - gains[..., 1:]) @ filters.to(gains)
    taps[..., taps.shape[-1] // 2] += gains[..., -1]
    return taps


def apply_filter(x: Tensor, taps: Tensor, tick: Callable[[], None] = lambda: None) -> Tensor:
    """Filter x [B, L] with taps [taps] or [B, taps], the edges continued: [B, L]."""
    out = torch.empty_like(x)
    for first, last, block in _filtered(x, taps.unsqueeze(-2)):
        out[:, first:last] = block[:, 0]
        tick()
    return out


def band_deviations(x: Tensor, filters: Tensor, tick: Callable[[], None] = lambda: None) -> Tensor:
    """Standard deviation of each band of x [B, L] over its full length: [B, n_bands] float64, unbiased."""
    total, squares = (torch.zeros(len(x), len(filters) + 1, dtype=torch.float64, device=x.device) for _ in range(2))
    for first, last, lows in _filtered(x, filters):
        edges = F.pad(lows, (0, 0, 1, 0))
        edges = torch.cat([edges, x[:, None, first:last]], dim=1)
        bands = edges.diff(dim=1)
        total += bands.sum(-1, dtype=torch.float64)
        squares += bands.square_().sum(-1, dtype=torch.float64)
        tick()
    length = x.shape[-1]
    variance = (squares - total.square() / length) / max(length - 1, 1)
    return variance.clamp_(min=0).sqrt_()


def _filtered(x: Tensor, taps: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """(first, last, x through each filter [B, n, last - first]) for x [B, L], taps [n, taps] or [B, n, taps]."""
    if taps.shape[-2] == 0:
        yield 0, x.shape[-1], x.new_zeros(len(x), 0, x.shape[-1])
        return
    half, length = taps.shape[-1] // 2, x.shape[-1]
    size = max(_FFT_SIZE, 2 ** (4 * taps.shape[-1]).bit_length())
    hop = size - 2 * half
    spectrum = torch.fft.rfft(taps.to(x), size).conj_physical_()  # conj: a correlation, as torch's convolutions are
    for first in range(0, length, hop):
        last = min(first + hop, length)
        begin, end = max(first - half, 0), min(last + half, length)
        block = F.pad(x[:, None, begin:end], (half - first + begin, half - end + last), mode="replicate")
        yield first, last, torch.fft.irfft(torch.fft.rfft(block, size) * spectrum, size)[..., : last - first]
