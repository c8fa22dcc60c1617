"""A hummed or sung line as notes: its fundamental frequency, then the notes that explain it best."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ...audio import Audio, convert
from ...errors import InputError
from ...score import Note, Part, Score, Tempo
from .paths import likeliest_path

SHORTEST_S, LONGEST_S = 0.3, 300.0
_RATE_HZ, _HOP, _WINDOW = 16_000, 160, 1024  # 10 ms; 64 ms
_LOWEST_HZ, _HIGHEST_HZ = 65.0, 1050.0  # C2 to C6
_LOW, _HIGH = 36, 84
_BLOCK = 1000  # frames at a time
_DIP = 0.15  # of the normalized difference: a period this good ends the search, the shortest one first
_VOICED = 0.35
_QUIET_DB = -35.0  # below the loud frames, where nothing is sung
_SPREAD = 0.5  # semitones of a voice around its note: vibrato and glides
_FAR, _SILENT, _TURN, _REST = (
    3.0,
    1.0,
    8.0,
    3.0,
)  # costs: a frame off its note at most, one without a pitch, another note, a rest
_SHORTEST_NOTE_S = 0.08
_GAP_S = 0.06  # a rest that is shorter belongs to the note before it
_DIP_WINDOW, _DIP_REACH, _DIP_DB = 400, 8, 6.0  # samples, frames, dB under the loudest on each side
_DEFAULT_BPM = 120.0
_GRID = 960  # parts of a quarter note


def hear_voice(audio: Audio, bpm: float = 0.0, on_step: Callable[[int, int], None] | None = None) -> Score:
    """The score of one voice alone, or one instrument that plays a note at a time, from C2 to C6.

    bpm: the tempo that its notes are counted in (their times stay as they are heard); 0 = 120. The voice's own tuning, up to half a
    semitone off, is taken away. on_step(done, total) is called several times a second; what it raises ends the work.
    Source of the pitch: de Cheveigne and Kawahara 2002, "YIN, a fundamental frequency estimator"; of the notes: a Viterbi path over
    semitones. InputError: several clips, too short or too long, nothing that has a pitch.
    """
    if len(audio.samples) != 1:
        raise InputError(f"'audio' holds {len(audio.samples)} clips; a melody is one clip. Give one of them.")
    if not SHORTEST_S <= audio.duration_s <= LONGEST_S:
        raise InputError(
            f"'audio' is {audio.duration_s:.2f} s long, and {SHORTEST_S:g} to {LONGEST_S:g} s of a voice are heard. Cut it with Trim Audio."
        )
    check = on_step or (lambda done, total: None)
    mono = convert(audio, _RATE_HZ, 1).samples[0, 0]
    pitches, level_db = _pitches(mono, lambda share: check(int(90 * share), 100))
    loud_db = float(np.percentile(level_db, 90))
    pitches = np.where(level_db > max(loud_db + _QUIET_DB, -70.0), pitches, np.nan)
    voiced = pitches[~np.isnan(pitches)]
    if len(voiced) * _HOP / _RATE_HZ < _SHORTEST_NOTE_S:
        raise InputError(
            "'audio' has no sung or hummed tone that can be followed. Sing one line, close to the microphone."
        )
    offset = np.angle(np.exp(2j * np.pi * voiced).mean()) / (2 * np.pi)
    states = _notes(pitches - offset, check)
    for frame in _struck_again(mono, len(states)):
        states[frame] = _HIGH - _LOW + 1
    check(100, 100)
    tempo = Tempo(Fraction(0), bpm or _DEFAULT_BPM)
    notes = [
        Note(_place(start_s, tempo), max(_place(end_s, tempo) - _place(start_s, tempo), Fraction(1, _GRID)), pitch)
        for start_s, end_s, pitch in _runs(states)
    ]
    if not notes:
        raise InputError("'audio' has no tone of 0.08 s or more. Sing longer notes, one at a time.")
    length = max(_place(audio.duration_s, tempo), notes[-1].end)
    return Score((Part("Voice", tuple(notes)),), length, (tempo,))


def _place(time_s: float, tempo: Tempo) -> Fraction:
    return Fraction(round(time_s * tempo.bpm / 60 * _GRID), _GRID)


def _pitches(mono: Tensor, check: Callable[[float], None]) -> tuple[np.ndarray, np.ndarray]:
    """MIDI pitch of each frame, not a number without one; and its level in dB: both [T]."""
    shortest, longest = int(_RATE_HZ / _HIGHEST_HZ), math.ceil(_RATE_HZ / _LOWEST_HZ)
    n_frames = 1 + len(mono) // _HOP
    padded = torch.nn.functional.pad(mono, (_WINDOW // 2 + longest // 2, _WINDOW + longest))
    pitches, levels = [], []
    for first in range(0, n_frames, _BLOCK):
        check(first / n_frames)
        n = min(_BLOCK, n_frames - first)
        part = padded[first * _HOP : first * _HOP + (n - 1) * _HOP + _WINDOW + longest]
        frames = part.unfold(0, _WINDOW + longest, _HOP)
        pitch, level = _yin(frames, shortest, longest)
        pitches.append(pitch)
        levels.append(level)
    return np.concatenate(pitches), np.concatenate(levels)


def _yin(frames: Tensor, shortest: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Pitch and level of frames [T, window + longest]: the first good dip of the cumulative mean normalized difference."""
    size = 2 ** math.ceil(math.log2(_WINDOW + longest))
    head = frames[:, :_WINDOW]
    spectrum = torch.fft.rfft(frames, size) * torch.fft.rfft(head, size).conj()
    correlation = torch.fft.irfft(spectrum, size)[:, : longest + 1]
    power = torch.nn.functional.pad(frames.double().pow(2).cumsum(1), (1, 0))
    energy = (power[:, _WINDOW : _WINDOW + longest + 1] - power[:, : longest + 1]).float()
    difference = (energy[:, :1] + energy - 2 * correlation).clamp(min=0)
    mean = difference[:, 1:].cumsum(1) / torch.arange(1, longest + 1)
    normal = torch.cat([torch.ones(len(frames), 1), difference[:, 1:] / mean.clamp(min=1e-9)], dim=1).numpy()
    middle = normal[:, shortest : longest - 1]
    is_dip = (middle <= normal[:, shortest - 1 : longest - 2]) & (middle < normal[:, shortest + 1 : longest])
    good = is_dip & (middle < _DIP)
    best = np.where(is_dip, middle, np.inf).argmin(axis=1)
    lag = shortest + np.where(good.any(axis=1), good.argmax(axis=1), best)
    rows = np.arange(len(normal))
    before, at, after = normal[rows, lag - 1], normal[rows, lag], normal[rows, lag + 1]
    shift = 0.5 * (before - after) / np.maximum(before - 2 * at + after, 1e-9)
    pitch = 69 + 12 * np.log2(_RATE_HZ / (lag + np.clip(shift, -0.5, 0.5)) / 440)
    level_db = 10 * np.log10(np.maximum(energy[:, 0].numpy() / _WINDOW, 1e-12))
    return np.where(at < _VOICED, pitch, np.nan), level_db


