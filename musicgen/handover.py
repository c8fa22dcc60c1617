"""What a run of one window takes from the piece, gives it, and reports as of the whole piece: progress, and finished frames."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .lm import OnFrames
from .windows import Window

OnStep = Callable[[int, int], None]


def known(piece: Tensor | None, window: Window) -> Tensor | None:
    """The frames that a window sees of the piece [B, K, T] so far: its anchor, and what lies behind that in its range. None if it sees none."""
    if piece is None or not window.n_known:
        return None
    anchor = piece[..., window.anchor : window.anchor + window.n_anchor]
    return torch.cat([anchor, piece[..., window.start + window.n_anchor :]], dim=-1)


def joined(piece: Tensor, codes: Tensor, window: Window) -> Tensor:
    """The piece [B, K, T] with the codes of a window, whose anchor it has elsewhere."""
    return torch.cat([piece[..., : window.start + window.n_anchor], codes[..., window.n_anchor :]], dim=-1)


def within(on_step: OnStep | None, window: Window, windows: Sequence[Window]) -> OnStep | None:
    """Convert progress of one window to progress over the piece, in frames."""
    if on_step is None:
        return None
    first = windows[0].start + windows[0].n_known
    total = windows[-1].start + windows[-1].n_frames - first
    before = window.start + window.n_known - first
    new = window.n_frames - window.n_known

    def report(done: int, steps: int) -> None:
        on_step(before + new * done // steps, total)

    return report


def from_start(on_frames: OnFrames | None, before: Tensor | None, window: Window) -> OnFrames | None:
    """Convert frames of a window to frames of the piece, of which `before` holds what lies ahead of it."""
    if on_frames is None or before is None:
        return on_frames
    start, own = window.start, window.start + window.n_anchor  # an anchor's frames are earlier ones

    def hand_over(n_frames: int, read: Callable[[int, int], Tensor]) -> None:
        def read_piece(first: int, last: int) -> Tensor:
            ahead = before[..., first : min(last, own)]
            return ahead if last <= own else torch.cat([ahead, read(max(first, own) - start, last - start)], dim=-1)

        on_frames(start + n_frames, read_piece)

    return hand_over
