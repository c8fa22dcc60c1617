"""Bars as they are written to notes as they are played: repeats, jumps and ties."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from ..errors import InputError
from ..units import Meter
from .bars import Bar, BarNote
from .route import route_of
from .score import (
    MAX_NOTES,
    MAX_QUARTERS,
    MeterChange,
    Note,
    Part,
    Score,
    Symbol,
    Tempo,
    check_changes,
    meters_of,
    snapped,
    tempos_of,
)


def lay_out(bars: list[Bar], voices: Sequence[tuple[str, bool]], title: str, notices: Sequence[str]) -> Score:
    """The score of bars as they are played. voices: (name, whether it is drums), of which those with notes become parts."""
    notes: dict[str, list[Note]] = {name: [] for name, _ in voices}
    tied: dict[tuple[str, int], int] = {}  # (voice, pitch) -> number of the note that is held
    symbols, tempos, meters = [], [], []
    place, n_notes = Fraction(0), 0
    bars, order, faults = route_of(bars)
    in_force, before = _in_force(bars), -1
    for number in order:
        bar = bars[number]
        if number != before + 1:
            label, bpm, meter = in_force[number]
            symbols += [] if label is None else [Symbol(place, label)]
            tempos += [] if bpm is None else [Tempo(place, bpm)]
            meters += [] if meter is None else [MeterChange(place, meter)]
        before = number
        if bar.meter is not None:
            meters.append(MeterChange(place, bar.meter))
        symbols += [Symbol(place + offset, label) for offset, label in bar.symbols]
        tempos += [Tempo(place + offset, bpm) for offset, bpm in bar.tempos]
        for voice, written in bar.notes.items():
            line = notes[voice]
            n_notes += len(written)
            for note in written:
                _add(line, tied, voice, place, note)
        place = snapped(place + bar.length)
        check_changes(len(tempos), len(meters), len(symbols))
        if n_notes > MAX_NOTES or place > MAX_QUARTERS:
            raise InputError(
                f"it has more than {MAX_NOTES} notes or {MAX_QUARTERS} quarter notes, repeats included. Give a part of it."
            )
    parts = [Part(name, tuple(sorted(notes[name])), is_drums) for name, is_drums in voices if notes[name]]
    unique = {symbol.start: symbol for symbol in symbols}
    symbols = sorted(unique.values())
    return Score(
        tuple(parts), place, tempos_of(tempos), meters_of(meters), tuple(symbols), title, notices=(*notices, *faults)
    )


def _in_force(bars: Sequence[Bar]) -> list[tuple[str | None, float | None, Meter | None]]:
    """(chord symbol, tempo, meter) where each bar begins, as they are written; a player who jumps there has them. None: none yet."""
    label: str | None = None
    bpm: float | None = None
    meter: Meter | None = None
    found = []
    for bar in bars:
        found.append((label, bpm, meter))
        label = _last(bar.symbols) if bar.symbols else label
        bpm = _last(bar.tempos) if bar.tempos else bpm
        meter = bar.meter or meter
    return found


def _last(changes: list) -> Any:
    """The value of the last of (place, value)."""
    return sorted(changes, key=lambda change: change[0])[-1][1]


def _add(line: list[Note], tied: dict[tuple[str, int], int], voice: str, place: Fraction, note: BarNote) -> None:
    """Add a note to its line, or its length to the note that is tied to it."""
    key, start = (voice, note.pitch), snapped(place + note.start)
    held = tied.pop(key, None)
    if held is not None and line[held].end == start:
        line[held] = Note(line[held].start, line[held].length + note.length, note.pitch)
    else:
        line.append(Note(start, note.length, note.pitch))
        held = len(line) - 1
    if note.is_tied:
        tied[key] = held
