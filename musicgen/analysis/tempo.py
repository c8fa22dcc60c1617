"""Tempo measured in sound."""

from torch import Tensor

from ..audio import Audio
from ..tempo import pulse_of, smoothed
from .bands import band_levels_db

_HOP_S = 0.01


def measure_bpm(audio: Audio, near: float | None = None) -> float | None:
    """The tempo of one clip [1, C, L] in beats a minute; None where no pulse is heard, or for less than three beats.

    near: as in `pulse_of`.
    """
    hop = round(_HOP_S * audio.rate_hz)
    onsets = _onsets(audio.samples[0].mean(dim=0), audio.rate_hz, hop)
    pulse = pulse_of(onsets, hop / audio.rate_hz, near)
    return None if pulse is None else pulse[0]


def _onsets(mono: Tensor, rate_hz: int, hop: int) -> Tensor:
    """How much louder each frame is than the one two before, over all bands: [T], mean 0."""
    levels = band_levels_db(mono, rate_hz, hop, 4 * hop)
    levels = levels.clamp(min=float(levels.max()) - 60)
    rise = (levels[2:] - levels[:-2]).clamp(min=0).mean(dim=1)
    return smoothed(rise)
