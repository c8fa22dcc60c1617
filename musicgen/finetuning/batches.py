"""What each update learns: a function of the seed and its number alone, so that a training goes on where it was."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..seeds import row_seed
from .encoding import Encoded

_MELODY_SHOWN = 0.5  # of clips with a melody model, as audiocraft's configuration drops the other half
_TAIL = 0.15  # of each track is held out where there are too few tracks to hold out whole ones
_FEW_TRACKS = 4


@dataclass(frozen=True)
class Window:
    """A stretch of a track, and how it is conditioned."""

    codes: Tensor  # [K, T] int16
    states: Tensor
    chroma: Tensor | None  # [F], of the window; None: no melody is shown
    drop_text: bool = False
    by_base: bool = False  # the base's own music


@dataclass(frozen=True)
class Split:
    """Tracks that are learned, and tracks that are not."""

    learned: list[Encoded]
    held_out: list[Encoded]
    by_track: bool  # False: ends of the learned tracks are held out


def split_tracks(tracks: Sequence[Encoded], seed: int) -> Split:
    """Hold out 10 % of the clips, two at least, as they are; of fewer than four clips, the end of each.

    Tracks of one name are variants of one clip: none of a clip that is held out is learned.
    """
    names = list(dict.fromkeys(track.name for track in tracks))
    if len(names) < _FEW_TRACKS:
        learned, held = [], []
        for track in tracks:
            at = track.codes.shape[-1] - max(1, round(_TAIL * track.codes.shape[-1]))
            learned.append(_part(track, 0, at))
            if track.variant == 0:
                held.append(_part(track, at, track.codes.shape[-1]))
        return Split(learned, held, False)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed & (2**63 - 1))).tolist()
    held_out = {names[i] for i in order[: max(2, round(0.1 * len(names)))]}
    return Split(
        [track for track in tracks if track.name not in held_out],
        [track for track in tracks if track.name in held_out and track.variant == 0],
        True,
    )


def _part(track: Encoded, first: int, last: int) -> Encoded:
    classes = track.chroma
    if classes is not None:
        a, b = (int(edge / track.frames_a_class) for edge in (first, last))
        classes = classes[min(a, len(classes) - 1) : max(b, a + 1)]
    return replace(track, codes=track.codes[:, first:last], chroma=classes)


def windows_of(tracks: Sequence[Encoded], n_frames: int, n_chroma: int, at_most: int) -> list[Window]:
    """Windows for measuring: from each track in turn one after the other, `at_most` in all, always the same."""
    cuts = [range(0, max(1, track.codes.shape[-1] - n_frames // 4), n_frames) for track in tracks]
    windows = []
    for number in range(max(len(cut) for cut in cuts)):
        for track, cut in zip(tracks, cuts, strict=True):
            if number < len(cut) and len(windows) < at_most:
                windows.append(_window(track, cut[number], n_frames, n_chroma, False, False))
    return windows


def batch(
    learned: Sequence[Encoded], base: Sequence[Encoded], step: int, seed: int, size: int, n_frames: int, n_chroma: int,
    cfg_p: float, keep_base: float,
) -> list[Window]:  # fmt: skip
    """The clips of update `step`. Each second of music is as likely as another; `keep_base` of the clips are the base's own."""
    generator = torch.Generator().manual_seed(mixed(seed, step))
    chances = torch.tensor([float(track.codes.shape[-1]) for track in learned])
    windows = []
    for _ in range(size):
        own, dropped, shown, at, which = torch.rand(5, generator=generator).tolist()
        track = learned[int(torch.multinomial(chances, 1, generator=generator))]
        by_base = bool(base) and own < keep_base
        if by_base:
            track = base[int(which * len(base))]
        room = max(0, track.codes.shape[-1] - n_frames)
        window = _window(track, int(at * (room + 1)), n_frames, n_chroma, dropped < cfg_p, shown < _MELODY_SHOWN)
        windows.append(replace(window, by_base=by_base))
    return windows


def mixed(seed: int, step: int) -> int:
    """A seed of its own for each update."""
    return row_seed(seed, step + 1) & (2**63 - 1)


def _window(track: Encoded, first: int, n_frames: int, n_chroma: int, drop_text: bool, melody: bool) -> Window:
    last = min(first + n_frames, track.codes.shape[-1])
    classes = None
    if melody and track.chroma is not None and not drop_text:
        a = min(int(first / track.frames_a_class), len(track.chroma) - 1)
        b = max(a + 1, math.ceil(last / track.frames_a_class))
        part = track.chroma[a:b]
        classes = part.repeat(math.ceil(n_chroma / len(part)))[:n_chroma]
    return Window(track.codes[:, first:last], track.states, classes, drop_text)
