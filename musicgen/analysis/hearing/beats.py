"""Onsets, and the beats that fit them best at a known tempo."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..bands import FLOOR_DB, LOWEST_HZ, N_BANDS, band_levels_db

HOP_S = 0.01
EARLY_S = 0.011  # a rise is seen when the window of 40 ms reaches the onset
_TIGHTNESS = 300.0  # cost of a beat that is early or late, against onsets of spread 1
_DRIFT, _FINENESS = 0.005, 8  # of a steady tempo; steps a beat by which the last of its beats moves
_RANGE_DB = 60.0
_LOW_HZ = 150.0


@dataclass(frozen=True)
class Onsets:
    """How much louder each frame is than the one before, in dB, means over the bands of a range."""

    all: np.ndarray  # [T]
    low: np.ndarray  # [T], below 150 Hz
    bands: np.ndarray  # [T, N_BANDS]
    frame_s: float

    def near(self, curve: np.ndarray, times_s: np.ndarray, reach_s: float = 0.05) -> np.ndarray:
        """The largest value of a curve [T] within `reach_s` of each time: [n]."""
        frames, reach = np.round(times_s / self.frame_s).astype(int), round(reach_s / self.frame_s)
        spread = np.stack([np.clip(frames + step, 0, len(curve) - 1) for step in range(-reach, reach + 1)])
        return curve[spread].max(axis=0)


def hear_onsets(mono: Tensor, rate_hz: int, check: Callable[[float], None]) -> Onsets:
    """Onsets of mono samples [L]; frame t is at t * frame_s. check(share done) is called several times a second."""
    hop = round(HOP_S * rate_hz)
    block = 2000 * hop
    parts = []
    for first in range(0, max(len(mono), 1), block):
        check(first / len(mono))
        before = min(first, 4 * hop)
        part = mono[first - before : first + block + 4 * hop]
        levels = band_levels_db(part, rate_hz, hop, 4 * hop)[before // hop :]
        parts.append(levels[: block // hop].numpy())
    levels = np.concatenate(parts)
    levels = np.maximum(levels, max(float(levels.max()) - _RANGE_DB, FLOOR_DB))
    rise = np.maximum(levels[2:] - levels[:-2], 0)
    rise = np.concatenate([np.zeros((1, N_BANDS)), rise, np.zeros((1, N_BANDS))])
    n_low = round(N_BANDS * np.log2(_LOW_HZ / LOWEST_HZ) / np.log2(rate_hz / 2 / LOWEST_HZ))
    return Onsets(rise.mean(axis=1), rise[:, : max(n_low, 1)].mean(axis=1), rise, hop / rate_hz)


def track_beats(onsets: Onsets, bpm: float, check: Callable[[float], None]) -> np.ndarray:
    """Times of the beats in seconds, [n], at about `bpm` beats a minute; they follow a tempo that changes.

    The chain of frames is found whose onsets are strongest and whose gaps are nearest to the period, by dynamic
    programming. Source: Ellis 2007, "Beat tracking by dynamic programming"; librosa's `beat_track` is the same method.
    """
    period = 60 / bpm / onsets.frame_s
    strength = _strength(onsets, period)
    gaps = np.arange(round(period / 2), round(2 * period) + 1)
    costs = _TIGHTNESS * np.log(gaps / period) ** 2
    score, best = strength.copy(), np.full(len(strength), -1)
    threshold = 0.01 * strength.max()
    for frame in range(gaps[0], len(strength)):
        if frame % 2000 == 0:
            check(frame / len(strength))
        allowed = gaps[: max(1, min(len(gaps), frame - gaps[0] + 1))]
        earlier = score[frame - allowed] - costs[: len(allowed)]
        choice = int(earlier.argmax())
        if earlier[choice] > 0 or strength[frame] > threshold:
            score[frame] += earlier[choice]
            best[frame] = frame - allowed[choice]
    peaks = np.flatnonzero((score[1:-1] >= score[:-2]) & (score[1:-1] > score[2:])) + 1
    if not len(peaks):
        return np.zeros(0)
    last = int(peaks[score[peaks] >= 0.5 * np.median(score[peaks])].max())
    chain = [last]
    while best[chain[-1]] >= 0:
        chain.append(int(best[chain[-1]]))
    return _without_silence(np.array(chain[::-1], dtype=float), strength) * onsets.frame_s + EARLY_S


def steady_beats(onsets: Onsets, bpm: float, check: Callable[[float], None]) -> np.ndarray:
    """Times of the beats in seconds, [n], at one tempo within 0.5 % of `bpm`: syncopation does not lead them astray."""
    frames = np.arange(len(onsets.all))
    strength = _strength(onsets, 60 / bpm / onsets.frame_s)
    n_beats = len(frames) * onsets.frame_s * bpm / 60
    n_steps = 1 + 2 * math.ceil(_DRIFT * _FINENESS * n_beats)
    best, beats = -math.inf, np.zeros(0)
    for number, tempo in enumerate(bpm * np.linspace(1 - _DRIFT, 1 + _DRIFT, n_steps)):
        check(number / n_steps)
        period = 60 / tempo / onsets.frame_s
        phases = np.arange(0, period, 0.5)
        grid = phases[:, None] + period * np.arange(int((len(frames) - 1 - period) / period) + 1)
        fits = np.interp(grid, frames, strength).mean(axis=1)
        if fits.max() > best:
            best, beats = float(fits.max()), grid[int(fits.argmax())]
    return _without_silence(beats, strength) * onsets.frame_s + EARLY_S


def _strength(onsets: Onsets, period: float) -> np.ndarray:
    """Onsets in units of their spread, smoothed over a sixteenth of a beat: [T]."""
    kernel = np.exp(-0.5 * (np.arange(-round(period), round(period) + 1) * 32 / period) ** 2)
    curve = onsets.all / max(float(onsets.all.std()), 1e-9)
    return np.convolve(curve, kernel)[round(period) :][: len(curve)]


def steady_bpm(beats_s: np.ndarray) -> float:
    """The tempo of beats: by a straight line through their times, or by the median gap where they do not keep one."""
    numbers = np.arange(len(beats_s))
    slope, offset = np.polyfit(numbers, beats_s, 1)
    if np.abs(slope * numbers + offset - beats_s).max() < 0.25 * slope:
        return 60 / float(slope)
    return 60 / float(np.median(np.diff(beats_s)))


def _without_silence(frames: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Beats without those before the first and after the last that have an onset."""
    here = strength[frames.astype(int)]
    loud = np.flatnonzero(here >= 0.1 * np.sqrt(np.mean(here**2)))
    return frames[loud[0] : loud[-1] + 1] if len(loud) else frames