def _notes(pitches: np.ndarray, check: Callable[[int, int], None]) -> list[int]:
    """The best state of each frame [T]: a semitone from _LOW, or a rest, the last state."""
    semitones = np.arange(_LOW, _HIGH + 1)
    away = np.abs(pitches[:, None] - semitones[None])
    cost = np.minimum((away / _SPREAD) ** 2 / 2, _FAR)
    cost[np.isnan(pitches)] = _SILENT
    rest = np.where(np.isnan(pitches), 0.0, _FAR / 2)[:, None]
    n = len(semitones) + 1
    transition = np.full((n, n), _TURN)
    transition[:, -1] = transition[-1] = _REST
    np.fill_diagonal(transition, 0.0)
    return likeliest_path(-np.hstack([cost, rest]), -transition, lambda share: check(90 + int(9 * share), 100))


def _struck_again(mono: Tensor, n_frames: int) -> np.ndarray:
    """Frames at which the level dips for a moment: a note that is sung again, as in da-da."""
    power = torch.nn.functional.pad(mono.double().pow(2), (_DIP_WINDOW // 2, _DIP_WINDOW + _HOP)).cumsum(0)
    first = torch.arange(n_frames) * _HOP
    level_db = 10 * torch.log10((power[first + _DIP_WINDOW] - power[first]).clamp(min=1e-9)).numpy()
    padded = np.pad(level_db, _DIP_REACH, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, _DIP_REACH + 1)
    before, after = around[: len(level_db)].max(axis=1), around[_DIP_REACH:].max(axis=1)
    lowest = np.lib.stride_tricks.sliding_window_view(padded, 2 * _DIP_REACH + 1).min(axis=1)
    is_dip = (level_db <= lowest) & (np.minimum(before, after) - level_db > _DIP_DB)
    return np.flatnonzero(is_dip)


def _runs(states: list[int]) -> list[tuple[float, float, int]]:
    """States to (start, end, pitch) in seconds; short rests are closed."""
    frame_s, rest = _HOP / _RATE_HZ, _HIGH - _LOW + 1
    runs: list[tuple[float, float, int]] = []
    first = 0
    for number in range(1, len(states) + 1):
        if number < len(states) and states[number] == states[first]:
            continue
        start_s, end_s = max(0.0, (first - 0.5) * frame_s), (number - 0.5) * frame_s
        if states[first] != rest and end_s - start_s >= _SHORTEST_NOTE_S:
            if runs and start_s - runs[-1][1] < _GAP_S:
                runs[-1] = (runs[-1][0], start_s, runs[-1][2])
            runs.append((start_s, end_s, _LOW + states[first]))
        first = number
    return runs
