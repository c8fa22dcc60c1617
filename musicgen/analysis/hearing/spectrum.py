"""Spectral peaks of a piece, sorted by pitch: what chords, key and melody are heard in."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RATE_HZ = 22050
HOP = 1024
LOWEST, HIGHEST = 28, 103  # MIDI pitches, E1 to G7
N_PITCHES = HIGHEST - LOWEST + 1
# Pitches below the first number are read from the window beside it: low notes need the resolution, high ones the time.
_WINDOWS = ((55, 16384), (72, 8192), (HIGHEST + 1, 4096))
_BLOCK = 128  # frames at a time
_COMPRESSION = 100.0
_FLOOR = 10 ** (-70 / 20)  # of the loudest peak


@dataclass(frozen=True)
class Pitches:
    """Strength of each semitone over time."""

    levels: np.ndarray  # [T, N_PITCHES] float32, amplitude of the peaks near each pitch, from LOWEST
    tuning_cents: float  # of the piece against A = 440 Hz, in -50..50

    @property
    def frame_s(self) -> float:
        return HOP / RATE_HZ

    @functools.cached_property
    def loud(self) -> np.ndarray:
        """Log levels [T, N_PITCHES] in 0..1, of the loudest peak."""
        return np.log1p(_COMPRESSION * self.levels / max(float(self.levels.max()), 1e-9)) / math.log(1 + _COMPRESSION)

    def between(self, edges_s: np.ndarray) -> np.ndarray:
        """Log levels in each interval between neighbouring edges: [len(edges_s) - 1, N_PITCHES] in 0..1.

        The median over the interval's frames leaves what sounds on, and little of the noise of drums. Source of the compression:
        Cho and Bello 2014, "On the relative importance of individual components of chord recognition systems".
        """
        frames = np.clip(np.round(edges_s / self.frame_s).astype(int), 0, len(self.loud))
        first = np.minimum(frames[:-1], len(self.loud) - 1)
        last = np.maximum(frames[1:], first + 1)
        return np.stack([_steady(self.loud[start:end]) for start, end in zip(first, last)])


def _steady(frames: np.ndarray) -> np.ndarray:
    """Mean of the middle half of each column of [n, N_PITCHES], from the 25th to the 75th percentile."""
    ordered = np.sort(frames, axis=0)
    n = len(ordered)
    return ordered[n // 4 : max(n - n // 4, n // 4 + 1)].mean(axis=0)


def hear_pitches(mono: Tensor, check: Callable[[float], None]) -> Pitches:
    """Pitches of mono samples [L] at RATE_HZ. check(share done) is called several times a second.

    Peaks of the magnitude are refined by a parabola over log magnitudes, and the tuning is their circular mean.
    Source: Gomez 2006, "Tonal description of music audio signals" (harmonic pitch class profile).
    """
    n_frames = 1 + len(mono) // HOP
    fine = np.zeros((n_frames, 5 * N_PITCHES + 5), dtype=np.float32)  # five bins a semitone
    lowest = LOWEST - 0.5
    for number, (top, window) in enumerate(_WINDOWS):
        bottom = _WINDOWS[number - 1][0] if number else LOWEST
        padded = F.pad(mono, (window // 2, window // 2 + HOP))
        taper = torch.hann_window(window)
        for first in range(0, n_frames, _BLOCK):
            check((number + first / n_frames) / len(_WINDOWS))
            last = min(first + _BLOCK, n_frames)
            part = padded[first * HOP : (last - 1) * HOP + window].unfold(0, window, HOP)
            magnitude = torch.fft.rfft(part * taper).abs() * (2 / float(taper.sum()))
            frame, pitch, strength = _peaks(magnitude, window)
            inside = (pitch >= bottom - 0.5) & (pitch < top - 0.5)
            column = ((pitch[inside] - lowest) * 5).astype(int)
            np.add.at(fine, (first + frame[inside], column), strength[inside])
    return _by_semitone(fine)


def _peaks(magnitude: Tensor, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local maxima of [T, bins]: their frames, MIDI pitches and amplitudes, each [n]."""
    log = magnitude.clamp(min=1e-9).log()
    inner = log[:, 1:-1]
    frame, bin = ((inner > log[:, :-2]) & (inner >= log[:, 2:]) & (magnitude[:, 1:-1] > 1e-5)).nonzero(as_tuple=True)
    before, at, after = log[frame, bin], log[frame, bin + 1], log[frame, bin + 2]
    shift = 0.5 * (before - after) / (before - 2 * at + after).clamp(max=-1e-6)
    frequency_hz = (bin + 1 + shift.clamp(-0.5, 0.5)) * RATE_HZ / window
    pitch = 69 + 12 * (frequency_hz / 440).log2()
    return frame.numpy(), pitch.numpy(), (at - 0.25 * (before - after) * shift).exp().numpy()


def _by_semitone(fine: np.ndarray) -> Pitches:
    """Fifths of semitones to semitones, at the tuning that most of the strength has."""
    fine = np.where(fine < _FLOOR * max(float(fine.max()), 1e-9), 0, fine)
    angles = 2 * np.pi * ((np.arange(fine.shape[1]) + 0.5) / 5 - 0.5)  # of a semitone, 0 = in tune
    strength = np.sqrt(fine).sum(axis=0)
    tuning = float(np.angle((strength * np.exp(1j * angles)).sum()) / (2 * np.pi))
    moved = np.roll(fine, -round(5 * tuning), axis=1)[:, : 5 * N_PITCHES]
    weights = np.array([0.5, 0.9, 1, 0.9, 0.5], dtype=np.float32)
    return Pitches((moved.reshape(len(fine), N_PITCHES, 5) * weights).sum(axis=2), 100 * tuning)


def fold(levels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pitches [T, N_PITCHES], weighted, to chroma [T, 12], C first."""
    chroma = np.zeros((len(levels), 12))
    for number in range(N_PITCHES):
        chroma[:, (LOWEST + number) % 12] += weights[number] * levels[:, number]
    return chroma
