"""Seams: how much a sound jumps at a place, and where two places of a piece fit together."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .bands import band_levels_db, rms_db

_HOP_S, _WINDOW_S = 0.005, 0.02  # of the measure of jumps
_RANGE_DB = 60.0  # below the loudest band, nothing is heard beside it


@dataclass(frozen=True)
class Jump:
    """The largest change of sound within a short time, and how it compares with the rest of the piece."""

    level_db: float  # change of level within 20 ms
    level_percentile: float  # share of ordinary places, in percent, that jump less; 50 = an ordinary place
    spectrum_db: float  # mean change of the levels of 32 bands within 20 ms
    spectrum_percentile: float


def jump_at(loop: Tensor, rate_hz: int, place: int, n_samples: int) -> Jump:
    """The jump of mono samples [L], which repeat without end, from `place` to `place + n_samples`.

    Ordinary places are all other stretches of that length, outside of it by as much again.
    """
    levels, spectra = _jumps(loop, rate_hz)
    n_frames = len(levels)
    frames_per_sample = n_frames / len(loop)
    reach = round(_WINDOW_S / _HOP_S / 2)
    first = round(place * frames_per_sample) - reach
    width = max(1, round(n_samples * frames_per_sample) + 2 * reach)
    ordinary = torch.arange(first + 2 * width, first + n_frames - 2 * width) % n_frames
    values = []
    for jumps in (levels, spectra):
        largest = torch.cat([jumps, jumps[:width]]).unfold(0, width, 1).amax(dim=1)  # of the stretch from t on
        here, others = largest[first % n_frames], largest[ordinary]
        below = (others < here).float().mean() + 0.5 * (others == here).float().mean() if len(others) else math.nan
        values += [float(here), 100 * float(below)]
    return Jump(*values)


def _jumps(loop: Tensor, rate_hz: int) -> tuple[Tensor, Tensor]:
    """Changes of level and of spectrum around each frame of 5 ms of samples [L] that repeat: two of [L // hop]."""
    hop, window = round(_HOP_S * rate_hz), round(_WINDOW_S * rate_hz)
    n_frames = len(loop) // hop
    padded = torch.cat([loop[-2 * window :], loop, loop[: 2 * window]])
    levels = rms_db(padded.unfold(0, window, 1)[::hop])  # of the window that starts at frame t, 2 windows early
    floor = float(levels.max()) - _RANGE_DB
    levels = levels.clamp(min=floor)
    a_window = round(window / hop)
    at = 2 * a_window + torch.arange(n_frames)
    level_jumps = (levels[at] - levels[at - a_window]).abs()
    spectra = band_levels_db(padded, rate_hz, hop, window)
    spectra = spectra.clamp(min=float(spectra.max()) - _RANGE_DB)
    half = max(1, a_window // 2)
    return level_jumps, (spectra[at + half] - spectra[at - half]).abs().mean(dim=1)


def crossfaded(samples: Tensor, start: int, length: int, n_fade: int) -> Tensor:
    """Cut samples [C, N] to a loop [C, length] from `start`; its first `n_fade` samples fade out of what follows its end.

    The power stays even, whether the two sides are alike or not: sine and cosine, divided by what their sum would gain.
    """
    loop = samples[:, start : start + length].clone()
    after, begin = samples[:, start + length : start + length + n_fade], loop[:, :n_fade]
    product = (after * begin).sum() / (after.square().sum() * begin.square().sum()).sqrt().clamp(min=1e-9)
    angle = 0.5 * math.pi * (torch.arange(n_fade) + 0.5) / max(1, n_fade)
    rising, falling = angle.sin(), angle.cos()
    gain = (1 + 2 * product.clamp(min=0) * rising * falling).rsqrt()
    loop[:, :n_fade] = (after * falling + begin * rising) * gain
    return loop


def likeness(samples: Tensor, rate_hz: int, first: int, second: int, reach: int) -> tuple[int, float]:
    """How far `second` must move, at most `reach` samples, for mono samples [N] around it to be most like those around
    `first`; and their correlation there, -1..1.
    """
    half = min(round(0.04 * rate_hz), first if first else round(0.04 * rate_hz))
    here = samples[max(0, first - half) : first + round(0.04 * rate_hz)]
    begin = second - min(half, first)
    low, high = max(0, begin - reach), min(len(samples) - len(here), begin + reach)
    region = samples[low : high + len(here)]
    products = F.conv1d(region[None, None], here[None, None])[0, 0]
    energy = F.avg_pool1d(region.square()[None, None], len(here), 1)[0, 0] * len(here)
    correlation = products / (energy * here.square().sum()).sqrt().clamp(min=1e-6)
    best = int(correlation.argmax())
    return low + best - begin, float(correlation[best])
