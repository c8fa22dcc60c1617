"""Music laid on the beats of other music: beats matched, and the sound between them stretched.

First one line, source = offset + speed * target, is found on which most beats meet. Then beats next to it are paired, in the chain
of pairs that is longest and steadiest and whose speed stays within bounds. What is in no pair is left out.
"""

import bisect
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..audio import Audio
from ..audio.warp import warp
from ..errors import InputError
from .choices import MAX_STRETCH, THRESHOLD_BEATS

_WIDEST_STRETCH, MAX_THRESHOLD = 2.0, 2.0
_FEWEST = 4  # pairs
_SPEEDS = np.linspace(-0.03, 0.03, 61)  # around the ratio of the tempos
_FINENESS = 16  # offsets that are tried in a beat
_TOLERANCE = 0.25  # of a beat: farther from the line a beat counts for nothing
_UNSTEADY = 2.0  # what a change of speed by e costs, in pairs
_LOOKBACK = 16  # pairs
_MAX_TIMES, _LONGEST_S = 20_000, 36_000.0


@dataclass(frozen=True)
class Beats:
    """Beats of a piece in seconds, increasing. Downbeats may be unknown."""

    beats_s: tuple[float, ...]
    downbeats_s: tuple[float, ...] = ()

    @property
    def period_s(self) -> float:
        """From one beat to the next, as most are; 0 without two beats."""
        return float(np.median(np.diff(self.beats_s))) if len(self.beats_s) > 1 else 0.0

    @classmethod
    def parse(cls, text: str, name: str = "beats") -> "Beats":
        """The report of Hear Music (JSON), or times in seconds by comma or blank. Sorted, without doubles. Empty = none.

        InputError names what is no time.
        """
        if not isinstance(text, str):
            raise InputError(f"'{name}' must be a text, got {type(text).__name__}.")
        words = text.strip()
        if words.startswith("{"):
            try:
                report = json.loads(words)
                return cls(_times(report["beats_s"], name), _times(report.get("downbeats_s", []), name))
            except (ValueError, KeyError, RecursionError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(
                    f"'{name}' is no report of Hear Music: its beats cannot be read. Wire its 'report'."
                ) from error
        return cls(_times(words.replace(",", " ").replace(";", " ").split(), name))


@dataclass(frozen=True)
class Alignment:
    """Pairs of beats, and the map from target to source times through them."""

    source_s: tuple[float, ...]  # increasing, with the ends of the piece
    target_s: tuple[float, ...]
    n_pairs: int
    n_beats: int  # of the target while the source lasts
    speed: float  # of the whole
    moved_s: tuple[float, ...]  # distance of each pair from the line

    def moved(self, times_s: Sequence[float]) -> list[float]:
        """Where moments of the source come to lie. Outside of the map the speed is 1."""
        source, target = np.array(self.source_s), np.array(self.target_s)
        times = np.asarray(times_s, dtype=np.float64)
        inside = np.interp(times, source, target)
        return list(inside + np.minimum(times - source[0], 0) + np.maximum(times - source[-1], 0))

    @property
    def report(self) -> str:
        """A sentence on pairs, speeds and distances."""
        speeds = np.diff(self.source_s) / np.diff(self.target_s)
        moved_ms = 1000 * np.abs(self.moved_s)
        return (
            f"{self.n_pairs} of {self.n_beats} beats are paired. Played {self.speed:.3f} times as fast ({speeds.min():.2f} to "
            f"{speeds.max():.2f}); beats are moved by {moved_ms.mean():.0f} ms besides, at most {moved_ms.max():.0f}."
        )


@dataclass(frozen=True)
class Aligned:
    """The music on the other's beats; as it was, at the same length, where `alignment` is None."""

    audio: Audio
    alignment: Alignment | None
    notices: tuple[str, ...]

    @property
    def report(self) -> str:
        return "\n".join([*([self.alignment.report] if self.alignment else []), *self.notices])


def align(
    audio: Audio,
    beats: Beats,
    target: Beats,
    *,
    threshold_beats: float = THRESHOLD_BEATS,
    max_stretch: float = MAX_STRETCH,
    duration_s: float | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Aligned:
    """`audio` [B, C, L], whose beats are `beats`, with them on those of `target`; `duration_s` long, None = as it was.

    threshold_beats: a beat farther than this from where the whole's speed puts it is not paired. max_stretch: no part is played
    faster or slower than by this factor. A piece of half or double the tempo is aligned by every second beat. What cannot be done
    is a notice. on_step(done, total): what it raises ends the work. InputError: values out of range.
    """
    duration_s = audio.duration_s if duration_s is None else duration_s
    alignment, notices = find_alignment(beats, target, audio.duration_s, duration_s, threshold_beats, max_stretch)
    if alignment is None:
        return Aligned(fitted(audio, duration_s), None, notices)
    return Aligned(warp(audio, alignment.source_s, alignment.target_s, duration_s, on_step), alignment, notices)


def fitted(audio: Audio, duration_s: float) -> Audio:
    """The audio at a length: its end cut off, or silence behind it."""
    return warp(audio, [0.0], [0.0], duration_s)


def find_alignment(
    beats: Beats, target: Beats, length_s: float, duration_s: float, threshold_beats: float, max_stretch: float
) -> tuple[Alignment | None, tuple[str, ...]]:
    """The map for music of `length_s` and `duration_s` of result; None, with a notice, where there is none."""
    _check("threshold_beats", threshold_beats, 0.01, MAX_THRESHOLD)
    _check("max_stretch", max_stretch, 1.0, _WIDEST_STRETCH)
    for what, given in (("the music", beats), ("the other music", target)):
        if len(given.beats_s) < _FEWEST:
            n = len(given.beats_s)
            return None, (f"{n or 'No'} beats of {what} are known, and {_FEWEST} are needed: nothing is moved.",)
    source_s, target_s = _same_level(np.array(beats.beats_s), np.array(target.beats_s))
    ratio = _period(source_s) / _period(target_s)
    if not 1 / max_stretch <= ratio <= max_stretch:
        tempos = " and ".join(f"{60 / _period(times):.1f}" for times in (source_s, target_s))
        return None, (
            f"The tempos, {tempos} beats a minute, differ by more than a factor of {max_stretch:g}: nothing is moved.",
        )
    offset, speed = _line(source_s, target_s, ratio, beats, target)
    pairs = _pairs(source_s, target_s, offset, speed, threshold_beats, max_stretch)
    if len(pairs) >= _FEWEST:  # once more, from the line through the pairs themselves
        speed, offset = np.polyfit([target_s[i] for i, _ in pairs], [source_s[j] for _, j in pairs], 1)
        pairs = _pairs(source_s, target_s, offset, speed, threshold_beats, max_stretch)
    pairs = [(i, j) for i, j in pairs if target_s[i] < duration_s]
    if len(pairs) < _FEWEST:
        return None, ("Hardly any beats of the two meet: nothing is moved.",)
    sources, targets = [float(source_s[j]) for _, j in pairs], [float(target_s[i]) for i, _ in pairs]
    moved = [s - offset - speed * t for s, t in zip(sources, targets)]
    n_beats = int(sum(0 <= offset + speed * t <= length_s and t < duration_s for t in target_s))
    sources, targets = _with_ends(sources, targets, length_s, duration_s, float(speed), max_stretch, _period(target_s))
    notices = []
    last_speed = (sources[-1] - sources[-2]) / (targets[-1] - targets[-2])
    missing_s = duration_s - targets[-1] + (sources[-1] - length_s) / (last_speed if sources[-1] > length_s else 1)
    if missing_s > 0.05:
        notices.append(f"The music ends {missing_s:.2f} s early: silence stands behind it. Make it longer.")
    return Alignment(
        tuple(sources), tuple(targets), len(pairs), max(n_beats, len(pairs)), float(speed), tuple(moved)
    ), tuple(notices)


def _check(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InputError(f"'{name}' must be a number from {low:g} to {high:g}, got {value!r}.")


def _times(values: Sequence, name: str) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)) or len(values) > _MAX_TIMES:
        raise InputError(f"'{name}' must hold times in seconds, at most {_MAX_TIMES}.")
    times = []
    for value in values:
        try:
            time_s = float(value)
        except (TypeError, ValueError):
            time_s = math.nan
        if not 0 <= time_s <= _LONGEST_S:
            raise InputError(
                f"'{name}' holds {str(value)[:40]!r}, which is no time in seconds. Write times such as 0.5, 1.02, 1.49."
            )
        times.append(time_s)
    return tuple(sorted(set(times)))


def _period(times_s: np.ndarray) -> float:
    return float(np.median(np.diff(times_s)))


def _same_level(source_s: np.ndarray, target_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beats of both at the nearer of the same, half and double tempo: the slower one's are halved."""
    ratio = _period(source_s) / _period(target_s)
    if ratio > 2**0.5:
        return _halved(source_s), target_s
    return (source_s, _halved(target_s)) if ratio < 2**-0.5 else (source_s, target_s)


def _halved(times_s: np.ndarray) -> np.ndarray:
    return np.sort(np.concatenate([times_s, (times_s[1:] + times_s[:-1]) / 2]))


def _line(source_s: np.ndarray, target_s: np.ndarray, ratio: float, beats: Beats, target: Beats) -> tuple[float, float]:
    """(offset, speed) of the line on which most beats meet, downbeats among themselves, with the least offset."""
    period = _period(source_s)
    downs = [np.array(each.downbeats_s) for each in (beats, target)]
    meter = (
        round(float(np.median(np.diff(target.downbeats_s))) / _period(target_s)) if len(target.downbeats_s) > 1 else 4
    )
    reach = max(1, min(meter, 8)) / 2
    offsets = np.arange(-round(reach * _FINENESS), round(reach * _FINENESS) + 1) * period / _FINENESS
    best = (-math.inf, 0.0, ratio)
    for speed in ratio * (1 + _SPEEDS):
        at = speed * target_s[None, :] + offsets[:, None]
        score = _meeting(source_s, at, period)
        if min(map(len, downs)) > 1:
            score = score + 0.5 * _meeting(downs[0], speed * downs[1][None, :] + offsets[:, None], period)
        score = score - 0.02 * np.abs(offsets) / period
        number = int(score.argmax())
        best = max(best, (float(score[number]), float(offsets[number]), float(speed)))
    return best[1], best[2]


def _meeting(source_s: np.ndarray, at: np.ndarray, period: float) -> np.ndarray:
    """How well times [offsets, n] lie on beats: 1 = all on one, 0 = all a quarter beat off or more. Times behind the last do not count."""
    right = np.clip(np.searchsorted(source_s, at), 1, len(source_s) - 1)
    distance = np.minimum(np.abs(source_s[right] - at), np.abs(at - source_s[right - 1]))
    counted = (at > source_s[0] - period) & (at < source_s[-1] + period)
    hits = np.maximum(0, 1 - distance / (_TOLERANCE * period)) * counted
    return hits.sum(axis=1) / np.maximum(counted.sum(axis=1), at.shape[1] / 2)


def _pairs(
    source_s: np.ndarray, target_s: np.ndarray, offset: float, speed: float, threshold_beats: float, max_stretch: float
) -> list[tuple[int, int]]:
    """(target, source) numbers of the chain of pairs with the most of them, less what its changes of speed cost."""
    reach, beats = threshold_beats * _period(source_s), list(source_s)
    found: list[tuple[int, int]] = []
    for i, time_s in enumerate(target_s):
        at = offset + speed * time_s
        found += [(i, j) for j in range(bisect.bisect_left(beats, at - reach), bisect.bisect_right(beats, at + reach))]
    limit = math.log(max_stretch) + 1e-9
    value, before = [1.0] * len(found), [-1] * len(found)
    for number, (i, j) in enumerate(found):
        for earlier in range(max(0, number - _LOOKBACK), number):
            i0, j0 = found[earlier]
            if i0 >= i or j0 >= j:
                continue
            change = math.log((source_s[j] - source_s[j0]) / (target_s[i] - target_s[i0]))
            gain = value[earlier] + 1 - _UNSTEADY * abs(change - math.log(speed))
            if abs(change) <= limit and gain > value[number]:
                value[number], before[number] = gain, earlier
    chain, number = [], max(range(len(found)), key=value.__getitem__) if found else -1
    while number >= 0:
        chain.append(found[number])
        number = before[number]
    return chain[::-1]


def _with_ends(
    sources: list[float],
    targets: list[float],
    length_s: float,
    duration_s: float,
    speed: float,
    max_stretch: float,
    beat_s: float,
) -> tuple[list[float], list[float]]:
    """The pairs with the piece's ends, at the whole's speed; of less than a beat, slower where that lets the music fill it."""

    def rate(music_s: float, room_s: float) -> float:
        fills = music_s / room_s if room_s < beat_s else speed
        return min(speed, max(fills, 1 / max_stretch)) if speed > 1 / max_stretch else speed

    if targets[0] > 1e-3:
        sources, targets = [sources[0] - rate(sources[0], targets[0]) * targets[0], *sources], [0.0, *targets]
    left_s, room_s = length_s - sources[-1], duration_s - targets[-1]
    if room_s > 1e-3 and left_s > 1e-3:
        sources, targets = [*sources, sources[-1] + rate(left_s, room_s) * room_s], [*targets, duration_s]
    assert all(a < b for a, b in itertools.pairwise(sources)) and all(a < b for a, b in itertools.pairwise(targets))
    return sources, targets
