"""The original's chords, faults included, for comparison: labels, rows and windows of `sakemin/cog-musicgen-chord`.

Known faults: any first character of a label is a root; a note name as bass sets all notes; bars of several chords are cut
to whole rows, and hurry; a chord cut by a window's edge leaves zeros. What crashes or hangs the original is an InputError.
Source: `ChromaChordConditioner._get_wav_embedding`, `Chords.chord` (commit b78b81d).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .chord_labels import PUBLISHED, STEPS

_REPAIRED = {"Emin/4": "E:min/4", "A7/3": "A:7/3", "Bb7/3": "Bb:7/3", "Bb7/5": "Bb:7/5"}
_N_NOTES = 12
_WINDOW_S = 30.0
_ENDLESS = 1000


@dataclass(frozen=True)
class ReferenceProgression:
    """A progression in the published grammar: bars by one blank, their chords by commas."""

    text: str
    bpm: float
    beats: int  # of a bar

    def rows(self, start_s: float, n_rows: int, rate_hz: float) -> Tensor:
        """Rows [n_rows, 12] of the window that starts at `start_s`, for the published models alone."""
        return self.table(n_rows, int(n_rows * start_s / _WINDOW_S), rate_hz)

    def table(self, n_rows: int, skipped: int = 0, rate_hz: float = 7.8125) -> Tensor:
        """Rows [n_rows, 12] of 0, 1 and -1, the first `skipped` of them dropped as the original drops them."""
        bars = [[reference_row(label) for label in bar.split(",")] for bar in self.text.split(" ")]
        bar_rows = 60 / (self.bpm / self.beats) * rate_hz
        rows, n_written, offset = torch.zeros(n_rows, _N_NOTES), 0, 0.0
        n_idle = 0  # passes in which nothing was written
        while n_written < n_rows:
            before = n_written, skipped
            for bar in bars:
                if n_written >= n_rows:
                    break
                for row in bar:
                    exact = bar_rows + offset
                    offset = (exact - round(exact)) / len(bar)
                    for i in range(n_written, n_written + round(exact) // len(bar)):
                        if skipped > 0:
                            skipped -= 1
                        elif n_written < n_rows:
                            if i >= n_rows:
                                raise InputError(
                                    f"the original crashes on {self.text[:40]!r}: a chord cut by the window's edge"
                                )
                            rows[i] = row
                            n_written += 1
            n_idle = n_idle + 1 if before == (n_written, skipped) else 0
            if n_idle > _ENDLESS:
                raise InputError(
                    f"the original does not end with {self.text[:40]!r} at {self.bpm:g} bpm: no chord lasts a row"
                )
        return rows


def reference_row(label: str) -> Tensor:
    """[12] of 0 and 1, or -1 for X. InputError for a label that crashes the original."""
    if label in ("N", "X"):
        return torch.full((_N_NOTES,), 0.0 if label == "N" else -1.0)
    try:
        root, notes = _read(label)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"'chords', {label!r}: the original does not read this label") from error
    return notes.roll(root)


def _read(label: str) -> tuple[int, Tensor]:
    label = _REPAIRED.get(label, label)
    if ":" not in label and "min" in label:
        label = label.replace("min", ":min", 1)
    root, colon, quality = label.partition(":")
    if colon and "/" in root:
        raise ValueError(label)
    head, _, bass = (quality if colon else root).partition("/")
    root, quality = (root, head) if colon else (head, "maj")
    name, bracket, listed = quality.partition("(")
    notes = torch.zeros(_N_NOTES)
    if name or not bracket:
        notes[list(PUBLISHED[name])] = 1
    if bracket:
        for item in listed[:-1].split(","):
            item = item.strip()
            notes[_interval(item[1:] if item[0] == "*" else item)] = 0 if item[0] == "*" else 1
    notes[_interval(bass) if bass else 0] = 1
    return (STEPS[(ord(root[0]) - ord("C")) % 7] + _shift(root[1:])) % _N_NOTES, notes


def _interval(text: str) -> int | slice:
    """Semitones; all of them where there is no digit, for the original then indexes with None."""
    for i, character in enumerate(text):
        if character.isdigit():
            number = int(text[i:]) - 1
            if not -2 * len(STEPS) <= number < 2 * len(STEPS):
                raise IndexError(number)
            return (STEPS[number % len(STEPS)] + _shift(text[:i])) % _N_NOTES
    return slice(None)


def _shift(accidentals: str) -> int:
    if accidentals.strip("b#"):
        raise ValueError(accidentals)
    return accidentals.count("#") - accidentals.count("b")
