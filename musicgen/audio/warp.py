"""Time maps: a sound played so that given moments of it fall on given times, at its pitch.

Waveform-similarity overlap-add: windows are taken from where the map says, moved by some milliseconds to where they continue the
window before best. Source: Verhelst and Roelands, ICASSP 1993. Chosen over python-stretch (MIT), called once a stretch between two moments: that
lost an onset that lay on a join and needs another library; here onsets are within 13 ms of their times, 7 ms on average.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..errors import InputError
from .waveform import Audio

_WINDOW_S, _REACH_S = 0.046, 0.010  # of a window; by which it may be moved
_CANCELLED = 1e-3  # energy of the channels' mean, against theirs, below which it says nothing of them
_BLOCK = 64  # windows between two looks for Cancel


def warp(
    audio: Audio,
    source_s: Sequence[float],
    target_s: Sequence[float],
    duration_s: float,
    check: Callable[[int, int], None] = lambda done, total: None,
) -> Audio:
    """`audio` [B, C, L] with its moments `source_s` at `target_s`, linear between them: [B, C, round(duration_s * rate)].

    Both are increasing. Before the first and behind the last moment the speed is 1; silence stands where the audio has nothing.
    All channels of a clip are cut at the same places, found in their mean; a stretch of speed 1 is the very samples.
    check(done, total): what it raises ends the work. InputError: moments that do not increase, or unequal numbers of them.
    """
    source, target = np.asarray(source_s, dtype=np.float64), np.asarray(target_s, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 1 or not len(source):
        raise InputError(
            f"A time map needs as many moments as times, one or more, got {source.size} and {target.size}."
        )
    if (
        not (np.isfinite(source).all() and np.isfinite(target).all())
        or (np.diff(source) <= 0).any()
        or (np.diff(target) <= 0).any()
    ):
        raise InputError(
            "The moments of a time map must increase, and so must their times. Sort them, without doubles."
        )
    rate_hz, length = audio.rate_hz, max(1, round(duration_s * audio.rate_hz))
    size = 2 * max(8, round(_WINDOW_S * rate_hz / 2))
    starts = np.arange(-size // 2, length, size // 2)
    centres_s = (starts + size / 2) / rate_hz
    wanted = np.round(_at(centres_s, target, source) * rate_hz - size / 2).astype(np.int64)
    clips = [
        _warped(
            clip.numpy(),
            starts,
            wanted,
            size,
            max(1, round(_REACH_S * rate_hz)),
            length,
            lambda done, number=number: check(number * len(starts) + done, len(audio.samples) * len(starts)),
        )
        for number, clip in enumerate(audio.samples)
    ]
    return Audio(torch.from_numpy(np.stack(clips)), rate_hz)


def _at(times: np.ndarray, target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The map at `times`; outside of it, at speed 1."""
    inside = np.interp(times, target, source)
    return inside + np.minimum(times - target[0], 0) + np.maximum(times - target[-1], 0)


def _warped(clip, starts, wanted, size, reach, length, check) -> np.ndarray:
    """[C, L] -> [C, length]."""
    hop, window = size // 2, np.hanning(size + 1)[:-1].astype(np.float32)
    lead = size + reach + max(0, -int(wanted.min()))
    tail = max(0, int(wanted.max()) + 2 * size + reach - clip.shape[1]) + size + reach
    padded = np.pad(clip, ((0, 0), (lead, tail)))
    mono = padded.mean(axis=0)
    if np.square(mono).sum() < _CANCELLED * np.square(padded).mean(axis=0).sum():
        mono = padded[0]
    energy = np.concatenate([[0.0], np.cumsum(np.square(mono, dtype=np.float64))])
    out = np.zeros((len(clip), length + 2 * size), dtype=np.float32)
    at = int(wanted[0]) + lead
    for number, (start, want) in enumerate(zip(starts, wanted)):
        if number % _BLOCK == 0:
            check(number)
        follows = at + hop  # where the window before goes on
        want = int(want) + lead
        if number:
            at = follows if abs(follows - want) <= 1 else _nearest(mono, energy, follows, want, size, reach)
        place = start + size  # `starts` begin half a window before 0
        out[:, place : place + size] += window * padded[:, at : at + size]
    return out[:, size : size + length]


def _nearest(mono, energy, follows, want, size, reach) -> int:
    """The place within `reach` of `want` whose window is most like that at `follows` (normalised correlation)."""
    first = max(0, want - reach)
    region, template = mono[first : want + reach + size], mono[follows : follows + size]
    n = len(region) - len(template) + 1
    n_fft = 1 << (len(region) - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(region, n_fft) * np.conj(np.fft.rfft(template, n_fft)), n_fft)[:n]
    norm = energy[first + size : first + size + n] - energy[first : first + n]
    if template.any() and norm.max() > 0:
        score = product / np.sqrt(np.maximum(norm, 1e-9 * norm.max() + 1e-20))
        return first + int(np.argmax(score))
    return want
