"""What speaks for a reading of a piece: features of beats that are grouped in bars, and how much each of them counts.

A reading is a row of beats at a tempo; a hypothesis is a reading, a meter and the beat that is the first of a bar. Its score is linear
in the features; the weights (weights.py) are those of a conditional logit, the softmax over all hypotheses of a piece in which the
right ones have the most probability. Source: McFadden 1974, "Conditional logit analysis of qualitative choice behavior".
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from .beats import Onsets
from .chords import NONE, BeatChords
from .spectrum import LOWEST, N_PITCHES, Pitches, fold
from .weights import POSITIONS, READING, WEIGHTS

METERS = (3, 4, 6)  # of 6 the beats are eighths, in two groups of three
_USUAL_BPM = 95.0
_SPAN_S = 0.2  # of the sound before and behind a moment, between which it changes
_REACH_S = 0.05
_MOST_BPM, _SIX_BPM = 215.0, (100.0, 300.0)
_FEW = 4  # bars, of which the mean counts half: chance makes means of a few large
_LEAST_LOG, _MOST_LOG = -1.0, 1.5
_TONAL = (
    0.5  # share of beats with a chord, below which chords and their changes count less, down to nothing for drums alone
)


@dataclass(frozen=True)
class Clues:
    """What a piece has at each moment, whatever its beats."""

    onsets: Onsets
    pitches: Pitches

    @functools.cached_property
    def change(self) -> np.ndarray:
        """How much the pitches' chroma differs behind each frame of `pitches` from that before it: 1 - cosine, [T + 1]."""
        pitch = LOWEST + np.arange(N_PITCHES)
        chroma = fold(self.pitches.loud, np.exp(-0.5 * ((pitch - 62) / 14) ** 2))
        n, span = len(chroma), max(1, round(_SPAN_S / self.pitches.frame_s))
        sums = np.concatenate([np.zeros((1, 12)), np.cumsum(chroma, axis=0)])
        at = np.arange(n + 1)
        before = sums[at] - sums[np.maximum(at - span, 0)]
        behind = sums[np.minimum(at + span, n)] - sums[at]
        lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(behind, axis=1)
        return 1 - (before * behind).sum(axis=1) / np.maximum(lengths, 1e-18)

    def onsets_at(self, times_s: np.ndarray) -> np.ndarray:
        return self.onsets.near(self.onsets.all, times_s, _REACH_S)

    def change_at(self, times_s: np.ndarray) -> np.ndarray:
        return _near(self.change, self.pitches.frame_s, times_s)


def _near(curve: np.ndarray, frame_s: float, times_s: np.ndarray) -> np.ndarray:
    frames, reach = np.round(times_s / frame_s).astype(int), max(1, round(_REACH_S / frame_s))
    return curve[np.stack([np.clip(frames + step, 0, len(curve) - 1) for step in range(-reach, reach + 1)])].max(axis=0)


@dataclass(frozen=True)
class Evidence:
    """Hypotheses of one reading."""

    groups: list[tuple[int, int]]  # (meter, phase): beat number `phase` begins a bar
    features: np.ndarray  # [hypotheses, F], in the order of `names`
    curves: dict[str, np.ndarray]  # of the beats, mean 0 and spread 1 at the most, each [n]

    @property
    def scores(self) -> np.ndarray:
        return self.features @ np.array([WEIGHTS[name] for name in names()])


def names() -> list[str]:
    """Names of the features."""
    return [
        *READING,
        *(f"{curve} {meter}.{place}" for meter in METERS for curve in CURVES for place in POSITIONS[meter]),
    ]


CURVES = ("low", "all", "chord", "change")


