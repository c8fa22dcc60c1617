"""Tempo, beats and bars together: several readings of a piece, and the one that onsets, chords and accents speak for most."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from .bars import Bars, follow_bars, odds
from .beats import Onsets, steady_beats, steady_bpm, track_beats
from .chords import BeatChords, hear_chords
from .evidence import Clues, Evidence, evidence_of, gains
from .spectrum import Pitches

# Of the pulse that comes back most. Threes are those of 6/8, whose eighths, beats and bars are all likely to.
_FACTORS = (1 / 3, 1 / 2, 2 / 3, 1, 4 / 3, 3 / 2, 2, 3)
_TRACKERS = (track_beats, steady_beats)
_FASTEST_BPM, _SLOWEST_BPM = 300.0, 40.0
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


@dataclass(frozen=True)
class Reading:
    """A row of beats, and what speaks for it."""

    bpm: float
    beats_s: np.ndarray  # [n]
    edges_s: np.ndarray  # [n + 1]
    chords: BeatChords
    evidence: Evidence


def hear_rhythm(
    onsets: Onsets,
    pitches: Pitches,
    bpm: float,
    meter: int,
    vocabulary: str,
    octaves: bool,
    check: Callable[[float], None],
) -> Rhythm | None:
    """The best reading at about `bpm` or a simple multiple of it (`octaves`), on or between the beats that are tracked.

    meter: beats in a bar, 0 = heard. None with fewer than 8 beats. check(share done) is called several times a second.
    """
    readings = list(read_all(onsets, pitches, bpm, meter, vocabulary, octaves, check))
    if not readings:
        return None
    best = max(readings, key=lambda reading: reading.evidence.scores.max())
    return _rhythm(best, onsets, pitches, vocabulary)


def read_all(
    onsets: Onsets,
    pitches: Pitches,
    bpm: float,
    meter: int,
    vocabulary: str,
    octaves: bool,
    check: Callable[[float], None],
) -> Iterator[Reading]:
    """All readings of `hear_rhythm`."""
    tempos = [bpm * factor for factor in _FACTORS if _SLOWEST_BPM <= bpm * factor <= _FASTEST_BPM] if octaves else []
    tempos = tempos or [bpm]
    clues = Clues(onsets, pitches)
    for number, tempo in enumerate(tempos):
        for step, track in enumerate(_TRACKERS):
            done = (number + step / len(_TRACKERS)) / len(tempos)

            def part(share: float, done: float = done) -> None:
                check(done + share / len(tempos) / len(_TRACKERS))

            beats_s = track(onsets, tempo, part)
            if len(beats_s) < _FEWEST_BEATS:
                continue
            beats_s = _through_sound(beats_s, 60 / steady_bpm(beats_s), pitches)
            for shift in (0.0, 0.5):
                part(1.0)
                moved_s = beats_s + shift * 60 / steady_bpm(beats_s)
                reading = _reading(clues, moved_s, meter, vocabulary, track is steady_beats, not octaves)
                if reading.evidence.groups:
                    yield reading


def read_beats(
    onsets: Onsets, pitches: Pitches, beats_s: np.ndarray, downbeats_s: np.ndarray, meter: int, vocabulary: str
) -> Rhythm:
    """The reading of beats and downbeats that another tracker found. Its bars are kept, unless it found less than one."""
    reading = _reading(Clues(onsets, pitches), beats_s, meter, vocabulary, False, True)
    rhythm = _rhythm(reading, onsets, pitches, vocabulary)
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
    return replace(rhythm, bars=Bars(usual, positions, share, share))


def _reading(
    clues: Clues, beats_s: np.ndarray, meter: int, vocabulary: str, is_steady: bool, any_tempo: bool
) -> Reading:
    bpm = steady_bpm(beats_s)
    edges_s = np.append(beats_s, beats_s[-1] + 60 / bpm)
    chords = hear_chords(clues.pitches.between(edges_s), vocabulary)
    return Reading(bpm, beats_s, edges_s, chords, evidence_of(clues, beats_s, bpm, chords, is_steady, meter, any_tempo))


def _rhythm(reading: Reading, onsets: Onsets, pitches: Pitches, vocabulary: str) -> Rhythm:
    scores, groups = reading.evidence.scores, reading.evidence.groups
    best = int(scores.argmax())
    meter, phase = groups[best]
    bars = Bars(
        meter,
        follow_bars(gains(reading.evidence.curves, meter), -phase % meter),
        odds(scores[best], [score for score, group in zip(scores, groups) if group[0] != meter]),
        odds(scores[best], [score for score, group in zip(scores, groups) if group[0] == meter and group[1] != phase]),
    )
    strength = onsets.near(onsets.all, reading.beats_s)
    between = onsets.near(onsets.all, reading.beats_s + 30 / reading.bpm)
    on_beat = math.log(max(float(strength.mean()), 1e-6) / max(float(between.mean()), 1e-6))
    chords = hear_chords(pitches.between(reading.edges_s), vocabulary, adapts=True)
    return Rhythm(reading.bpm, reading.beats_s, reading.edges_s, chords, bars, on_beat)


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
