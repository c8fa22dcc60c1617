"""Sections: where the music changes, in bars, and which parts are alike."""

from dataclasses import dataclass

import numpy as np

_REACH = 4  # bars on each side that a boundary is judged by
_STANDING_OUT = 0.12  # novelty of a boundary, of the most that there can be
_ALIKE = 0.6  # correlation of the bars of two sections of one letter
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

    A checkerboard kernel runs along the diagonal of the bars' similarities. Source: Foote 2000, "Automatic audio segmentation
    using a measure of audio novelty".
    """
    n = len(features)
    if n < _FEWEST_BARS:
        return (Section(float(edges_s[0]), float(edges_s[-1]), "A", 1.0),)
    like = _similarity(features)
    novelty = np.zeros(n)
    for bar in range(2, n - 1):
        reach = min(_REACH, bar, n - bar)
        before, after = slice(bar - reach, bar), slice(bar, bar + reach)
        inside = (like[before, before].mean() + like[after, after].mean()) / 2
        novelty[bar] = max(0.0, (inside - like[before, after].mean()) / 2)
    starts = [0]
    for bar in range(2, n - 1):
        near = novelty[max(0, bar - 2) : bar + 3]
        if novelty[bar] >= _STANDING_OUT and novelty[bar] == near.max() and bar - starts[-1] >= 2:
            starts.append(bar)
    return _labelled(like, starts, novelty, edges_s)


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
        Section(float(edges_s[start]), float(edges_s[end]), letter, float(min(1.0, novelty[start])) if start else 1.0)
        for start, end, letter in zip(starts, ends, letters)
    )
