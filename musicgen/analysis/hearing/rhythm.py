"""Tempo, beats and bars together: several readings of a piece, and the one whose bars fit its chords and accents best."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .bars import Bars, find_bars
from .beats import Onsets, steady_beats, steady_bpm, track_beats
from .chords import BeatChords, hear_chords
from .spectrum import Pitches

_OCTAVES = (0.5, 1.0, 2.0)
_TRACKERS = (track_beats, steady_beats)
_FASTEST_BPM, _SLOWEST_BPM = 215.0, 50.0
_USUAL_BPM, _RARITY = 95.0, 0.3  # cost of an octave away from the usual tempo, squared
_ON_BEAT, _MOST_ON_BEAT = 0.2, 0.3  # worth of onsets on the beats against those halfway between them
_FEWEST_BEATS = 8
_SOUNDING = 0.5  # of the usual level of the pitches, below which the piece has not begun or is over


@dataclass(frozen=True)
class Rhythm:
    """One reading."""

    bpm: float
    beats_s: np.ndarray  # [n]
    edges_s: np.ndarray  # [n + 1], the beats and the end of the last
    chords: BeatChords  # of each beat
    bars: Bars
    on_beat: float  # log ratio of the onsets on the beats to those between
    worth: float


def hear_rhythm(
    onsets: Onsets,
    pitches: Pitches,
    bpm: float,
    meter: int,
    vocabulary: str,
    octaves: bool,
    check: Callable[[float], None],
) -> Rhythm | None:
    """The best reading at about `bpm`, its half or double (`octaves`), on or between the beats that are tracked.

    meter: beats in a bar, 0 = heard. None with fewer than 8 beats. check(share done) is called several times a second.
    """
    tempos = [bpm * factor for factor in _OCTAVES if _SLOWEST_BPM <= bpm * factor <= _FASTEST_BPM] if octaves else []
    tempos = tempos or [bpm]
    readings: list[Rhythm] = []
    for number, tempo in enumerate(tempos):
        for step, track in enumerate(_TRACKERS):
            done = (number + step / len(_TRACKERS)) / len(tempos)

            def part(share: float, done: float = done) -> None:
                check(done + share / len(tempos) / len(_TRACKERS))

            beats_s = track(onsets, tempo, part)
            if len(beats_s) >= _FEWEST_BEATS:
                beats_s = _through_sound(beats_s, 60 / steady_bpm(beats_s), pitches)
                for shift in (0.0, 0.5):
                    part(1.0)
                    readings.append(_reading(onsets, pitches, beats_s, shift, meter, vocabulary))
    return max(readings, key=lambda reading: reading.worth) if readings else None


def read_beats(
    onsets: Onsets, pitches: Pitches, beats_s: np.ndarray, downbeats_s: np.ndarray, meter: int, vocabulary: str
) -> Rhythm:
    """The reading of beats and downbeats that another tracker found. Its bars are kept, unless it found less than one."""
    rhythm = _reading(onsets, pitches, beats_s, 0.0, meter, vocabulary)
    first = np.flatnonzero(np.isin(beats_s, downbeats_s))
    if len(first) < 2:
        return rhythm
    lengths = np.diff(first)
    usual = int(np.bincount(lengths).argmax())
    share = float((lengths == usual).mean())
    latest = np.searchsorted(first, np.arange(len(beats_s)), side="right") - 1
    positions = np.where(
        latest >= 0, np.arange(len(beats_s)) - first[latest], (np.arange(len(beats_s)) - first[0]) % usual
    )
    return replace(rhythm, bars=Bars(usual, positions, share, share, rhythm.bars.fit))


def _reading(
    onsets: Onsets, pitches: Pitches, beats_s: np.ndarray, shift: float, meter: int, vocabulary: str
) -> Rhythm:
    bpm = steady_bpm(beats_s)
    beats_s = beats_s + shift * 60 / bpm
    edges_s = np.append(beats_s, beats_s[-1] + 60 / bpm)
    chords = hear_chords(pitches.between(edges_s), vocabulary)
    strength = onsets.near(onsets.all, beats_s)
    between = onsets.near(onsets.all, beats_s + 30 / bpm)
    bars = find_bars(onsets.near(onsets.low, beats_s), chords.change, strength, meter)
    on_beat = math.log(max(float(strength.mean()), 1e-6) / max(float(between.mean()), 1e-6))
    usual = _RARITY * math.log2(bpm / _USUAL_BPM) ** 2
    worth = bars.fit + _ON_BEAT * min(on_beat, _MOST_ON_BEAT) - usual
    return Rhythm(bpm, beats_s, edges_s, chords, bars, on_beat, worth)


def _through_sound(beats_s: np.ndarray, period_s: float, pitches: Pitches) -> np.ndarray:
    """Beats with those before and after them in which notes sound on without an onset."""
    end_s = len(pitches.levels) * pitches.frame_s
    loudness = pitches.between(np.append(beats_s, beats_s[-1] + period_s)).mean(axis=1)
    threshold = _SOUNDING * float(np.median(loudness))

    def sounds(start_s: float) -> bool:
        inside = start_s >= 0 and start_s + period_s <= end_s
        return inside and pitches.between(np.array([start_s, start_s + period_s])).mean() > threshold

    before, after = [], []
    while sounds((before or [beats_s[0]])[-1] - period_s):
        before.append((before or [beats_s[0]])[-1] - period_s)
    while sounds((after or [beats_s[-1]])[-1] + period_s):
        after.append((after or [beats_s[-1]])[-1] + period_s)
    return np.concatenate([before[::-1], beats_s, after])