def evidence_of(
    clues: Clues,
    beats_s: np.ndarray,
    bpm: float,
    chords: BeatChords,
    is_steady: bool,
    meter: int = 0,
    any_tempo: bool = False,
) -> Evidence:
    """Hypotheses of beats_s [n] at `bpm`. meter: beats in a bar, if they are known; 0 = those of METERS that the tempo allows (`any_tempo`: all).

    A meter that is known and not of METERS has the weights of four beats, of its first one.
    """
    period_s = 60 / bpm

    def moved(share: float) -> np.ndarray:
        return clues.onsets_at(beats_s + share * period_s)

    here, half = moved(0.0), moved(0.5)
    thirds, quarters = (moved(1 / 3) + moved(2 / 3)) / 2, (moved(0.25) + moved(0.75)) / 2
    change = clues.change_at(beats_s)
    change_thirds = (clues.change_at(beats_s + period_s / 3) + clues.change_at(beats_s + 2 * period_s / 3)) / 2
    curves = {
        "low": clues.onsets.near(clues.onsets.low, beats_s, _REACH_S), "all": here, "chord": chords.change, "change": change,
    }  # fmt: skip
    curves = {name: _standard(curve) for name, curve in curves.items()}
    tonal = min(1.0, float(np.mean([label != NONE for label in chords.labels])) / _TONAL)
    curves["chord"], curves["change"] = tonal * curves["chord"], tonal * curves["change"]
    odd = {name: abs(float(curve[::2].mean() - curve[1::2].mean())) for name, curve in curves.items()}
    on_half, on_thirds = _log_ratio(here, half), _log_ratio(here, thirds)
    groups, rows = [], []
    for beats in (meter,) if meter else METERS if any_tempo else _allowed(bpm):
        six = beats == 6
        octaves = math.log2((bpm / 3 if six else bpm) / _USUAL_BPM)
        reading = {
            "octaves": octaves, "octaves squared": octaves**2, "octaves in six": octaves * six, "steady": float(is_steady),
            "three": float(beats == 3), "six": float(six), "chords": tonal * float(chords.probability.mean()),
            "over halves": on_half, "over halves in six": on_half * six, "over thirds": on_thirds, "over thirds in six": on_thirds * six,
            "over quarters": _log_ratio(here, quarters), "halves over quarters": _log_ratio(half, quarters),
            "change over halves": tonal * _log_ratio(change, clues.change_at(beats_s + period_s / 2)),
            "change over thirds in six": tonal * _log_ratio(change, change_thirds) * six,
            "chords a beat by octaves": tonal * float(chords.change.mean()) * octaves,
            "odd all": odd["all"], "odd change": odd["change"], "odd chord": odd["chord"], "odd low": odd["low"],
        }  # fmt: skip
        for phase in range(min(beats, len(beats_s))):
            groups.append((beats, phase))
            rows.append([reading[name] for name in READING] + _by_position(curves, beats, phase))
    return Evidence(groups, np.array(rows), curves)


def gains(curves: dict[str, np.ndarray], meter: int) -> np.ndarray:
    """What speaks for each beat at each position of a bar, [n, meter]; the spread at the first position is 1."""
    weights = meter if meter in METERS else 4
    positions = POSITIONS[weights] if meter in METERS else POSITIONS[weights][:1]
    result = np.zeros((len(curves["all"]), meter))
    for place in positions:
        result[:, place] = sum(WEIGHTS[f"{name} {weights}.{place}"] * curve for name, curve in curves.items())
    return result / max(float(result[:, 0].std()), 1e-9)


def _allowed(bpm: float) -> list[int]:
    low, high = _SIX_BPM
    return [meter for meter in METERS if (low <= bpm <= high if meter == 6 else bpm <= _MOST_BPM)]


def _by_position(curves: dict[str, np.ndarray], meter: int, phase: int) -> list[float]:
    """Means of the curves at positions of the bar, nearer to 0 for a few bars, 0 for those of other meters."""
    own = meter if meter in METERS else 4
    row = []
    for other in METERS:
        for curve in curves.values():
            for place in POSITIONS[other]:
                chosen = (
                    curve[(phase + place) % meter :: meter]
                    if other == own and (meter == own or not place)
                    else curve[:0]
                )
                row.append(float(chosen.sum()) / (len(chosen) + _FEW))
    return row


def _standard(curve: np.ndarray) -> np.ndarray:
    return (curve - curve.mean()) / max(float(curve.std()), 1e-9)


def _log_ratio(above: np.ndarray, below: np.ndarray) -> float:
    ratio = math.log(max(float(above.mean()), 1e-6) / max(float(below.mean()), 1e-6))
    return min(max(ratio, _LEAST_LOG), _MOST_LOG)
