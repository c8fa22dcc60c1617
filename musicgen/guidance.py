"""What the language model is asked in one window: streams of the texts that count there, and of guidance's null side.

The model is asked about each text in a row of its own. A weighted sum of logits whose weights sum to 1 is, after softmax, the
weighted geometric mean of the distributions (a product of experts): codes that every text allows are kept.
Source: composition of conditions in guided models, arXiv:2206.01714, section 3; products of experts, Hinton 2002.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from .conditioning import Conditioning, Mixture, Share
from .config import GenerationParams, ModelConfig
from .faults import Asked
from .lm import Stream
from .tempo import asked_bpm
from .windows import Window, plan_windows, to_frames

Streams = Callable[[Conditioning], list[Stream]]  # of one conditioning in the window
_INSTANT_S = 1e-4
Group = tuple[float, list[Stream]]  # a weight, and a stream a row


@dataclass(frozen=True)
class Mix:
    """Groups of B rows each, side by side in one run: those of the texts, then those of the null side of guidance.

    conditional: a weight for each text. What they lack to 1 falls on the null side. null: likewise, empty without guidance.
    """

    conditional: tuple[float, ...]
    null: tuple[float, ...] = ()

    def __call__(self, logits: Tensor) -> Tensor:
        """[groups * B, ...] -> [conditional; null] [2 B, ...] for `guide`, or [B, ...] without a null side."""
        groups = logits.chunk(len(self.conditional) + len(self.null))
        n = len(self.conditional)
        conditional = _weighted(groups[:n], self.conditional)
        if not self.null:
            return conditional
        null = _weighted(groups[n:], self.null)
        rest = 1 - sum(self.conditional)
        if abs(rest) > 1e-9:
            conditional = conditional + rest * null
        return torch.cat([conditional, null])


@dataclass(frozen=True)
class Guided:
    """The streams of one run. `null` None = no guidance; `mix` None = one text on each side."""

    conditional: list[Stream]
    null: list[Stream] | None
    mix: Mix | None = None

    @property
    def n_texts(self) -> int:
        return len(self.mix.conditional) if self.mix else 1


def guided(positive: Sequence[Share], negative: Sequence[Share] | None, cfg: float, streams: Streams) -> Guided:
    """Streams of the shares of one moment. negative None = the reference's null rows, those of the heaviest text."""
    texts = _merged(positive, streams)
    if negative is None:
        heaviest = max((pair for share in positive for pair in share.weights()), key=lambda pair: pair[0])[1]
        nulls: list[Group] = [(1.0, streams(heaviest.null()))]
    else:
        told = [replace(share, conditioning=replace(share.conditioning, keys=())) for share in negative]
        nulls = _merged(told, streams)
    if cfg == 1 or _same(texts, nulls):
        nulls = []  # null + (conditional - null) * cfg is the conditional itself
    if len(nulls) == 1:  # what falls on the null side anyway needs no row of its own
        texts = [group for group in texts if not _equal(group[1], nulls[0][1])]
    conditional = [stream for _, group in texts for stream in group]
    null = [stream for _, group in nulls for stream in group] or None
    weights, null_weights = (tuple(weight for weight, _ in groups) for groups in (texts, nulls))
    is_plain = weights == (1.0,) and null_weights in ((), (1.0,))
    return Guided(conditional, null, None if is_plain else Mix(weights, null_weights))


def n_groups(conditioning: Conditioning | Mixture, duration_s: float) -> int:
    """Texts, at most, that one moment of the piece has, with and without their words."""
    moments = [conditioning.at(time_s, duration_s) for time_s in (0.0, *conditioning.changes(duration_s))]
    return max(sum(len(share.weights()) for share in shares) for shares in moments)


