"""Distances between a signal and its reconstruction: log-mel spectra at several resolutions, and SI-SDR.

Sources: EnCodec (arXiv:2210.13438, section 3.4), Descript's audio codec (arXiv:2306.06546) for the resolutions;
SI-SDR: J. Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019.
"""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

RESOLUTIONS = ((256, 20), (512, 40), (1024, 80), (2048, 120))  # window in samples, mel bands
_LONG = 2048  # samples, of mean spectra
_FLOOR = 1e-4  # magnitudes below this count as silence


def mel_loss(ours: Tensor, theirs: Tensor, rate_hz: int) -> Tensor:
    """Mean absolute difference of compressed mel magnitudes, magnitude^0.3; [B, L] twice -> scalar. For training.

    Loudness as heard, roughly, where logarithms would make the faintest noise in a rest outweigh the music.
    """
    total = ours.new_zeros(())
    for window, n_mels in RESOLUTIONS:
        own, wanted = (mel(x, window, n_mels, rate_hz).pow(0.3) for x in (ours, theirs))
        total = total + F.l1_loss(own, wanted)
    return total / len(RESOLUTIONS)


def mel_distance(ours: Tensor, theirs: Tensor, rate_hz: int) -> Tensor:
    """Mean absolute difference of log10 mel magnitudes over all resolutions; [B, L] twice -> scalar.

    1 = a factor of ten, 20 dB, in every band.
    """
    total = ours.new_zeros(())
    for window, n_mels in RESOLUTIONS:
        own, wanted = (log_mel(x, window, n_mels, rate_hz) for x in (ours, theirs))
        total = total + F.l1_loss(own, wanted)
    return total / len(RESOLUTIONS)


def si_sdr_db(ours: Tensor, theirs: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio of reconstructions `ours` [B, L] of `theirs`: dB, [B]."""
    ours, theirs = (x - x.mean(dim=-1, keepdim=True) for x in (ours, theirs))
    scale = (ours * theirs).sum(-1, keepdim=True) / theirs.pow(2).sum(-1, keepdim=True).clamp(min=1e-8)
    target = scale * theirs
    return 10 * torch.log10(target.pow(2).sum(-1).clamp(min=1e-8) / (ours - target).pow(2).sum(-1).clamp(min=1e-8))


def lost_above_db(ours: Tensor, theirs: Tensor, rate_hz: int, hz: float = 500.0) -> Tensor:
    """How much less power reconstructions `ours` [B, L] of `theirs` have above a frequency: dB, [B]; below 0: more."""
    powers = [_spectrum(x)[:, round(hz / rate_hz * _LONG) :].sum(dim=1).clamp(min=1e-12) for x in (ours, theirs)]
    return 10 * (powers[1] / powers[0]).log10()


def bandwidth_hz(x: Tensor, rate_hz: int, down_db: float = 20.0) -> Tensor:
    """[B, L] -> [B] the highest frequency whose mean power is no further than `down_db` below that of the strongest, Hz."""
    power = _spectrum(x)
    strong = power >= power.amax(dim=1, keepdim=True) * 10 ** (-down_db / 10)
    return strong.mul(torch.arange(power.shape[1], device=x.device)).amax(dim=1) * rate_hz / _LONG


def _spectrum(x: Tensor) -> Tensor:
    """[B, L] -> [B, bins] mean power."""
    window = torch.hann_window(_LONG, device=x.device)
    return torch.stft(x, _LONG, _LONG // 4, window=window, return_complex=True).abs().pow(2).mean(dim=-1)


def log_mel(x: Tensor, window: int, n_mels: int, rate_hz: int) -> Tensor:
    """Log10 mel magnitudes [B, n_mels, F] of [B, L]; hops of a quarter window."""
    return torch.log10(mel(x, window, n_mels, rate_hz))


def mel(x: Tensor, window: int, n_mels: int, rate_hz: int) -> Tensor:
    """Mel magnitudes [B, n_mels, F] of [B, L], not below the floor; a sine of amplitude 1 is about 1 in its bin."""
    shape = torch.hann_window(window, device=x.device)
    spectrum = torch.stft(x, window, window // 4, window=shape, return_complex=True)
    power = torch.view_as_real(spectrum).pow(2).sum(-1) * (2 / window) ** 2
    magnitude = (power + _FLOOR**2).sqrt()
    return mel_bands(rate_hz, window, n_mels).to(x.device) @ magnitude


@functools.lru_cache(maxsize=16)
def mel_bands(rate_hz: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangles [n_mels, bins] evenly spaced in mel (O'Shaughnessy's formula), each with a sum of 1."""
    top = 2595 * torch.log10(torch.tensor(1 + rate_hz / 2 / 700, dtype=torch.float64))
    edges = 700 * (10 ** (torch.linspace(0, float(top), n_mels + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate_hz / n_fft
    width = rate_hz / n_fft  # a triangle is never narrower than a bin, or it could miss them all
    left = (edges[1:-1] - edges[:-2]).clamp(min=width)[:, None]
    right = (edges[2:] - edges[1:-1]).clamp(min=width)[:, None]
    offset = bins - edges[1:-1, None]
    bands = torch.where(offset < 0, 1 + offset / left, 1 - offset / right).clamp(min=0)
    return (bands / bands.sum(dim=1, keepdim=True).clamp(min=1e-9)).float()
