"""The melody line as notes, and the drums' onsets."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..bands import LOWEST_HZ, N_BANDS
from .beats import EARLY_S, Onsets
from .paths import likeliest_path
from .spectrum import LOWEST, RATE_HZ, Pitches

_LOW, _HIGH = 60, 96  # MIDI pitches of a melody, C4 to C7
_HARMONICS, _FALL = 5, 0.6
_JUMP, _TURN, _REST = 0.06, 0.6, 0.5  # costs: a semitone further, another note, beginning or ending a rest
_HIGHER = 0.02  # a semitone, for the melody lies above its chords
_SHORTEST_S = 0.09
_STRIKE = 0.15  # rise of a pitch within two frames, of the loudest, that is another note
DRUMS = {"kick": 36, "snare": 38, "hihat": 42}  # General MIDI
_RANGES_HZ = {"kick": (0.0, 150.0), "snare": (1500.0, 5000.0), "hihat": (5000.0, RATE_HZ / 2)}
_SHARE = {"kick": 0.6, "snare": 0.75, "hihat": 0.3}  # of the strongest rises in the range
_RISE_DB = 5.0  # at the least
_APART_S = 0.06


@dataclass(frozen=True)
class Note:
    """A note of the melody."""

    start_s: float
    end_s: float
    pitch: int  # MIDI, 60 = C4


@dataclass(frozen=True)
class Hit:
    """An onset of a drum."""

    time_s: float
    drum: str  # of DRUMS


def hear_melody(pitches: Pitches, check: Callable[[float], None]) -> tuple[Note, ...]:
    """The line that sounds most from C4 to C7, as notes of 90 ms and more.

    Sum of harmonics, then the cheapest path through the pitches and rests. Source: Salamon and Gomez 2012, "Melody extraction
    from polyphonic music signals"; the path is Viterbi's.
    """
    loud = pitches.loud
    padded = np.pad(loud, ((0, 0), (0, 40)))
    first, last = _LOW - LOWEST, _HIGH - LOWEST + 1
    salience = np.zeros((len(loud), last - first))
    for harmonic in range(1, _HARMONICS + 1):
        check(0.0)
        up = round(12 * math.log2(harmonic))
        salience += _FALL ** (harmonic - 1) * padded[:, first + up : last + up]
    salience += _HIGHER * np.arange(last - first) * (salience > 0)
    rest = np.full((len(loud), 1), 0.5 * float(np.percentile(salience.max(axis=1), 90)))
    states = _line(np.hstack([salience, rest]), check)
    return _runs(states, loud[:, first:last], pitches.frame_s)


def _line(gain: np.ndarray, check: Callable[[float], None]) -> list[int]:
    """The best states [T] of gains [T, states], of which the last is the rest."""
    n = gain.shape[1]
    steps = np.abs(np.arange(n)[:, None] - np.arange(n)[None])
    costs = np.where(steps == 0, 0.0, _TURN + _JUMP * steps)
    costs[-1, :-1] = costs[:-1, -1] = _REST
    return likeliest_path(gain, -costs, check)


def _runs(states: list[int], loud: np.ndarray, frame_s: float) -> tuple[Note, ...]:
    """States [T] to notes; the number of pitches in loud [T, pitches] is the state of a rest. A note struck again is two."""
    notes, first, rest = [], 0, loud.shape[1]
    for number in range(1, len(states) + 1):
        state = states[first]
        if (
            number < len(states)
            and states[number] == state
            and (state == rest or not _struck(loud[:, state], first, number))
        ):
            continue
        if state != rest and (number - first) * frame_s >= _SHORTEST_S:
            notes.append(Note(max(0.0, (first - 0.5) * frame_s), (number - 0.5) * frame_s, _LOW + state))
        first = number
    return tuple(notes)


def _struck(loud: np.ndarray, first: int, frame: int) -> bool:
    """Whether a pitch with levels [T], sounding since `first`, is struck again at `frame`."""
    if frame - first < 3 or frame + 1 >= len(loud):
        return False
    rise = loud[frame + 1] - loud[frame - 1]
    return (
        rise > _STRIKE
        and rise >= loud[frame] - loud[frame - 2]
        and rise > loud[min(frame + 2, len(loud) - 1)] - loud[frame]
    )


def hear_drums(onsets: Onsets) -> tuple[Hit, ...]:
    """Onsets in the ranges of kick, snare and hi-hat, in order of time. Notes of a bass can be taken for kicks."""
    centres_hz = LOWEST_HZ * (RATE_HZ / 2 / LOWEST_HZ) ** ((np.arange(N_BANDS) + 0.5) / N_BANDS)
    hits = []
    for drum, (low, high) in _RANGES_HZ.items():
        curve = onsets.bands[:, (centres_hz >= low) & (centres_hz < high)].mean(axis=1)
        reach = round(_APART_S / onsets.frame_s)
        threshold = max(_RISE_DB, _SHARE[drum] * float(np.percentile(curve, 99)))
        padded = np.pad(curve, reach)
        highest = np.stack([padded[step : step + len(curve)] for step in range(2 * reach + 1)]).max(axis=0)
        for frame in np.flatnonzero((curve >= threshold) & (curve == highest)):
            hits.append(Hit(float(frame * onsets.frame_s) + EARLY_S, drum))
    return tuple(sorted(hits, key=lambda hit: hit.time_s))