def planned(
    config: ModelConfig,
    params: GenerationParams,
    n_prompt: int,
    positive: Conditioning | Mixture,
    negative: Conditioning | Mixture | None,
) -> tuple[list[Window], list[Conditioning | Mixture]]:
    """The windows of a piece, cut where a text changes, and what each follows: `positive`, without asking for an end before the last.

    Where no anchor is asked for, windows have the model's own, unless a text changes: it would hold the music to what was.
    A text that asks for an end in every window had 7 s of music and then silence, for as long as the piece was meant to be.
    """
    if n_prompt and any(leaf.keys for leaf in positive.leaves()):  # a clip that is continued has a key of its own
        positive = positive.mapped(lambda leaf: replace(leaf, keys=()))
    rate_hz = config.codec.frame_rate_hz
    cuts = changes([positive, negative], params.duration_s, rate_hz)
    ends = any(asks_for_an_end(positive, params.duration_s, positive.n_rows))
    if config.change_s is not None:
        windows = cut_windows(
            sectioned(config, params, n_prompt, other_texts(positive, cuts, params.duration_s, rate_hz), ends), cuts
        )
    else:
        anchored = params if cuts else _anchored(config, params)
        windows = cut_windows(plan_windows(config, anchored, n_prompt, ends), cuts)
    last = windows[-1].start + windows[-1].n_known
    going_on = positive.mapped(Conditioning.going_on) if any(leaf.goes_on for leaf in positive.leaves()) else positive
    return windows, [positive if window.start + window.n_known >= last else going_on for window in windows]


def asks_for_an_end(conditioning: Conditioning | Mixture, duration_s: float, n_rows: int) -> list[bool]:
    """Of each row, whether a text that it follows at the end of the piece asks for one."""
    told = [share.conditioning.goes_on for share in conditioning.at(duration_s, duration_s)]
    return [any(rows and rows[row % len(rows)] is not None for rows in told) for row in range(n_rows)]


def asked_for(conditioning: Conditioning | Mixture, duration_s: float, n_rows: int, n_given: int) -> list[Asked]:
    """What the texts of each row ask for that can be told from codes. n_given: frames of a clip that is continued.

    A clip, a melody and chords have a tempo of their own, which the music follows.
    """
    ends = asks_for_an_end(conditioning, duration_s, n_rows)
    timed = n_given == 0 and all(leaf.melody is None for leaf in conditioning.leaves())
    tempos = [_tempos(conditioning, duration_s, row) if timed else () for row in range(n_rows)]
    return [Asked(end, tempo, n_given) for end, tempo in zip(ends, tempos, strict=True)]


def _tempos(
    conditioning: Conditioning | Mixture, duration_s: float, row: int
) -> tuple[tuple[float, float, float], ...]:
    """(from, to, beats a minute) of the time in which the texts of a row name one tempo, in seconds."""
    edges = [0.0, *(time_s for time_s in conditioning.changes(duration_s) if 0 < time_s < duration_s), duration_s]
    spans: list[tuple[float, float, float]] = []
    for start, end in pairwise(edges):
        words = [share.conditioning.words for share in conditioning.at((start + end) / 2, duration_s)]
        named = {asked_bpm(each[row % len(each)]) for each in words if each} - {None}
        bpm = named.pop() if len(named) == 1 else None
        if bpm is None:
            continue
        if spans and spans[-1][1] == start and spans[-1][2] == bpm:
            start = spans.pop()[0]
        spans.append((start, end, bpm))
    return tuple(spans)


def changes(conditionings: Sequence[Conditioning | Mixture | None], duration_s: float, rate_hz: float) -> list[int]:
    """Frames, ascending, at which any of the conditionings changes."""
    times = {time_s for each in conditionings if each is not None for time_s in each.changes(duration_s)}
    return sorted({to_frames(time_s, rate_hz) for time_s in times})


