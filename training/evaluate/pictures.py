"""Pictures of what was made: spectrogram, chroma beside the melody's, onsets against the beats of the jangdan."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...musicgen.audio import Audio
from ...musicgen.audio.spectrogram import WIDTH, spectrogram_picture
from ...musicgen.conditioning.chroma import chroma
from ...musicgen.config import MelodyConfig
from ...musicgen.dependencies import require
from ..data.jangdan import JANGDAN
from .listening import FRAME_HZ, onset_strength, tempo_bpm
from .measure import Example

_NOTE_PIXELS, _ONSET_PIXELS, _GAP = 8, 96, 6
_NOTE, _MELODY, _BACKGROUND = (0.96, 0.73, 0.29), (0.36, 0.70, 0.90), (0.07, 0.08, 0.11)
_ONSET, _BEAT, _CYCLE = (0.85, 0.85, 0.85), (0.35, 0.35, 0.45), (0.90, 0.35, 0.30)


def draw(example: Example, rate_hz: int, path: Path) -> None:
    """Write a PNG: the spectrogram, below it the chroma (the melody's above, what was made below), below it the onsets
    with a line at each beat that the critic found, red where a cycle begins."""
    rows = [spectrogram_picture(Audio(example.samples[None, None], rate_hz))[0]]
    if example.melody is not None:
        rows.append(_notes(example.melody, rate_hz, _MELODY))
    if example.label.instrument != "none":
        rows.append(_notes(example.samples, rate_hz, _NOTE))
    if example.label.jangdan:
        rows.append(_onsets(example.samples, rate_hz, example.label.jangdan))
    gap = torch.ones(_GAP, WIDTH, 3)
    picture = torch.cat([part for row in rows for part in (row, gap)][:-1])
    image = require("PIL.Image", "Drawing pictures", "Pillow")
    image.fromarray((picture.clamp(0, 1) * 255).byte().numpy()).save(path)


def _notes(samples: Tensor, rate_hz: int, colour: tuple[float, float, float]) -> Tensor:
    """One-hot chroma as a piano roll of pitch classes, C at the bottom: [12 * _NOTE_PIXELS, WIDTH, 3]."""
    config = MelodyConfig()
    n_frames = 1 + len(samples) // (2**config.radix2_exp // 4)
    frames = chroma(samples, rate_hz, config, n_frames)
    shown = F.interpolate(frames.t().flip(0)[None, None], (12 * _NOTE_PIXELS, WIDTH), mode="nearest")[0, 0]
    return torch.lerp(torch.tensor(_BACKGROUND), torch.tensor(colour), shown[..., None])


def _onsets(samples: Tensor, rate_hz: int, jangdan: str) -> Tensor:
    """Onset strength as bars, with the beats at the tempo and phase that fit it best: [_ONSET_PIXELS, WIDTH, 3]."""
    strength = onset_strength(samples, rate_hz)
    bpm = tempo_bpm(samples, rate_hz, jangdan)
    heights = F.interpolate((strength / strength.max().clamp(min=1e-6))[None, None], WIDTH)[0, 0]
    up = torch.arange(_ONSET_PIXELS).flip(0)[:, None] / _ONSET_PIXELS
    picture = torch.lerp(torch.tensor(_BACKGROUND), torch.tensor(_ONSET), (up < heights).float()[..., None])
    beat, cycle = 60 / bpm * FRAME_HZ, JANGDAN[jangdan].cycle_s(bpm) * FRAME_HZ
    first = _phase(strength, beat)
    downbeat = first + beat * round((_phase(strength, cycle) - first) / beat)
    scale, time = WIDTH / len(strength), first
    while time < len(strength):
        begins = abs((time - downbeat + 0.5 * beat) % cycle - 0.5 * beat) < 0.1 * beat
        picture[:, min(WIDTH - 1, int(time * scale))] = torch.tensor(_CYCLE if begins else _BEAT)
        time += beat
    return picture


def _phase(strength: Tensor, period: float) -> float:
    """Where, within a period in frames, a comb of that period meets the strongest onsets."""
    smooth = F.max_pool1d(strength[None, None], 5, 1, 2)[0, 0]
    starts = torch.arange(0, period, 1.0)
    teeth = torch.arange(int(len(strength) / period) + 1)
    index = (starts[:, None] + period * teeth).long()
    inside = index < len(strength)
    score = (smooth[index.clamp(max=len(strength) - 1)] * inside).sum(1) / inside.sum(1).clamp(min=1)
    return float(starts[int(score.argmax())])
