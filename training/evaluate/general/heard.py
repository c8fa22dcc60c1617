"""What is measured of a clip without a judge: tempo by librosa, key, silence, how it ends, and what hums and whistles sound like."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ....musicgen.dependencies import require

SILENCE_DB = -50.0  # dBFS: the mean level of what counts as silent
_HOP = 256
_FOLDS = (1.0, 2.0, 0.5, 3.0, 1 / 3)  # a beat taken for its half, double, or the third of it that compound metres have
_LAST_S, _RINGING_DB = 0.1, -30.0  # a clip that is louder than that at its end, against its loudest, is cut
_FRAME_S, _LOUD_DB, _GONE_DB = 0.02, -15.0, -55.0  # a frame that loud followed by one that soft is a cut as well
_EDGE_S, _JUMP = 0.001, 0.06  # share of the peak that a clip may have in its first and last ms


@dataclass(frozen=True)
class Tempo:
    """How far a tempo is from what was asked."""

    percent: float  # off, once octaves are taken out; inf where nothing is heard
    octave: bool  # heard as the half, the double, the third or the triple


def tempo_bpm(samples: Tensor, rate_hz: int) -> float | None:
    """[L] -> beats a minute by librosa: its estimate, made finer by a line through the beats that it tracks. None if none are heard."""
    librosa = require("librosa", "Measuring tempo")
    wave = samples.numpy()
    strength = librosa.onset.onset_strength(y=wave, sr=rate_hz, hop_length=_HOP)
    if not np.any(strength > 0):
        return None
    tempo = float(np.atleast_1d(librosa.feature.tempo(onset_envelope=strength, sr=rate_hz, hop_length=_HOP))[0])
    _, beats = librosa.beat.beat_track(
        onset_envelope=strength, sr=rate_hz, hop_length=_HOP, bpm=tempo, trim=False, units="time"
    )
    if len(beats) < 4:
        return tempo
    period_s = np.median(np.diff(beats))
    numbers = np.round((beats - beats[0]) / period_s)  # a beat that was missed leaves a gap in them
    return 60 / float(np.polyfit(numbers, beats, 1)[0])


def tempo_off(heard_bpm: float | None, asked_bpm: float) -> Tempo:
    if not heard_bpm:
        return Tempo(float("inf"), False)
    off = [abs(heard_bpm / (asked_bpm * fold) - 1) for fold in _FOLDS]
    best = int(np.argmin(off))
    return Tempo(100 * off[best], best > 0)


def tones_of(samples: Tensor, rate_hz: int) -> np.ndarray:
    """[L] -> [12] how strong each pitch class is, on average."""
    librosa = require("librosa", "Measuring keys")
    return librosa.feature.chroma_cqt(y=samples.numpy(), sr=rate_hz, hop_length=2048, fmin=65.4, n_octaves=5).mean(
        axis=1
    )


def transposed(tones: np.ndarray, first: np.ndarray) -> int:
    """By how many semitones up `first` is most like `tones`, both [12]; 0: one key, or two of the same tones."""
    return int(np.argmax([np.corrcoef(np.roll(first, step), tones)[0, 1] for step in range(12)]))


def is_silent(samples: Tensor) -> bool:
    return 10 * float(samples.pow(2).mean().clamp(min=1e-12).log10()) < SILENCE_DB


def is_cut(samples: Tensor, rate_hz: int) -> bool:
    """Whether a clip ends while it sounds, or falls silent from one moment to the next."""
    frame = round(_FRAME_S * rate_hz)
    power = samples.unfold(0, frame, frame).pow(2).mean(dim=1).clamp(min=1e-12)
    level_db = 10 * (power / power.max()).log10()
    if float(level_db[-round(_LAST_S / _FRAME_S) :].max()) > _RINGING_DB:
        return True
    return bool(((level_db[:-2] > _LOUD_DB) & (level_db[2:] < _GONE_DB)).any())


def clicks_at_its_edges(samples: Tensor, rate_hz: int) -> bool:
    """Whether it begins or ends with a jump."""
    edge = round(_EDGE_S * rate_hz)
    jump = max(float(samples[:edge].abs().mean()), float(samples[-edge:].abs().mean()))
    return jump > _JUMP * max(1e-6, float(samples.abs().max()))


def hummed(line: list[tuple[float, float, int]], duration_s: float, rate_hz: int, rng: np.random.Generator) -> Tensor:
    """A line of (start, end, pitch) as a closed mouth hums it: few partials, glides between tones, vibrato. [L]"""
    return _sung(line, duration_s, rate_hz, rng, (1.0, 0.35, 0.12, 0.05), -12, 0.09, 0.25, 0.004)


def whistled(line: list[tuple[float, float, int]], duration_s: float, rate_hz: int, rng: np.random.Generator) -> Tensor:
    """The same as whistled: one partial, an octave or two higher, with breath. [L]"""
    return _sung(line, duration_s, rate_hz, rng, (1.0, 0.02), 12, 0.04, 0.15, 0.02)


def _sung(
    line: list[tuple[float, float, int]], duration_s: float, rate_hz: int, rng: np.random.Generator,
    partials: tuple[float, ...], transposed: int, glide_s: float, vibrato: float, breath: float,
) -> Tensor:  # fmt: skip
    """vibrato: in semitones; breath: level of the noise."""
    n = round(duration_s * rate_hz)
    pitch, loud = np.full(n, np.nan), np.zeros(n)
    for start, end, tone in line:
        a, b = (round(t * rate_hz) for t in (start, end))
        if 0 <= a < n:
            pitch[a:b], loud[a : min(n, b) - round(0.02 * rate_hz)] = tone + transposed, 1.0
    known = np.flatnonzero(~np.isnan(pitch))
    if not len(known):
        return torch.zeros(n)
    pitch = pitch[known[np.searchsorted(known, np.arange(n), "right").clip(1) - 1]]  # held through rests
    pitch, loud = _smooth(pitch, glide_s * rate_hz), _smooth(loud, 0.03 * rate_hz)
    pitch = pitch + vibrato * np.sin(2 * np.pi * 5.3 * np.arange(n) / rate_hz + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(440 * 2 ** ((pitch - 69) / 12)) / rate_hz
    wave = sum(level * np.sin(k * phase) for k, level in enumerate(partials, 1))
    noise = _smooth(rng.normal(size=n), 4) * breath * 4
    return torch.from_numpy((0.2 * loud * (wave + noise)).astype(np.float32))


def _smooth(values: np.ndarray, width: float) -> np.ndarray:
    """By a moving mean, the ends held."""
    half = max(1, round(width / 2))
    padded = np.cumsum(np.pad(values, (half + 1, half), mode="edge"))
    return (padded[2 * half + 1 :] - padded[: -2 * half - 1]) / (2 * half + 1)