def other_texts(
    conditioning: Conditioning | Mixture, frames: Sequence[int], duration_s: float, rate_hz: float
) -> list[int]:
    """Those of the frames, ascending, from which another text holds: not the same one with another weight, or asking for an end."""

    def texts(frame: float) -> list[Tensor]:
        shares = conditioning.at(frame / rate_hz, duration_s)
        return [row for share in shares for row in share.conditioning.going_on().text]

    def same(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
        return len(before) == len(after) and all(map(torch.equal, before, after))

    return [frame for frame in frames if not same(texts(frame - 1), texts(frame + 1))]


def sectioned(
    config: ModelConfig, params: GenerationParams, n_prompt: int, frames: Sequence[int], ends: bool = False
) -> list[Window]:
    """Windows of which none sees more than `config.change_s` of what was before the last of these frames of the piece, ascending.

    A model of short windows goes on as before if it sees more of that than of its text. Its own anchor is the beginning of what
    the text holds for.
    """
    rate_hz = config.codec.frame_rate_hz
    total, seen = to_frames(params.duration_s, rate_hz), to_frames(config.change_s or 0.0, rate_hz)
    windows, within = [], [0, *(frame for frame in frames if 0 < frame < total), total]
    for first, until in pairwise(within):
        if until <= n_prompt:
            continue
        start, own = max(0, first - seen), _anchored(config, params)
        part = replace(own, duration_s=(until - start) / rate_hz)
        windows += [
            replace(window, start=start + window.start, anchor=first if window.n_anchor and own is not params else 0)
            for window in plan_windows(config, part, max(first, n_prompt) - start, ends and until == total)
        ]
    return windows


def _anchored(config: ModelConfig, params: GenerationParams) -> GenerationParams:
    """With the model's own anchor, where none is asked for and the stride has room for it."""
    if params.anchor_s or params.extend_stride_s <= 2 * config.anchor_s:
        return params
    return replace(params, anchor_s=config.anchor_s)


def cut_windows(windows: Sequence[Window], frames: Sequence[int]) -> list[Window]:
    """Each window in parts that end at these frames of the piece, ascending: the same start, more and more that is known.

    A part sees all that its window has of the music before, as if it were continued there.
    """
    parts = []
    for window in windows:
        for frame in frames:
            if window.n_known < frame - window.start < window.n_frames:
                parts.append(replace(window, n_frames=frame - window.start))
                window = replace(window, n_known=frame - window.start)
        parts.append(window)
    return parts


def new_start_s(window: Window, rate_hz: float) -> float:
    """The moment within the first frame that a window adds. The text of that moment is the window's."""
    return (window.start + window.n_known + 1) / rate_hz - _INSTANT_S


def _merged(shares: Sequence[Share], streams: Streams) -> list[Group]:
    """A group for each text, its weights added where it comes more than once; the heaviest first."""
    groups: list[Group] = []
    for weight, conditioning in (pair for share in shares for pair in share.weights()):
        new = streams(conditioning)
        at = next((i for i, (_, group) in enumerate(groups) if _equal(group, new)), None)
        if at is None:
            groups.append((weight, new))
        else:
            groups[at] = (groups[at][0] + weight, groups[at][1])
    groups = [(round(weight, 9), group) for weight, group in groups]
    return sorted((group for group in groups if group[0] != 0), key=lambda group: -group[0])


def _same(texts: Sequence[Group], nulls: Sequence[Group]) -> bool:
    return len(texts) == len(nulls) and all(a[0] == b[0] and _equal(a[1], b[1]) for a, b in zip(texts, nulls))


def _equal(left: Sequence[Stream], right: Sequence[Stream]) -> bool:
    return all(
        torch.equal(a.prefix, b.prefix) and torch.equal(a.cross, b.cross) for a, b in zip(left, right, strict=True)
    )


def _weighted(groups: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of the groups, in their order; a single one of weight 1 is itself."""
    total = groups[0] * weights[0] if weights[0] != 1 else groups[0]
    for group, weight in zip(groups[1:], weights[1:], strict=True):
        total = total + weight * group
    return total
