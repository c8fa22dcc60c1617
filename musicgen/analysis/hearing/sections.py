"""Sections: where the music changes, in bars, and which parts are alike."""

from dataclasses import dataclass

import numpy as np

_REACH = 4  # bars on each side that a boundary is judged by
_APART = 4  # bars, at the least, between boundaries
_STANDING_OUT = (
    0.9  # distance of what is before and after a boundary, in the bars' mean distance from their mean; at most 2
)
_ALIKE = 0.5  # correlation of the bars of two sections of one letter
_FEWEST_BARS = 4


@dataclass(frozen=True)
class Section:
    """A part of the piece; equal letters sound alike."""

    start_s: float
    end_s: float
    label: str  # A, B, C, ...
    confidence: float  # how much stands out where it begins, 0..1; 1 for the first


def find_sections(features: np.ndarray, edges_s: np.ndarray) -> tuple[Section, ...]:
    """Sections of bars with features [n, F], between edges_s [n + 1]; a single one for fewer than 4 bars.

    A boundary lies where the mean of the four bars before it is farthest from that of the four after it; shorter runs of chords,
    which come round within four bars, do not stand out. Source: Foote 2000, "Automatic audio segmentation using a measure of
    audio novelty", with means in place of the checkerboard.
    """
    n = len(features)
    if n < _FEWEST_BARS:
        return (Section(float(edges_s[0]), float(edges_s[-1]), "A", 1.0),)
    spread = max(float(np.linalg.norm(features - features.mean(axis=0), axis=1).mean()), 1e-9)
    novelty = np.zeros(n)
    for bar in range(2, n - 1):
        reach = min(_REACH, bar, n - bar)
        change = features[bar - reach : bar].mean(axis=0) - features[bar : bar + reach].mean(axis=0)
        novelty[bar] = np.linalg.norm(change) / spread / (1 + 0.5 * (_REACH - reach) / _REACH)
    starts = [0]
    for bar in range(2, n - 1):
        near = novelty[max(0, bar - _APART + 1) : bar + _APART]
        if novelty[bar] >= _STANDING_OUT and novelty[bar] == near.max():
            starts.append(bar)
    return _labelled(_similarity(features), starts, novelty, edges_s)


def _similarity(features: np.ndarray) -> np.ndarray:
    """Correlations [n, n] of bars about the mean bar."""
    centred = features - features.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    return unit @ unit.T


def _labelled(like: np.ndarray, starts: list[int], novelty: np.ndarray, edges_s: np.ndarray) -> tuple[Section, ...]:
    """Sections with letters: a section takes that of the earlier one whose bars, in order, it repeats."""
    ends = [*starts[1:], len(like)]
    letters: list[str] = []
    for number, (start, end) in enumerate(zip(starts, ends)):
        best, letter = _ALIKE, chr(ord("A") + min(len(set(letters)), 25))
        for other in range(number):
            length = min(end - start, ends[other] - starts[other])
            fit = float(np.mean([like[start + bar, starts[other] + bar] for bar in range(length)]))
            if fit > best:
                best, letter = fit, letters[other]
        letters.append(letter)
    return tuple(
        Section(
            float(edges_s[start]), float(edges_s[end]), letter, float(min(1.0, novelty[start] / 2)) if start else 1.0
        )
        for start, end, letter in zip(starts, ends, letters)
    )
