"""Notes that are typed, `3/4 @92 C4 D4 E4:2 r G3:0.5`, to scores and back.

A note is written in scientific pitch notation (ISO 16, with C4 as middle C): letter, accidentals, octave. A colon and a number,
`:2`, `:0.5` or `:1/3`, is its length in quarter notes, 1 without. Without an octave a note keeps that of the note before, 4 at
first. `r` is a rest, `|` a bar line, `"Am7"` a chord symbol at the next note, `3/4` a meter, `@92` a tempo in quarter notes a minute.
Letters may be small; do re mi fa sol la si (or ti) and 도 레 미 파 솔 라 시 stand for C D E F G A B.
"""

import re
from collections import deque
from fractions import Fraction

from ..config import check_text
from ..errors import InputError
from ..units import FASTEST_BPM, SLOWEST_BPM, Meter
from .abc import is_abc, read_abc
from .choices import EXAMPLE_NOTES
from .score import MAX_NOTES, MeterChange, Note, Part, Score, Symbol, Tempo, meters_of, snapped, tempos_of

MAX_CHARACTERS = 100_000
EXAMPLE = f"'{EXAMPLE_NOTES}'"
_LETTERS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SYLLABLES = {"do": 0, "re": 2, "mi": 4, "fa": 5, "sol": 7, "so": 7, "la": 9, "si": 11, "ti": 11}
_HANGUL = dict(zip("도레미파솔라시", (0, 2, 4, 5, 7, 9, 11)))
_STEPS = {**_LETTERS, **_SYLLABLES, **_HANGUL}
_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
_NOTE = re.compile(
    rf"({'|'.join(sorted(_STEPS, key=len, reverse=True))}|r|쉼)([#b♯♭x]*)(-?\d)?(?::(\d{{1,5}}(?:\.\d{{1,6}})?(?:/\d{{1,4}})?))?",
    re.IGNORECASE,
)
_WORD = re.compile(r'"[^"]*"|[^\s|,"]+|"')
_SHOWN = 30  # characters of a word in a message


def read_notes(text: str) -> Score:
    """The score of typed notes, or of ABC notation, which a line with K: tells. InputError names the word and its number."""
    check_text("notes", text)
    if is_abc(text):
        try:
            return read_abc(text)
        except InputError as error:
            raise InputError(f"'notes' is ABC notation (it has K:), but {error}") from error
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"'notes' has {len(text)} characters, and at most {MAX_CHARACTERS} are read. Use a file.")
    notes, symbols, tempos, meters = [], [], [], []
    place, octave = Fraction(0), 4
    for number, word in enumerate(_WORD.findall(text), 1):
        if word.startswith('"'):
            if len(word) < 3:
                raise _fault(number, word, 'chord symbols stand between two quotes, as in "Am7"')
            symbols.append(Symbol(place, word[1:-1].strip()[:64].replace("♯", "#").replace("♭", "b")))
        elif re.fullmatch(r"\d{1,2}/\d{1,2}", word):
            meters.append(MeterChange(place, Meter.parse(word)))
        elif word.startswith("@"):
            tempos.append(Tempo(place, _tempo(number, word)))
        else:
            found = _NOTE.fullmatch(word)
            length = _length(found[4]) if found else None
            if not found or not length or (found[1].lower() in ("r", "쉼") and (found[2] or found[3])):
                raise _fault(number, word, f"it is no note, rest, meter or tempo. Write notes as {EXAMPLE}")
            if found[1].lower() not in ("r", "쉼"):
                octave = octave if found[3] is None else int(found[3])
                pitch = 12 * (octave + 1) + _STEPS[found[1].lower()] + _shift(found[2])
                if not 0 <= pitch <= 127:
                    raise _fault(number, word, "it lies outside MIDI's range, C-1 to G9")
                notes.append(Note(place, length, pitch))
            place = snapped(place + length)
        if len(notes) > MAX_NOTES:
            raise InputError(f"'notes' has more than {MAX_NOTES} notes. Write fewer.")
    if not notes:
        raise InputError(f"'notes' has no notes. Write some, as in {EXAMPLE}.")
    return Score((Part("Melody", tuple(notes)),), place, tempos_of(tempos), meters_of(meters), tuple(symbols))


def written(notes: tuple[Note, ...], score: Score) -> str:
    """A line of notes as it can be typed, with the score's meter, tempo and chord symbols; a line a bar."""
    head = f"{score.meter} @{score.tempos[0].bpm:g}"
    bar_places, symbols = deque(score.bar_starts()), deque(score.symbols)
    words, place = [head], Fraction(0)
    for note in notes:
        if note.start > place:
            words.append(f"r{_written_length(note.start - place)}")
        while bar_places and bar_places[0] <= note.start:
            words.append("\n")
            bar_places.popleft()
        while symbols and symbols[0].start <= note.start:
            words.append(f'"{symbols.popleft().label}"')
        words.append(f"{_NAMES[note.pitch % 12]}{note.pitch // 12 - 1}{_written_length(note.length)}")
        place = note.end
    if score.length > place:
        words.append(f"r{_written_length(score.length - place)}")
    return re.sub(r" *\n+ *", "\n", " ".join(words))


def _written_length(length: Fraction) -> str:
    if length == 1:
        return ""
    decimal = f"{float(length):g}"
    return f":{decimal}" if Fraction(decimal) == length else f":{length}"


def _length(text: str | None) -> Fraction | None:
    if text is None:
        return Fraction(1)
    above, _, below = text.partition("/")
    return snapped(Fraction(above) / int(below or 1)) if int(below or 1) else None


def _shift(accidentals: str) -> int:
    return sum({"#": 1, "♯": 1, "b": -1, "♭": -1, "x": 2}[sign] for sign in accidentals.lower())


def _tempo(number: int, word: str) -> float:
    if not re.fullmatch(r"@\d{1,3}(?:\.\d{1,3})?", word) or not SLOWEST_BPM <= float(word[1:]) <= FASTEST_BPM:
        raise _fault(
            number, word, f"a tempo is @ and {SLOWEST_BPM:g} to {FASTEST_BPM:g} quarter notes a minute, as in @92"
        )
    return float(word[1:])


def _fault(number: int, word: str, what: str) -> InputError:
    return InputError(f"'notes', word {number}, {word[:_SHOWN]!r}: {what}.")
