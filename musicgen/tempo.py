"""Tempo: asked for in a text, and heard in onsets."""

import math
import re

import torch
from torch import Tensor
from torch.nn import functional as F

SLOWEST_BPM, FASTEST_BPM = 30.0, 300.0
_NUMBER = r"(?<![\d.])(\d{2,3}(?:\.\d+)?)"
NAMED = rf"{_NUMBER}[\s-]*(?:bpm|beats (?:per|a) minute)\b|(?:\b(?:bpm|tempo)|템포)\s*:?\s*{_NUMBER}(?!\d)"  # whatever the case
_NAMED = re.compile(NAMED, re.IGNORECASE)
_USUAL_BPM, _SPREAD_OCTAVES = 110.0, 1.0  # where nothing is known of the tempo, as librosa assumes
_NEAR = 1.3  # a tempo that was asked for is looked for within this factor
_BEATS = 4  # a beat is one that comes back after 1, 2, ... of its periods
_LEAST_PULSE = 0.05  # correlation of onsets with themselves a beat later, below which no pulse is heard


def asked_bpm(text: str | None) -> float | None:
    """The tempo that a text names, as in "slow blues, 92 bpm" or "tempo: 92"; None if none, or none between 30 and 300."""
    named = _NAMED.search(text or "")
    bpm = float(named[1] or named[2]) if named else 0.0
    return bpm if SLOWEST_BPM <= bpm <= FASTEST_BPM else None


def pulse_of(onsets: Tensor, frame_s: float, near: float | None = None) -> tuple[float, float] | None:
    """Tempo of onsets [T] of mean 0 in beats a minute, and its confidence: their correlation with themselves a beat later, 0..1.

    None where no pulse is heard, or for less than three beats. near: a tempo that is expected; the one within 30 % of it is given,
    not its half or double. Onsets are held against themselves one to four beats later; the lag is then refined on as many beats as
    there are.
    """
    frames_a_minute = 60 / frame_s
    fit = _self_similarity(onsets)
    longest = 0.7 * len(fit)  # in frames; fewer pairs say little
    low, high = (SLOWEST_BPM, FASTEST_BPM) if near is None else (near / _NEAR, near * _NEAR)
    n_steps = 1 + int(math.log(high / low) / 0.005)
    periods = frames_a_minute / torch.logspace(math.log10(low), math.log10(high), n_steps)
    periods = periods[2 * periods < longest]
    if not len(periods):
        return None
    lags = periods[:, None] * torch.arange(1, _BEATS + 1)
    inside = (lags < longest).float()
    scores = (_at(fit, lags) * inside).sum(dim=1) / inside.sum(dim=1)
    if near is None:
        octaves = (frames_a_minute / periods / _USUAL_BPM).log2() / _SPREAD_OCTAVES
        weighted = scores.clamp(min=0) * torch.exp(-0.5 * octaves**2)
    else:
        weighted = scores
    best = int(weighted.argmax())
    if scores[best] < _LEAST_PULSE:
        return None
    return frames_a_minute / _refined(fit, float(periods[best]), longest), min(1.0, float(scores[best]))


def smoothed(rise: Tensor) -> Tensor:
    """Rises [T], each shared among five frames, and of mean 0."""
    smooth = F.avg_pool1d(rise[None, None], 5, 1, 2)[0, 0]
    return smooth - smooth.mean()


def _self_similarity(onsets: Tensor) -> Tensor:
    """Correlation of the onsets with themselves at each lag, [T]; 1 at lag 0."""
    n = len(onsets)
    fit = torch.fft.irfft(torch.fft.rfft(onsets, 2 * n).abs().square())[:n]
    fit = fit / (n - torch.arange(n)).clamp(min=n // 8)
    return fit / fit[0].clamp(min=1e-9)


def _at(fit: Tensor, lags: Tensor) -> Tensor:
    """Values between frames, by straight lines."""
    below = lags.long().clamp(max=len(fit) - 2)
    return torch.lerp(fit[below], fit[below + 1], (lags - below).clamp(0, 1))


def _refined(fit: Tensor, period: float, longest: float) -> float:
    """The period in frames, from the peak after as many beats as count: an error of a frame is shared among them."""
    n_beats = 1
    while n_beats * period < longest:
        centre, reach = n_beats * period, max(2.0, 0.08 * period)
        first, last = max(1, int(centre - reach)), min(len(fit) - 1, int(centre + reach) + 2)
        top = first + int(fit[first:last].argmax())
        if not first < top < last - 1 or fit[top] < _LEAST_PULSE:
            n_beats += 1
            continue
        before, at, after = (float(fit[top + step]) for step in (-1, 0, 1))
        curve = before - 2 * at + after
        period = (top + (0.5 * (before - after) / curve if curve else 0.0)) / n_beats
        n_beats += 1
    return period
