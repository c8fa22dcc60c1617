"""What the judge of general music sees of a clip: of each crop its timbre, of the whole clip also its groove."""

import functools
import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...codec.spectral import log_mel
from ..listening import features_of

CLIP_S = 6.0  # of what the judge hears; of longer clips the beginning
_CROP_S, _N_CROPS, _QUIET_DB = 2.0, 4, 30.0
_WINDOW, _N_MELS, _FLOOR = 2048, 64, 3.0  # the floor in log10 below the peak
_FRAME_HZ_OF = 4 / _WINDOW  # frames a sample
_MODULATION_BANDS, _ONSET_BANDS, _ONSETS = 16, 8, 6
_BEFORE, _AFTER = 2, 14  # frames of an onset
_FFT, _LOWEST_HZ, _PER_SEMITONE, _SEMITONES = 8192, 55.0, 3, 84
_LAGS = 36 * _PER_SEMITONE + 2  # of the spectrum against itself: three octaves, which holds eight harmonics
_RATES_HZ = (0.4, 0.9, 1.8, 3.5, 5.0, 7.0, 10.0, 16.0, 32.0)  # edges of the modulation spectrum


def timbres(samples: Tensor, rate_hz: int) -> Tensor:
    """[L] -> [crops, n_features] of the crops that sound; of the loudest one at least."""
    length = min(round(_CROP_S * rate_hz), len(samples))
    starts = torch.linspace(0, len(samples) - length, _N_CROPS).long().tolist()
    crops = torch.stack([samples[start : start + length] for start in starts])
    level_db = 10 * crops.pow(2).mean(dim=1).clamp(min=1e-12).log10()
    return torch.stack([timbre(crop, rate_hz) for crop in crops[level_db >= level_db.max() - _QUIET_DB]])


def whole(samples: Tensor, rate_hz: int, crops: Tensor) -> Tensor:
    """[L] and its `timbres` -> what tells genre and players: how the onsets repeat, and the mean and range of the timbres."""
    return torch.cat([features_of(samples, rate_hz), crops.mean(0), crops.amax(0) - crops.amin(0)])


def timbre(samples: Tensor, rate_hz: int) -> Tensor:
    """[L] -> levels of the mel bands, how they change, how they begin, and how the partials lie."""
    samples = samples / samples.abs().max().clamp(min=1e-6)
    mels = log_mel(samples[None], _WINDOW, _N_MELS, rate_hz)[0]
    mels = mels.clamp(min=float(mels.max()) - _FLOOR)
    mels = mels - mels.mean()
    quantiles = torch.quantile(mels, torch.tensor([0.1, 0.5, 0.9]), dim=1)
    change = mels[:, 2:] - mels[:, :-2]
    parts = [
        quantiles.flatten(), change.clamp(min=0).mean(1), (-change).clamp(min=0).mean(1), mels.std(1),
        _modulation(mels, rate_hz).flatten(), _onset(mels).flatten(), *_partials(samples, rate_hz),
    ]  # fmt: skip
    return torch.cat(parts)


def equalised(samples: Tensor, generator: torch.Generator, spread_db: float = 4.0) -> Tensor:
    """[L] through a smooth curve of its own: as of another room, microphone or soundfont."""
    spectrum = torch.fft.rfft(samples)
    points = spread_db * torch.randn(1, 1, 8, generator=generator)
    octaves = torch.linspace(0, 1, len(spectrum)).mul(1023).add(1).log2() / 10
    curve = F.interpolate(points, 256, mode="linear", align_corners=True)[0, 0]
    gain_db = curve[(255 * octaves).long().clamp(max=255)]
    return torch.fft.irfft(spectrum * 10 ** (gain_db / 20), len(samples))


def _modulation(mels: Tensor, rate_hz: int) -> Tensor:
    """Log energy of each group of bands at the rates at which its level goes up and down: [bands, rates]."""
    groups = mels.unflatten(0, (_MODULATION_BANDS, -1)).mean(dim=1)
    groups = groups - groups.mean(dim=1, keepdim=True)
    window = torch.hann_window(groups.shape[1])
    power = torch.fft.rfft(groups * window).abs().pow(2)
    frequency = torch.fft.rfftfreq(groups.shape[1], 1 / (rate_hz * _FRAME_HZ_OF))
    inside = [(frequency >= low) & (frequency < high) for low, high in itertools.pairwise(_RATES_HZ)]
    energies = torch.stack([(power * mask).sum(1) / mask.sum().clamp(min=1) for mask in inside], dim=1)
    return (energies + 1e-3).log10()


def _onset(mels: Tensor) -> Tensor:
    """How groups of bands rise and fall around the strongest onsets, each from its level at the onset: [bands, frames]."""
    groups = mels.unflatten(0, (_ONSET_BANDS, -1)).mean(dim=1)
    rise = F.pad((groups[:, 2:] - groups[:, :-2]).clamp(min=0).mean(0), (2, 0))
    peak = F.max_pool1d(rise[None, None], 9, 1, 4)[0, 0]
    rise = torch.where(rise == peak, rise, torch.zeros(()))
    rise[:_BEFORE], rise[len(rise) - _AFTER :] = 0, 0
    at = rise.topk(_ONSETS).indices
    around = torch.stack([groups[:, max(0, int(i) - _BEFORE) :][:, : _BEFORE + _AFTER] for i in at if rise[i] > 0] or
                         [groups[:, : _BEFORE + _AFTER]])  # fmt: skip
    return (around - around[..., _BEFORE : _BEFORE + 1]).mean(dim=0)


def _partials(samples: Tensor, rate_hz: int) -> tuple[Tensor, Tensor]:
    """The spectrum on a logarithmic axis against itself, moved on: which partials there are, whatever the pitch, [lags];
    and how far its peaks stand above what lies between them in each octave, [octaves]."""
    window = torch.hann_window(_FFT)
    magnitude = torch.stft(samples, _FFT, _FFT // 4, window=window, return_complex=True).abs()
    level = magnitude.pow(2).sum(0).sqrt()
    loud = level >= level.median()
    weights, n = _log_axis(rate_hz)
    rows = (weights @ magnitude[:, loud]).clamp(min=1e-6)  # [n, T]
    rows = rows.sqrt() / rows.sqrt().norm(dim=0, keepdim=True)
    repeated = torch.fft.irfft(torch.fft.rfft(rows, 2 * n, dim=0).abs().pow(2), dim=0)[:_LAGS].mean(dim=1)
    octave = rows[: 7 * 12 * _PER_SEMITONE].clamp(min=1e-4).log10().unflatten(0, (7, -1))
    contrast = (octave.amax(dim=1) - octave.median(dim=1).values).mean(dim=1)
    return repeated, contrast


@functools.lru_cache(maxsize=2)
def _log_axis(rate_hz: int) -> tuple[Tensor, int]:
    """Triangles [n, bins] three to a semitone, each as wide as a bin at least."""
    n = _SEMITONES * _PER_SEMITONE
    centre = _LOWEST_HZ * 2 ** (torch.arange(n, dtype=torch.float64) / (12 * _PER_SEMITONE))
    width = (centre * (2 ** (1 / (12 * _PER_SEMITONE)) - 1)).clamp(min=rate_hz / _FFT)
    bins = torch.arange(_FFT // 2 + 1, dtype=torch.float64) * rate_hz / _FFT
    weights = (1 - (bins - centre[:, None]).abs() / width[:, None]).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True).clamp(min=math.ulp(1.0))).float(), n
