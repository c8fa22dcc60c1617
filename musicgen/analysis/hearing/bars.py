"""Bars: which beats are the first of one, followed through a beat too many or too few."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SLIP = 8.0  # cost of a bar that is a beat longer or shorter, against gains of spread 1


@dataclass(frozen=True)
class Bars:
    """The bars that fit best."""

    meter: int  # beats in a bar
    positions: np.ndarray  # [n beats], 0 = downbeat
    meter_confidence: float  # 0..1: 0.5 = another meter fits as well
    confidence: float  # 0..1, of the downbeats: 0.5 = bars that begin on another beat fit as well


def odds(best: float, others: Sequence[float]) -> float:
    """Probability of the best score against the next one; 1 without any."""
    return 1.0 if not len(others) else float(1 / (1 + np.exp(np.clip(max(others) - best, -50, 50))))


def follow_bars(gain: np.ndarray, first: int | None = None) -> np.ndarray:
    """Positions in the bar [n] of gains [n, meter] by dynamic programming: they go up by one, or slip, where much speaks for it.

    first: position of the first beat, from which another costs a slip; None: any, at no cost.
    """
    meter = gain.shape[1]
    score, back = gain[0].copy(), []
    if first is not None:
        score -= _SLIP * (np.arange(meter) != first)
    for row in gain[1:]:
        ways = np.full((meter, meter), -np.inf)
        for before in range(meter):
            ways[before] = score[before] - _SLIP
            ways[before, (before + 1) % meter] = score[before]
        back.append(ways.argmax(axis=0))
        score = ways.max(axis=0) + row
    path = [int(score.argmax())]
    for choice in reversed(back):
        path.append(int(choice[path[-1]]))
    return np.array(path[::-1])
