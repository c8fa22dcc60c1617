"""Bars as they are written to notes as they are played: repeats, endings and ties."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from ..errors import InputError
from ..units import Meter
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

MAX_BARS = 20_000  # played, repeats included
MAX_TIMES = 32


@dataclass
class BarNote:
    """A note of a bar; `start` counts quarter notes from the bar's beginning."""

    start: Fraction
    length: Fraction
    pitch: int
    is_tied: bool = False  # on to the next note of its pitch


@dataclass
class Bar:
    """A bar as it is written."""

    length: Fraction = Fraction(0)
    notes: dict[str, list[BarNote]] = field(default_factory=dict)  # by voice
    symbols: list[tuple[Fraction, str]] = field(default_factory=list)
    tempos: list[tuple[Fraction, float]] = field(default_factory=list)  # quarter notes a minute
    meter: Meter | None = None  # where it changes
    begins_repeat: bool = False
    times: int = 0  # how often the repeat that ends with the bar is played; 0 = none ends
    endings: frozenset[int] = frozenset()  # passes in which the bar is played; empty = all


def order_of(bars: Sequence[Bar]) -> list[int]:
    """Numbers of the bars in the order in which they are played. InputError for more than 20,000."""
    order: list[int] = []
    start, turn, i = 0, 1, 0
    while i < len(bars):
        bar = bars[i]
        left_endings = bool(order) and order[-1] == i - 1 and bars[i - 1].endings and not bar.endings
        if (bar.begins_repeat or left_endings) and i != start:
            start, turn = i, 1
        if bar.endings and turn not in bar.endings:
            i += 1
            continue
        order.append(i)
        if len(order) > MAX_BARS:
            raise InputError(f"its repeats make more than {MAX_BARS} bars. Give a part of it.")
        if bar.times and _again(bars, i, turn):
            turn, i = turn + 1, start
        else:
            start, turn = (i + 1, 1) if bar.times and not bar.endings else (start, turn)
            i += 1
    return order


def _again(bars: Sequence[Bar], i: int, turn: int) -> bool:
    """Whether bar `i`, which ends a repeat, leads back after pass `turn`."""
    bar = bars[i]
    if not bar.endings:
        return turn < bar.times
    following = i + 1
    while following < len(bars) and bars[following].endings and not bars[following].begins_repeat:
        if turn + 1 in bars[following].endings:
            return True
        following += 1
    return turn + 1 in bar.endings


def lay_out(bars: Sequence[Bar], voices: Sequence[tuple[str, bool]], title: str, notices: Sequence[str]) -> Score:
    """The score of bars as they are played. voices: (name, whether it is drums), of which those with notes become parts."""
    notes: dict[str, list[Note]] = {name: [] for name, _ in voices}
    tied: dict[tuple[str, int], int] = {}  # (voice, pitch) -> number of the note that is held
    symbols, tempos, meters = [], [], []
    place, n_notes = Fraction(0), 0
    for number in order_of(bars):
        bar = bars[number]
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
        tuple(parts), place, tempos_of(tempos), meters_of(meters), tuple(symbols), title, notices=tuple(notices)
    )


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
