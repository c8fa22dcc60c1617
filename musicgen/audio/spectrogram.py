"""Spectrogram pictures: mel frequency upwards, time to the right, level as brightness."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .waveform import Audio

WIDTH, HEIGHT = 1024, 256  # pixels
FLOOR_DB = -90.0  # black; white is a full-scale sine
_FFT_SIZE = 2048
_COLUMNS_AT_ONCE = 128
# From black through purple and orange to pale yellow, evenly brighter.
_COLOURS = ((0.0, 0.0, 0.02), (0.23, 0.06, 0.44), (0.55, 0.16, 0.51), (0.87, 0.29, 0.41), (0.99, 0.62, 0.43),
            (0.99, 0.99, 0.75))  # fmt: skip


def spectrogram_picture(audio: Audio) -> Tensor:
    """Pictures [B, 256, 1024, 3] float32 in 0..1 on the CPU, one a clip, of the mean power of its channels.

    Levels are absolute, so that two pictures can be compared.
    """
    mels = _mel_filters(audio.rate_hz)
    window = torch.hann_window(_FFT_SIZE)
    centres = torch.linspace(0, audio.n_samples - 1, WIDTH).round().long()
    padded = F.pad(audio.samples.cpu(), (_FFT_SIZE // 2, _FFT_SIZE // 2))
    columns = []
    for block in centres.split(_COLUMNS_AT_ONCE):
        frames = padded[:, :, block[:, None] + torch.arange(_FFT_SIZE)]  # [B, C, columns, samples]
        power = torch.fft.rfft(frames * (window / window.sum() * 2)).abs().square().mean(dim=1)
        columns.append(power @ mels)
    level_db = 10 * torch.cat(columns, dim=1).clamp(min=1e-12).log10()
    shade = (1 - level_db / FLOOR_DB).clamp(0, 1).transpose(1, 2).flip(1)  # [B, height, width]
    colours = torch.tensor(_COLOURS)
    position = shade * (len(colours) - 1)
    below = position.floor().long().clamp(max=len(colours) - 2)
    return torch.lerp(colours[below], colours[below + 1], (position - below)[..., None])


def _mel_filters(rate_hz: int) -> Tensor:
    """[FFT bins, HEIGHT]: triangles of one width on the mel scale, at least as wide as two bins, each of sum 1."""
    top = 2595 * math.log10(1 + rate_hz / 2 / 700)
    edges_hz = 700 * (10 ** (torch.linspace(0, top, HEIGHT + 2) / 2595) - 1)
    bins_hz = torch.linspace(0, rate_hz / 2, _FFT_SIZE // 2 + 1)
    least_hz = rate_hz / _FFT_SIZE
    centre = edges_hz[1:-1]
    rise, fall = (
        (edges_hz[1:-1] - edges_hz[:-2]).clamp(min=least_hz),
        (edges_hz[2:] - edges_hz[1:-1]).clamp(min=least_hz),
    )
    offset = bins_hz[:, None] - centre
    filters = torch.minimum(1 + offset / rise, 1 - offset / fall).clamp(min=0)
    return filters / filters.sum(0, keepdim=True)
