"""A picture of what was heard: sections, chords, bars, melody and drums over time."""

import colorsys

import numpy as np
import torch
from torch import Tensor

from ...dependencies import require
from .chords import NAMES, NONE, QUALITIES, SEVENTHS
from .notes import DRUMS
from .result import Heard

_BACKGROUND, _LINES, _DOWNBEAT, _TEXT, _NOTE = (
    (18, 20, 28),
    (41, 46, 59),
    (90, 98, 120),
    (226, 229, 236),
    (245, 186, 74),
)
_PER_S, _NARROWEST, _WIDEST = 40, 480, 4000  # pixels
_BAND, _ROW = 24, 5  # pixels of a line of text, of a semitone
_LOW, _HIGH = 48, 96  # MIDI pitches shown


def hearing_picture(heard: Heard) -> Tensor:
    """[1, H, W, 3] float32 in 0..1, time to the right: sections, chords, piano roll of chords and melody, drums."""
    pillow, drawing = (
        require("PIL.Image", "The picture of what is heard", "pillow"),
        require("PIL.ImageDraw", "The picture"),
    )
    width = min(max(round(_PER_S * heard.duration_s), _NARROWEST), _WIDEST)
    roll = 2 * _BAND
    drums = roll + _ROW * (_HIGH - _LOW)
    image = pillow.new("RGB", (width, drums + 3 * _BAND // 2 + _BAND), _BACKGROUND)
    draw = drawing.Draw(image)

    def x(time_s: float) -> float:
        return time_s / heard.duration_s * (width - 1)

    def row(pitch: int) -> int:
        return drums - _ROW * (pitch - _LOW + 1)

    for _number, section in enumerate(heard.sections):
        draw.rectangle(
            (x(section.start_s), 0, x(section.end_s) - 2, _BAND - 3), fill=_color(5 * (ord(section.label) - 65), 0.35)
        )
        draw.text((x(section.start_s) + 4, 5), section.label, fill=_TEXT)
    for span in heard.chords:
        if span.label == NONE:
            continue
        root, colon, quality = span.label.partition(":")
        color, start, end = NAMES.index(root), x(span.start_s), x(span.end_s) - 2
        draw.rectangle((start, _BAND, max(start, end), roll - 3), fill=_color(7 * color, 0.5))
        if end - start > 6 * len(span.label):
            draw.text((start + 4, _BAND + 5), span.label, fill=_TEXT)
        for step in (QUALITIES | SEVENTHS)[colon + quality]:
            for pitch in range(_LOW, _HIGH):
                if (pitch - color - step) % 12 == 0:
                    draw.rectangle(
                        (start, row(pitch), max(start, end), row(pitch) + _ROW - 2), fill=_color(7 * color, 0.22)
                    )
    for time_s in heard.beats_s:
        draw.line((x(time_s), roll, x(time_s), drums), fill=_LINES)
    for time_s in heard.downbeats_s:
        draw.line((x(time_s), _BAND, x(time_s), drums), fill=_DOWNBEAT)
    for note in heard.melody:
        if _LOW <= note.pitch < _HIGH:
            draw.rectangle((x(note.start_s), row(note.pitch), x(note.end_s), row(note.pitch) + _ROW - 2), fill=_NOTE)
    for line, drum in enumerate(reversed(DRUMS)):
        for hit in heard.drums:
            if hit.drum == drum:
                top = drums + 4 + line * _BAND // 2
                draw.line((x(hit.time_s), top, x(hit.time_s), top + _BAND // 2 - 4), fill=_TEXT)
    facts = [
        f"{heard.bpm:.1f} bpm" if heard.bpm else "no pulse",
        heard.meter_text,
        heard.key,
        f"{heard.tuning_cents:+.0f} cents",
    ]
    draw.text((4, drums + 3 * _BAND // 2 + 6), "   ".join(fact for fact in facts if fact), fill=_TEXT)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]


def _color(twelfth: int, value: float) -> tuple[int, int, int]:
    """A hue on the circle of twelve; fifths lie side by side where the number is 7 times the pitch class."""
    red, green, blue = colorsys.hsv_to_rgb(twelfth % 12 / 12, 0.6, value)
    return round(255 * red), round(255 * green), round(255 * blue)
