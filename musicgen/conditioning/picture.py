"""A picture of a melody as the model hears it, or of chords as it is told them."""

import torch
from torch import Tensor

from .chords import Chords
from .melody import Melody

_BACKGROUND, _LINES, _NOTE = (0.07, 0.08, 0.11), (0.16, 0.18, 0.23), (0.96, 0.73, 0.29)
_BLACK_KEYS = (1, 3, 6, 8, 10)
_ROW, _FRAME = 16, 4  # pixels


def chroma_picture(melody: Melody | Chords | None) -> Tensor:
    """One window's notes over time, like a piano roll: [1, H, W, 3] float32 in 0..1, C at the bottom, time to the right.

    None: nothing to show, a black square.
    """
    if melody is None:
        return torch.zeros(1, 12, 12, 3)
    frames = melody.chroma()
    n_frames, n_notes = frames.shape
    picture = torch.empty(n_notes, n_frames, 3)
    for note in range(n_notes):
        picture[note] = torch.tensor(_LINES if note in _BLACK_KEYS else _BACKGROUND)
    picture[frames.T > 0] = torch.tensor(_NOTE)
    enlarged = picture.flip(0).repeat_interleave(_ROW, 0).repeat_interleave(_FRAME, 1)
    enlarged[_ROW - 1 :: _ROW] = torch.tensor(_LINES)
    return enlarged[None]
