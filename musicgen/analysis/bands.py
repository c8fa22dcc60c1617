"""Levels of sound in time and frequency: what tempo, repetition and seams are measured on."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

N_BANDS = 32
FLOOR_DB = -90.0
LOWEST_HZ = 60.0


def band_levels_db(samples: Tensor, rate_hz: int, hop: int, window: int) -> Tensor:
    """Levels [T, N_BANDS] of mono samples [L] in dB of full scale, T = 1 + L // hop; never below FLOOR_DB.

    Bands are equally wide in octaves, from LOWEST_HZ to half the sample rate. Frame t is centred on sample t * hop.
    """
    taper = torch.hann_window(window)
    padded = F.pad(samples.float(), (window // 2, window // 2))
    spectrum = torch.stft(padded, window, hop, window=taper, center=False, return_complex=True)
    power = (spectrum * (2 / taper.sum())).abs().square()  # [bins, T]; a sine of amplitude 1 has power 1
    return 10 * (power.T @ _bands(rate_hz, window)).clamp(min=10 ** (FLOOR_DB / 10)).log10()


def rms_db(samples: Tensor) -> Tensor:
    """Level of the last axis in dB of full scale (a square wave of amplitude 1 is 0 dB), at least FLOOR_DB."""
    return 10 * samples.float().square().mean(dim=-1).clamp(min=10 ** (FLOOR_DB / 10)).log10()


def _bands(rate_hz: int, window: int) -> Tensor:
    """[FFT bins, N_BANDS] of 0 and 1: a bin belongs to one band; a band narrower than a bin takes the nearest."""
    frequency_hz = torch.arange(window // 2 + 1) * rate_hz / window
    edges_hz = torch.logspace(math.log10(LOWEST_HZ), math.log10(rate_hz / 2), N_BANDS + 1)
    centres_hz = (edges_hz[1:] * edges_hz[:-1]).sqrt()
    bands = ((frequency_hz[:, None] >= edges_hz[:-1]) & (frequency_hz[:, None] < edges_hz[1:])).float()
    nearest = (centres_hz * window / rate_hz).round().long()
    empty = bands.sum(dim=0) == 0
    bands[nearest[empty], empty.nonzero()[:, 0]] = 1
    return bands
