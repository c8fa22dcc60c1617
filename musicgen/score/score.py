"""`Score`: notes of parts, chord symbols, tempo and meter, in quarter notes from the beginning."""

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ..errors import InputError
from ..units import Meter, check_bpm
from .choices import MELODY

MAX_NOTES = 100_000
MAX_PARTS = 20_000
MAX_CHANGES = 20_000  # of tempo, meter and chords, each
MAX_QUARTERS = 50_000  # 7 hours at 120 a minute
DEFAULT_BPM = 120.0
LOWEST, HIGHEST = 0, 127  # MIDI pitches
_FINEST, _GRID = 100_000, 40_320  # parts of a quarter note


@dataclass(frozen=True, order=True)
class Note:
    """A note; `start` and `length` in quarter notes."""

    start: Fraction
    length: Fraction
    pitch: int  # MIDI, 60 = C4

    @property
    def end(self) -> Fraction:
        return self.start + self.length


@dataclass(frozen=True)
class Part:
    """A voice, or a track, with its notes in order."""

    name: str
    notes: tuple[Note, ...]
    is_drums: bool = False


@dataclass(frozen=True, order=True)
class Symbol:
    """A chord symbol as it is written, from its place to the next one's."""

    start: Fraction
    label: str


@dataclass(frozen=True, order=True)
class Tempo:
    """Quarter notes a minute, from a place on."""

    start: Fraction
    bpm: float


@dataclass(frozen=True)
class MeterChange:
    """A meter, from a place on."""

    start: Fraction
    meter: Meter


@dataclass(frozen=True)
class Score:
    """Parts over one course of tempo and meter. InputError for more notes or a longer score than are read."""

    parts: tuple[Part, ...]
    length: Fraction  # quarter notes, rests at the end included
    tempos: tuple[Tempo, ...] = (Tempo(Fraction(0), DEFAULT_BPM),)  # the first one at 0
    meters: tuple[MeterChange, ...] = (MeterChange(Fraction(0), Meter(4)),)  # the first one at 0
    symbols: tuple[Symbol, ...] = ()
    title: str = ""
    melody_part: str = MELODY  # `melody`, `all`, or a part's number or name
    notices: tuple[str, ...] = ()  # what was read otherwise than it is written, a sentence each

    def __post_init__(self) -> None:
        n_notes = sum(len(part.notes) for part in self.parts)
        if n_notes > MAX_NOTES:
            raise InputError(f"The score has {n_notes} notes, and at most {MAX_NOTES} are read. Give a part of it.")
        check_changes(len(self.tempos), len(self.meters), len(self.symbols))
        if len(self.parts) > MAX_PARTS:
            raise InputError(f"The score has {len(self.parts)} parts, and at most {MAX_PARTS} are read.")
        if self.length > MAX_QUARTERS:
            raise InputError(
                f"The score is {float(self.length):.6g} quarter notes long, and at most {MAX_QUARTERS} are read. Give a part of it."
            )

    @property
    def meter(self) -> Meter:
        """The meter that it begins in."""
        return self.meters[0].meter

    @property
    def bpm(self) -> float:
        """Beats a minute, of the meter's unit, as in the chords: of a score of several tempos, their mean over its length."""
        quarters = self.tempos[0].bpm
        if len(self.tempos) > 1 and self.length:
            quarters = 60 * float(self.length) / self.duration_s
        return round(quarters * self.meter.unit / 4, 3)

    @property
    def duration_s(self) -> float:
        return self.seconds_at(self.length)

    def seconds_at(self, place: Fraction) -> float:
        """Seconds from the beginning to a place in quarter notes."""
        return self._clock()(place)

    def times_s(self, notes: Iterable[Note]) -> list[tuple[float, float, int]]:
        """(start, end, pitch) of notes, in seconds."""
        seconds = self._clock()
        return [(seconds(note.start), seconds(note.end), note.pitch) for note in notes]

    def _clock(self) -> Callable[[Fraction], float]:
        """seconds(place) of a place in quarter notes."""
        starts, starts_s = [tempo.start for tempo in self.tempos], self._starts_s()

        def seconds(place: Fraction) -> float:
            number = max(bisect.bisect_right(starts, place) - 1, 0)
            return starts_s[number] + float(place - starts[number]) * 60 / self.tempos[number].bpm

        return seconds

    def place_at(self, time_s: float, resolution: int = 480) -> Fraction:
        """The place in quarter notes at a time, to 1 / `resolution` of a quarter."""
        starts_s = self._starts_s()
        number = max(bisect.bisect_right(starts_s, time_s) - 1, 0)
        quarters = (time_s - starts_s[number]) * self.tempos[number].bpm / 60
        return self.tempos[number].start + Fraction(round(quarters * resolution), resolution)

    def _starts_s(self) -> list[float]:
        """Seconds at which each tempo begins."""
        starts_s = [0.0]
        for before, after in zip(self.tempos, self.tempos[1:]):
            starts_s.append(starts_s[-1] + float(after.start - before.start) * 60 / before.bpm)
        return starts_s

    def transposed(self, semitones: int) -> "Score":
        """The score with its pitches moved; chord symbols move too. InputError for a note out of MIDI's range."""
        if not semitones:
            return self
        parts = []
        for part in self.parts:
            if not part.is_drums:
                outside = [note.pitch for note in part.notes if not LOWEST <= note.pitch + semitones <= HIGHEST]
                if outside:
                    raise InputError(
                        f"'transpose' of {semitones} semitones moves MIDI note {outside[0]} of {part.name!r} out of 0 to 127. "
                        "Transpose less."
                    )
                notes = tuple(replace(note, pitch=note.pitch + semitones) for note in part.notes)
                part = replace(part, notes=notes)
            parts.append(part)
        symbols = tuple(replace(symbol, label=moved(symbol.label, semitones)) for symbol in self.symbols)
        return replace(self, parts=tuple(parts), symbols=symbols)

    def at_tempo(self, bpm: float) -> "Score":
        """The score at one tempo throughout, in beats of the meter's unit a minute."""
        quarters = check_bpm(bpm) * 4 / self.meter.unit
        return replace(self, tempos=(Tempo(Fraction(0), quarters),))

    def bar_starts(self) -> list[Fraction]:
        """Places of the bar lines, as the meters have them."""
        starts: list[Fraction] = []
        for number, change in enumerate(self.meters):
            end = self.meters[number + 1].start if number + 1 < len(self.meters) else self.length
            bar = Fraction(4 * change.meter.beats, change.meter.unit)
            starts += [change.start + k * bar for k in range(math.ceil((end - change.start) / bar))]
        return starts


NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def moved(label: str, semitones: int) -> str:
    """A chord symbol with root and bass moved. A symbol that begins with no root stays."""
    head, slash, bass = label.partition("/")
    return _moved_root(head, semitones) + slash + _moved_root(bass, semitones)


def _moved_root(label: str, semitones: int) -> str:
    if not label or label[0] not in _STEPS:
        return label
    length = 1
    while length < len(label) and label[length] in "b#":
        length += 1
    root = _STEPS[label[0]] + label[1:length].count("#") - label[1:length].count("b")
    return NAMES[(root + semitones) % 12] + label[length:]


def check_changes(*counts: int) -> None:
    """InputError for more changes of tempo, meter or chords than a score has."""
    if max(counts) > MAX_CHANGES:
        raise InputError(
            f"The score has {max(counts)} changes of tempo, meter or chords, and at most {MAX_CHANGES} are read."
        )


def snapped(place: Fraction) -> Fraction:
    """A place, of more than 100,000 parts of a quarter the nearest of 1 / 40,320: its terms stay small in any file."""
    return place if place.denominator <= _FINEST else Fraction(round(place * _GRID), _GRID)


def tempos_of(changes: Sequence[Tempo]) -> tuple[Tempo, ...]:
    """Tempos in order, the last of those at one place, the first at 0 (120 a minute if none is)."""
    at: dict[Fraction, float] = {Fraction(0): DEFAULT_BPM}
    at.update((change.start, change.bpm) for change in sorted(changes, key=lambda change: change.start))
    result: list[Tempo] = []
    for start in sorted(at):
        if not result or result[-1].bpm != at[start]:
            result.append(Tempo(start, at[start]))
    return tuple(result)


def meters_of(changes: Sequence[MeterChange]) -> tuple[MeterChange, ...]:
    """Meters in order, the last of those at one place, the first at 0 (4/4 if none is)."""
    at = {Fraction(0): Meter(4)}
    at.update((change.start, change.meter) for change in sorted(changes, key=lambda change: change.start))
    result: list[MeterChange] = []
    for start in sorted(at):
        if not result or result[-1].meter != at[start]:
            result.append(MeterChange(start, at[start]))
    return tuple(result)


def whole_bars(length: Fraction, meters: Sequence[MeterChange]) -> Fraction:
    """`length`, up to the end of its last bar."""
    last = meters[-1]
    bar = Fraction(4 * last.meter.beats, last.meter.unit)
    if length <= last.start:
        return last.start
    return last.start + math.ceil((length - last.start) / bar) * bar
