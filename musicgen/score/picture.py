"""A picture of a score: a piano roll of its parts with the melody, bar lines and chord symbols."""

import numpy as np
import torch
from torch import Tensor

from ..dependencies import require
from .score import Note, Score

_BACKGROUND, _LINES, _BAR, _TEXT = (18, 20, 28), (32, 36, 47), (66, 73, 92), (226, 229, 236)
_NOTE, _MELODY = (74, 96, 134), (245, 186, 74)
_BLACK_KEYS = (1, 3, 6, 8, 10)
_PER_QUARTER, _NARROWEST, _WIDEST = 16, 480, 4000  # pixels
_BAND, _ROW = 24, 10  # pixels of a line of text, of a semitone
_LEAST_PITCHES = 24
_MOST_LINES = 1000  # bar lines


def score_picture(score: Score, melody: tuple[Note, ...]) -> Tensor:
    """[1, H, W, 3] float32 in 0..1, time to the right in quarter notes: all parts but drums, and the melody over them."""
    pillow = require("PIL.Image", "The picture of a score", "pillow")
    drawing = require("PIL.ImageDraw", "The picture of a score", "pillow")
    notes = [note for part in score.parts if not part.is_drums for note in part.notes]
    pitches = [note.pitch for note in (*notes, *melody)] or [60]
    low = min(pitches) - 2
    high = max(max(pitches) + 3, low + _LEAST_PITCHES)
    length = max(float(score.length), 1e-6)
    width = round(min(max(_PER_QUARTER * length, _NARROWEST), _WIDEST))
    bottom = _BAND + _ROW * (high - low)
    image = pillow.new("RGB", (width, bottom + _BAND), _BACKGROUND)
    draw = drawing.Draw(image)

    def box(note: Note) -> tuple[float, float, float, float]:
        left, right = (float(place) / length * (width - 1) for place in (note.start, note.end))
        top = bottom - _ROW * (note.pitch - low + 1)
        return left, top, max(left + 1, right - 2), top + _ROW - 2

    for pitch in range(low, high):
        if pitch % 12 in _BLACK_KEYS:
            top = bottom - _ROW * (pitch - low + 1)
            draw.rectangle((0, top, width, top + _ROW - 1), fill=_LINES)
    bars = score.bar_starts()
    for place in bars if len(bars) <= _MOST_LINES else []:
        x = float(place) / length * (width - 1)
        draw.line((x, 0, x, bottom), fill=_BAR)
    for note in notes:
        draw.rectangle(box(note), fill=_NOTE)
    for note in melody:
        draw.rectangle(box(note), fill=_MELODY)
    free = -1.0
    for symbol in score.symbols:
        x = float(symbol.start) / length * (width - 1)
        label = symbol.label.encode("latin-1", "replace").decode("latin-1")[:12]
        if x > free:
            draw.text((x + 3, 6), label, fill=_TEXT)
            free = x + 6 * len(label)
    title = score.title.encode("latin-1", "replace").decode("latin-1")
    title = "" if title.count("?") > len(title) / 2 else title[:60]  # the font has Latin letters only
    facts = [title, f"{score.bpm:g} bpm", str(score.meter), f"{score.duration_s:.1f} s"]
    draw.text((4, bottom + 6), "   ".join(fact for fact in facts if fact), fill=_TEXT)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]
