"""Overlapping windows of a long signal, and the crossfades that join their results."""

import torch
from torch import Tensor


def plan_windows(n_frames: int, longest: int, overlap: int) -> list[tuple[int, int]]:
    """(first, last + 1) of windows of about one length, at most `longest` frames, that overlap by `overlap` or more."""
    if n_frames <= longest:
        return [(0, n_frames)]
    n_windows = -(-(n_frames - overlap) // (longest - overlap))
    length = -(-(n_frames + (n_windows - 1) * overlap) // n_windows)
    starts = [round(i * (n_frames - length) / (n_windows - 1)) for i in range(n_windows)]
    return [(start, start + length) for start in starts]


def write_crossfaded(out: Tensor, piece: Tensor, start: int, written: int, fade: int) -> None:
    """Write piece [B, n] into out [B, L] at sample `start`; samples before `written` hold the previous window.

    The crossfade covers `fade` samples in the middle of the overlap, away from the edges of both windows.
    """
    end = start + piece.shape[-1]
    if written <= start:
        out[:, start:end] = piece
        return
    first = (start + written - fade) // 2
    ramp = (torch.arange(fade, device=out.device, dtype=out.dtype) + 0.5) / fade
    out[:, first : first + fade].lerp_(piece[:, first - start : first - start + fade], ramp)
    out[:, first + fade : end] = piece[:, first - start + fade :]
