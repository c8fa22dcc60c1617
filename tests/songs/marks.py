"""How near what was heard comes to what was played. Every mark is 0..1; 1 is best."""

from collections.abc import Sequence

import numpy as np

BEAT_S, DRUM_S = 0.07, 0.05  # tolerances; 70 ms is mir_eval's for beats
_STEP_S = 0.05


def f_measure(found: Sequence[float], true: Sequence[float], tolerance: float) -> float:
    """F1 of times, each matched once. 1 where both are empty."""
    if not len(found) and not len(true):
        return 1.0
    left, matched = sorted(found), 0
    for time in sorted(true):
        while left and left[0] < time - tolerance:
            left.pop(0)
        if left and left[0] <= time + tolerance:
            left.pop(0)
            matched += 1
    return 2 * matched / (len(found) + len(true))


def tempo_ratio(found: float, true: float) -> str:
    """`right` within 4 %, else `octave` (half, double), `other`."""
    if found and abs(found / true - 1) <= 0.04:
        return "right"
    return "octave" if any(abs(found / true / factor - 1) <= 0.04 for factor in (0.5, 2)) else "other"


def at(spans: Sequence[tuple[float, float, object]], times: np.ndarray) -> list:
    """The label of spans (start, end, label) at each time; None outside."""
    labels: list = [None] * len(times)
    for start_s, end_s, label in spans:
        for number in range(*np.searchsorted(times, [start_s, end_s])):
            labels[number] = label
    return labels


def overlap(found: Sequence[tuple[float, float, object]], true: Sequence[tuple[float, float, object]]) -> float:
    """Share of the time of `true` in which `found` has the same label."""
    times = np.arange(true[0][0], true[-1][1], _STEP_S)
    pairs = [(a, b) for a, b in zip(at(found, times), at(true, times)) if b is not None]
    return sum(a == b for a, b in pairs) / max(len(pairs), 1)


def shuffled(spans: Sequence[tuple[float, float, object]], seed: int) -> list[tuple[float, float, object]]:
    """The same labels with their lengths, in another order."""
    order = np.random.default_rng(seed).permutation(len(spans))
    parts, at_s = [], spans[0][0]
    for number in order:
        start_s, end_s, label = spans[number]
        parts.append((at_s, at_s + end_s - start_s, label))
        at_s += end_s - start_s
    return parts
