"""Bars as they are written, with the marks of a player's way through them: segno, coda, fine, da capo, dal segno."""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ..units import Meter

MAX_TIMES = 32
SEGNO, CODA, TO_CODA, FINE, DA_CAPO, DAL_SEGNO = "segno", "coda", "To Coda", "Fine", "D.C.", "D.S."
CODA_SIGN = "coda sign"  # To Coda or the coda: the place tells
_TARGETS = (SEGNO, CODA)
_MAX_WORDS = 60  # characters of an instruction
_INSTRUCTION = re.compile(
    r"(?P<capo>d\.?\s*c\.?|da\s*capo)(?P<to1>\W.*)?|(?P<segno>d\.?\s*s\.?|dal?\s*segno)(?P<to2>\W.*)?|(?P<to_coda>(?:to|da|alla)\s*(?:the\s*)?coda)"
    r"|(?P<fine>fine)|(?P<coda>coda)|(?P<sign>segno)",
    re.IGNORECASE,
)


@dataclass
class BarNote:
    """A note of a bar; `start` counts quarter notes from the bar's beginning."""

    start: Fraction
    length: Fraction
    pitch: int
    is_tied: bool = False  # on to the next note of its pitch


@dataclass(frozen=True)
class Mark:
    """A sign or an instruction over a bar, `place` quarter notes from its beginning."""

    kind: str  # SEGNO, CODA, TO_CODA, FINE, DA_CAPO, DAL_SEGNO or CODA_SIGN
    place: Fraction = Fraction(0)
    until: str = ""  # FINE or CODA: how D.C. and D.S. end, where that is said
    label: str = ""  # which segno or coda, of several

    def __str__(self) -> str:
        return f"{self.kind} al {self.until.capitalize()}" if self.until else self.kind


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
    marks: list[Mark] = field(default_factory=list)

    def add_marks(self, marks: Iterable[Mark]) -> None:
        """Marks that it does not have yet: several voices repeat them."""
        for mark in marks:
            if mark.kind not in {known.kind for known in self.marks}:
                self.marks.append(mark)

    def marked(self, *kinds: str) -> Mark | None:
        return next((mark for mark in self.marks if mark.kind in kinds), None)


def mark_of_words(words: str, place: Fraction = Fraction(0)) -> Mark | None:
    """The mark that words name: `D.C. al Fine`, `D.S.alcoda`, `To Coda`, `dal segno`, `Fine`; None for other words."""
    words = re.sub(r"(?i)(?<=\w\.)(?=al)", " ", " ".join(words.strip(" ()[]").split()))
    found = _INSTRUCTION.fullmatch(words.rstrip(".")) if len(words) <= _MAX_WORDS else None
    if found is None:
        return None
    if found["capo"] or found["segno"]:
        rest = (found["to1"] or found["to2"] or "").lower()
        until = FINE if "fine" in rest else CODA if "coda" in rest else ""
        return Mark(DA_CAPO if found["capo"] else DAL_SEGNO, place, until)
    kinds = {"to_coda": TO_CODA, "fine": FINE, "coda": CODA, "sign": SEGNO}
    return next(Mark(kind, place) for name, kind in kinds.items() if found[name])


def split_at_marks(bars: list[Bar]) -> tuple[list[Bar], list[int]]:
    """(bars whose marks lie at their edges, number of each in the score, from 1).

    Segno and coda begin where they stand; the others end with the note over which they stand, at a bar's beginning with the bar.
    """
    parts: list[Bar] = []
    numbers: list[int] = []
    later: list[Mark] = []  # signs at the end of a bar: they begin the next one
    for number, bar in enumerate(bars, 1):
        signs = [replace(mark, place=Fraction(0)) for mark in later]
        edges = {mark: _edge(bar, mark) for mark in bar.marks}
        later = [mark for mark in bar.marks if mark.kind in _TARGETS and edges[mark] >= bar.length > 0]
        cuts = sorted({edge for mark, edge in edges.items() if mark not in later and 0 < edge < bar.length})
        bounds = [Fraction(0), *cuts, bar.length]
        for first, last in itertools.pairwise(bounds):
            part = _part(bar, first, last) if cuts else replace(bar)
            part.marks = [
                mark
                for mark, edge in edges.items()
                if mark not in later and edge == (first if mark.kind in _TARGETS else last)
            ]
            if first == 0:
                part.marks = [*signs, *part.marks]
            parts.append(part)
            numbers.append(number)
    return parts, numbers


def _edge(bar: Bar, mark: Mark) -> Fraction:
    """Where a sign begins, or an instruction holds."""
    if mark.kind in _TARGETS:
        return max(Fraction(0), mark.place)
    if mark.place <= 0:
        return bar.length
    ends = [note.start + note.length for notes in bar.notes.values() for note in notes if note.start == mark.place]
    return min(min(ends, default=mark.place), bar.length)


def _part(bar: Bar, first: Fraction, last: Fraction) -> Bar:
    """A bar from one place to another; a note that goes on is tied."""
    notes: dict[str, list[BarNote]] = {}
    for voice, line in bar.notes.items():
        for note in line:
            start, end = max(note.start, first), note.start + note.length
            if note.start < last and end > first:
                ends = end <= last or last == bar.length
                length = (end if ends else last) - start
                notes.setdefault(voice, []).append(BarNote(start - first, length, note.pitch, note.is_tied or not ends))

    def within(changes: list) -> list:
        return [
            (place - first, value) for place, value in changes if first <= place < last or (place >= last == bar.length)
        ]

    is_first, is_last = first == 0, last == bar.length
    return Bar(
        last - first, notes, within(bar.symbols), within(bar.tempos), bar.meter if is_first else None,
        bar.begins_repeat and is_first, bar.times if is_last else 0, bar.endings,
    )  # fmt: skip
