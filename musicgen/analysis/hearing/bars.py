"""Meter and downbeats: which beats are the first of a bar."""

from dataclasses import dataclass

import numpy as np

METERS = (3, 4)
_SLIP = 8.0  # cost of a bar that is a beat longer or shorter, against accents of spread 1
_WEIGHTS = {"low": 1.0, "change": 1.5, "all": 0.3}


@dataclass(frozen=True)
class Bars:
    """The bars that fit the accents best."""

    meter: int  # beats in a bar
    positions: np.ndarray  # [n beats], 0 = downbeat
    meter_confidence: float  # 0..1: 0.5 = another meter fits as well
    confidence: float  # 0..1, of the downbeats: 0.5 = bars that begin on another beat fit as well
    fit: float  # correlation of the accents with the downbeats, -1..1


def find_bars(low: np.ndarray, change: np.ndarray, all: np.ndarray, meter: int = 0) -> Bars:
    """Bars over n beats. low, all: onsets at each beat; change: probability of another chord than before, each [n].

    meter: beats in a bar if it is known; 0 = three or four, whichever fits. The mean accent of the downbeats is held against
    that of all beats in units of its error, and a bar may be a beat longer or shorter at a cost.
    """
    accents = sum(weight * _standard(curve) for (_, weight), curve in zip(_WEIGHTS.items(), (low, change, all)))
    accents = _standard(np.asarray(accents))
    fits: list[tuple[float, int, int]] = []
    for beats in (meter,) if meter else METERS:
        for phase in range(min(beats, len(accents))):
            fits.append((_fit(accents[phase::beats]), beats, phase))
    best = max(fits, key=lambda fit: fit[0])
    others = [fit[0] for fit in fits if fit[1] != best[1]]
    phases = [fit[0] for fit in fits if fit[1] == best[1] and fit[2] != best[2]]
    fit = float(accents[best[2] :: best[1]].mean() / np.sqrt(best[1] - 1))
    positions = _with_slips(accents, best[1])
    return Bars(best[1], positions, _odds(best[0], others), _odds(best[0], phases), fit)


def _fit(downbeats: np.ndarray) -> float:
    return float(downbeats.mean() * np.sqrt(len(downbeats)))


def _odds(best: float, others: list[float]) -> float:
    return 1.0 if not others else float(1 / (1 + np.exp(np.clip(max(others) - best, -50, 50))))


def _standard(curve: np.ndarray) -> np.ndarray:
    return (curve - curve.mean()) / max(float(curve.std()), 1e-9)


def _with_slips(accents: np.ndarray, meter: int) -> np.ndarray:
    """Positions in the bar [n] by dynamic programming: they go up by one, or slip, where much speaks for it."""
    gain = np.where(np.arange(meter)[None] == 0, accents[:, None], 0.0)
    score = gain[0]
    back = []
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
