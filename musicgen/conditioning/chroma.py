"""Chroma: the strongest pitch class of each frame, the only input that a melody model has of a melody."""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import MelodyConfig

# Of a window: how much at its start is earlier music, and where in the piece that begins, s
Anchor = tuple[float, float]
NO_ANCHOR: Anchor = (0.0, 0.0)
_SEMITONES = 12
_A0_HZ = 27.5
_CENTER_OCTAVE, _OCTAVE_WIDTH = 5.0, 2.0


def chroma(samples: Tensor, rate_hz: int, config: MelodyConfig, n_frames: int | None = None) -> Tensor:
    """Mono samples [..., L] -> one-hot chroma [..., F, 12] float32, F = 1 + max(L, window) // hop; bin 0 is C.

    n_frames: stop after so many frames. Silence falls on bin 0. Source: audiocraft `ChromaExtractor`.
    """
    window_length = 2**config.radix2_exp
    hop = window_length // 4
    missing = window_length - samples.shape[-1]
    if missing > 0:
        samples = F.pad(samples, (missing // 2, missing - missing // 2))
    if n_frames is not None:
        samples = samples[..., : n_frames * hop + window_length]  # later samples touch later frames only
    window = torch.hann_window(window_length, device=samples.device)
    spectrum = torch.stft(
        samples.float(), window_length, hop, window=window, center=True, pad_mode="reflect", return_complex=True
    )
    power = (spectrum / window.pow(2).sum().sqrt()).abs().pow(2)
    raw = _filterbank(rate_hz, window_length, config.n_chroma).to(power.device) @ power
    # audiocraft scales frames by their peak, which no longer matters to the argmax but for frames near silence.
    scaled = raw / raw.abs().amax(dim=-2, keepdim=True).clamp(min=1e-6)
    return F.one_hot(scaled.argmax(dim=-2), config.n_chroma).float()[..., :n_frames, :]


def tiled(frames: Tensor, n_frames: int) -> Tensor:
    """Repeat a sequence [F, ...] from its start until it has `n_frames`, and cut it there."""
    return frames.repeat(math.ceil(n_frames / len(frames)), *[1] * (frames.ndim - 1))[:n_frames]


@functools.lru_cache(maxsize=4)
def _filterbank(rate_hz: int, n_fft: int, n_chroma: int) -> Tensor:
    """Weights [n_chroma, n_fft / 2 + 1] float32 of the FFT bins in each pitch class.

    Source: librosa `filters.chroma` with its defaults (tuning 0, L2 norm, octave weighting), in float64.
    """
    frequency = torch.arange(1, n_fft, dtype=torch.float64) * rate_hz / n_fft
    pitch = _SEMITONES * torch.log2(frequency / _A0_HZ)
    pitch = torch.cat([pitch[:1] - 1.5 * _SEMITONES, pitch]) * n_chroma / _SEMITONES
    width = torch.cat([pitch.diff().clamp(min=1), torch.ones(1, dtype=torch.float64)])
    half = round(n_chroma / 2)
    distance = pitch - torch.arange(n_chroma, dtype=torch.float64)[:, None]
    distance = torch.remainder(distance + half + 10 * n_chroma, n_chroma) - half
    weight = torch.exp(-0.5 * (2 * distance / width) ** 2)
    weight = weight / weight.norm(dim=0, keepdim=True)
    weight = weight * torch.exp(-0.5 * ((pitch / n_chroma - _CENTER_OCTAVE) / _OCTAVE_WIDTH) ** 2)
    weight = weight.roll(-3 * (n_chroma // _SEMITONES), dims=0)
    return weight[:, : n_fft // 2 + 1].float().contiguous()
