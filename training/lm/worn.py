"""What a model in training is shown worse than it is: tones that are wrong, codes that are hidden or come at the wrong time."""

import numpy as np
import torch
from torch import Tensor

_WRONG_TONES = 0.08  # share of the score's tones that are any tone, as in the chroma of a recording
# Chances that spans are hidden, without and with rows: after a gap, the rows tell which tone it is. How many at most, frames at most.
_HIDDEN, _HIDDEN_WITH_ROWS, _SPANS, _SPAN = 0.3, 0.5, 4, 48
_DRIFTING, _DRIFTS, _DRIFT = 0.25, 3, 3  # chance of drift, how many times it changes at most, frames at most


def wrong_tones(tones: Tensor, rng: np.random.Generator) -> Tensor:
    """Some of the pitch classes any."""
    odd = torch.from_numpy(rng.random(tones.shape) < _WRONG_TONES).to(tones.device)
    return torch.where(odd, torch.from_numpy(rng.integers(12, size=tones.shape)).to(tones.device), tones)


def spans(with_rows: np.ndarray, n_frames: int, rng: np.random.Generator) -> Tensor:
    """[B, n_frames] bool: frames whose codes are hidden. with_rows [B] bool."""
    hidden = np.zeros((len(with_rows), n_frames), bool)
    for row in np.flatnonzero(rng.random(len(with_rows)) < np.where(with_rows, _HIDDEN_WITH_ROWS, _HIDDEN)):
        for _ in range(rng.integers(1, _SPANS + 1)):
            first = rng.integers(n_frames)
            hidden[row, first : first + rng.integers(3, _SPAN)] = True
    return torch.from_numpy(hidden)


def drifts(timed: np.ndarray, n_frames: int, rng: np.random.Generator) -> Tensor:
    """[B, n_frames] long: the frame whose codes are shown in the place of each.

    Music of its own making comes a frame early here and late there, and a model that trusts its codes more than the tempo goes
    on from there: asked for 86 bpm it knew the beat by its text to 0.02 of a beat after 5 s, and its music was a beat behind.
    timed [B] bool: only where the text names the tempo can a model know better.
    """
    offsets = np.zeros((len(timed), n_frames), int)
    for row in np.flatnonzero(timed & (rng.random(len(timed)) < _DRIFTING)):
        for _ in range(rng.integers(1, _DRIFTS + 1)):
            offsets[row, rng.integers(n_frames) :] = rng.integers(-_DRIFT, _DRIFT + 1)
    return torch.from_numpy((np.arange(n_frames) + offsets).clip(0, n_frames - 1))
