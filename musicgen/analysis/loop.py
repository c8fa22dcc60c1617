"""A seamless loop of so many bars, out of a longer piece."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..audio import Audio
from ..codes import Codes
from ..errors import InputError
from .bands import band_levels_db
from .seam import Jump, crossfaded, jump_at, likeness
from .tempo import measure_bpm

CROSSFADE_MS, MAX_CROSSFADE_MS = 30.0, 500.0
FOLLOWED = 0.02  # a tempo is followed that is off by no more
_SLACK = 0.015  # of the length, within which the end is looked for: a tempo is measured about as exactly
_HOP_S, _WINDOW_S = 0.01, 0.04
_CONTEXT_S = 0.5  # around both places, in which they should be alike
_N_TRIED, _APART_S = 24, 0.05  # candidates that are cut and measured
_CODEBOOKS = (0.4, 0.3, 0.2, 0.1)  # what the agreement of each is worth; later ones are detail


@dataclass(frozen=True)
class Loop:
    """A loop and what was measured of it."""

    audio: Audio  # [1, C, L]
    start_s: float  # in the piece
    bpm: float  # at which it is exactly as many bars long as asked for
    heard_bpm: float | None  # of the whole piece; None = no pulse was heard
    correlation: float  # of the sound on both sides of the join, -1..1
    join: Jump


def make_loop(
    audio: Audio,
    bars: int,
    meter: int = 4,
    bpm: float = 0.0,
    crossfade_ms: float = CROSSFADE_MS,
    codes: Codes | None = None,
    check: Callable[[], None] | None = None,
) -> Loop:
    """Cut a loop of `bars` bars of `meter` beats out of one clip [1, C, L].

    bpm: tempo that was asked for; the loop follows the one that is heard within 30 % of it. 0 = any that is heard.
    codes: those that the clip was decoded from; places where they agree are preferred. check is called now and then; what
    it raises ends the work.
    InputError: several clips, no tempo, a piece too short, or codes of another piece.
    """
    if len(audio.samples) != 1:
        raise InputError(
            f"'audio' holds {len(audio.samples)} clips, and a loop is made of one. Choose one with MusicGen Takes."
        )
    _check_codes(audio, codes)
    heard = measure_bpm(audio, bpm or None)
    if not (heard or bpm):
        raise InputError("'bpm' is 0 (measured), but no pulse is heard in 'audio'. Give the tempo.")
    n_fade = round(crossfade_ms / 1000 * audio.rate_hz)
    length = 60 * bars * meter / (heard or bpm) * audio.rate_hz
    longest = audio.n_samples - n_fade
    if length > longest:
        needed_s = (length + n_fade) / audio.rate_hz
        raise InputError(
            f"{bars} bars of {meter} beats at {heard or bpm:.1f} bpm take {length / audio.rate_hz:.2f} s, and with "
            f"what the crossfade needs past the end {needed_s:.2f} s, but 'audio' is {audio.duration_s:.2f} s long. "
            f"Generate {1.1 * needed_s:.0f} s or more, or ask for fewer bars."
        )
    best: Loop | None = None
    for start, n_samples, correlation in _candidates(audio, length, longest, codes):
        if check is not None:
            check()
        samples = crossfaded(audio.samples[0], start, n_samples, n_fade)
        join = jump_at(samples.mean(dim=0), audio.rate_hz, 0, n_fade)
        found_bpm = 60 * bars * meter * audio.rate_hz / n_samples
        loop = Loop(Audio(samples[None], audio.rate_hz), start / audio.rate_hz, found_bpm, heard, correlation, join)
        if best is None or _cost(loop) < _cost(best):
            best = loop
    assert best is not None
    return best


def _cost(loop: Loop) -> float:
    return max(loop.join.level_percentile, loop.join.spectrum_percentile) / 100 - 0.5 * loop.correlation


def _check_codes(audio: Audio, codes: Codes | None) -> None:
    if codes is None:
        return
    if len(codes.codes) != 1:
        raise InputError(f"'codes' holds {len(codes.codes)} clips, but 'audio' is one. Give the codes of that clip.")
    if abs(codes.duration_s - audio.duration_s) > 0.1:
        raise InputError(
            f"'codes' are {codes.duration_s:.2f} s long, but 'audio' is {audio.duration_s:.2f} s. "
            "Connect the codes that 'audio' was decoded from, uncut."
        )


def _candidates(audio: Audio, length: float, longest: int, codes: Codes | None) -> Iterator[tuple[int, int, float]]:
    """(start, length, correlation) in samples of the loops that promise most, about `length` and at most `longest`."""
    mono, hop = audio.samples[0].mean(dim=0), round(_HOP_S * audio.rate_hz)
    costs, lags = _costs(mono, audio.rate_hz, hop, length, longest, codes)
    apart = round(_APART_S / _HOP_S)
    for _ in range(_N_TRIED):
        index = int(costs.argmin())
        row, column = divmod(index, costs.shape[1])
        if not torch.isfinite(costs[row, column]):
            return
        costs[:, max(0, column - apart) : column + apart + 1] = torch.inf
        start, n_samples = column * hop, min(lags[row] * hop, longest - column * hop)
        moved, correlation = likeness(mono, audio.rate_hz, start, start + n_samples, hop)
        yield start, min(n_samples + moved, longest - start), correlation


def _costs(
    mono: Tensor, rate_hz: int, hop: int, length: float, longest: int, codes: Codes | None
) -> tuple[Tensor, list[int]]:
    """What is against a loop of each length (lags in frames) from each frame: [lags, T], infinite where none fits."""
    levels = band_levels_db(mono, rate_hz, hop, round(_WINDOW_S * rate_hz))
    levels = levels.clamp(min=float(levels.max()) - 60)
    change = F.pad((levels[1:] - levels[:-1]).abs().mean(dim=1), (1, 0))
    low, high = round((1 - _SLACK) * length / hop), round((1 + _SLACK) * length / hop)
    lags = [lag for lag in range(low, high + 1) if lag * hop <= longest] or [int(length) // hop]
    scale, change_scale = (levels - levels.mean(dim=0)).abs().mean().clamp(min=0.1), change.mean().clamp(min=0.01)
    costs = torch.full((len(lags), len(levels)), torch.inf)
    for row, lag in enumerate(lags):
        last = min(len(levels) - lag, (longest - lag * hop) // hop + 1)
        unlike = (levels[lag:] - levels[: len(levels) - lag]).abs().mean(dim=1) / scale
        steady = (change[lag:] + change[: len(change) - lag]) / (2 * change_scale)
        cost = _smooth(unlike) + 0.5 * steady
        if codes is not None:
            cost = cost - _smooth(_agreement(codes, lag * hop / rate_hz, len(cost), hop / rate_hz))
        costs[row, :last] = cost[:last]
    return costs, lags


def _smooth(values: Tensor) -> Tensor:
    """Means over _CONTEXT_S around each frame, or what there is of it: [T]."""
    width = 2 * round(_CONTEXT_S / _HOP_S / 2) + 1
    return F.avg_pool1d(values[None, None], width, 1, width // 2, count_include_pad=False)[0, 0]


def _agreement(codes: Codes, lag_s: float, n_frames: int, frame_s: float) -> Tensor:
    """How far the codes at each of `n_frames` times agree with those `lag_s` later, [n_frames] in 0..1."""
    weights = torch.tensor(_CODEBOOKS)[: codes.codes.shape[1]]
    times = (torch.arange(n_frames) * frame_s * codes.frame_rate_hz).long().clamp(max=codes.n_frames - 1)
    later = (times + round(lag_s * codes.frame_rate_hz)).clamp(max=codes.n_frames - 1)
    rows = codes.codes[0, : len(weights)]
    return ((rows[:, times] == rows[:, later]).float() * weights[:, None]).sum(dim=0)
