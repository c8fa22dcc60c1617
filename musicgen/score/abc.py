"""ABC notation to scores: tunes, voices, keys, accidentals, tuplets, ties, repeats and endings.

Source: the ABC standard 2.1 (Walshaw and others). Left out, as not heard in a melody: grace notes, other decorations than
those of D.C., D.S., Fine and Coda, lyrics, slurs.
"""

import re
from dataclasses import replace
from fractions import Fraction

from ..errors import InputError
from ..units import Meter
from .abc_words import ACCIDENTALS, FIELD, FIELD_IN_BODY, KINDS, PITCHES, TOKEN, TUPLETS, key_of, length_of, numbers_of
from .bars import CODA_SIGN, MAX_TIMES, Bar, BarNote, Mark, mark_of_words
from .layout import lay_out
from .route import MAX_BARS
from .score import MAX_NOTES, Score, snapped

MAX_CHARACTERS = 2**20
_MAX_VOICES = 64
_MAX_LINE = 10_000  # characters
_SHOWN = 20  # characters of a fault
_SHORT = {"dacapo": "D.C.", "dacoda": "To Coda", "S": "segno", "O": "coda"}
_CLEFS = ("treble", "bass", "alto", "tenor", "perc")


def read_abc(text: str, tune: int = 0) -> Score:
    """The score of a tune. tune: its number (`X:`); 0 = the first tune.

    InputError for a text without a tune, a number that no tune has, and what is no ABC, with its line.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"it has {len(text)} characters, and at most {MAX_CHARACTERS} are read. Give one tune of it.")
    tunes = _tunes(text)
    if not tunes:
        raise InputError("it holds no tune: a tune begins with X: and has K: before its notes.")
    numbers = [number for number, _, _ in tunes]
    if tune and tune not in numbers:
        shown = ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
        raise InputError(f"'tune' is {tune}, and the file has the tunes {shown}. Give one of them, or 0 for the first.")
    _, first_line, lines = tunes[numbers.index(tune) if tune else 0]
    reader = _Tune()
    for number, line in enumerate(lines, first_line):
        reader.read_line(line, number)
    score = reader.score()
    if not tune and len(tunes) > 1:
        notice = f"The file has {len(tunes)} tunes: the first is read. Choose another by its X: number in 'tune'."
        return replace(score, notices=(*score.notices, notice))
    return score


def is_abc(text: str) -> bool:
    """Whether a text is ABC: a line of it begins with K:."""
    return re.search(r"^K:", text, re.MULTILINE) is not None


def _tunes(text: str) -> list[tuple[int, int, list[str]]]:
    """(number, its first line's number, lines) of each tune. A text without X: is one tune."""
    result: list[tuple[int, int, list[str]]] = []
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not any(line.startswith("X:") for line in lines):
        return [(1, 1, lines)] if is_abc(text) else []
    begun = False
    for number, line in enumerate(lines, 1):
        if line.startswith("X:"):
            found = re.match(r"X:\s*(\d{1,9})", line)
            result.append((int(found[1]) if found else len(result) + 1, number, []))
            begun = True
        if begun:
            result[-1][2].append(line)
            begun = bool(line.strip())
    return result


class _Voice:
    """What holds on in one voice."""

    def __init__(self, name: str, bars: list[Bar]) -> None:
        self.name, self.bars = name, bars
        self.place = Fraction(0)
        self.accidentals: dict[str, int] = {}  # of the bar, by letter
        self.held: dict[str, int] = {}  # accidentals of a note that is tied over the bar line
        self.last: list[BarNote] = []  # notes of the last note or chord
        self.last_length = Fraction(0)
        self.broken = Fraction(1)  # factor of the next note
        self.tuplet: tuple[int, Fraction] = (0, Fraction(1))  # notes left, factor
        self.ending: frozenset[int] = frozenset()


class _Tune:
    """One tune while it is read."""

    def __init__(self) -> None:
        self._title, self._meter, self._unit = "", Meter(4), None
        self._first_meter, self._free_meter = Meter(4), False
        self._bpm: float | None = None
        self._key: dict[str, int] = {}
        self._transpose = 0
        self._in_body = False
        self._bars: list[Bar] = [Bar()]
        self._voices: dict[str, _Voice] = {}
        self._voice: _Voice | None = None
        self._n_notes = 0
        self._number = 0

    def fault(self, what: str) -> InputError:
        return InputError(f"line {self._number}: {what}.")

    def read_line(self, line: str, number: int) -> None:
        self._number = number
        if len(line) > _MAX_LINE:
            raise self.fault(f"it has {len(line)} characters, and at most {_MAX_LINE} are read. Break the line")
        line = re.sub(r"(?<!\\)%.*", "", line)
        if not line.strip():
            return
        field = (FIELD_IN_BODY if self._in_body else FIELD).match(line)
        if field:
            self._read_field(field[1], field[2].strip())
        elif self._in_body:
            self._read_music(line)

    def _read_field(self, name: str, value: str) -> None:
        if name == "T":
            self._title = self._title or value[:120]
        elif name == "M":
            self._read_meter(value)
        elif name == "L":
            found = re.match(r"(\d{1,3})\s*/\s*(\d{1,3})", value)
            if not found or not int(found[1]) or not int(found[2]):
                raise self.fault(f"L:{value[:_SHOWN]} is no length. Write one as L:1/8")
            self._unit = Fraction(int(found[1]), int(found[2])) * 4
        elif name == "Q":
            self._read_tempo(value)
        elif name == "V":
            self._choose_voice(value)
        elif name == "K":
            self._read_key(value)
            self._in_body = True

    @property
    def _unit_length(self) -> Fraction:
        """The unit note in quarter notes."""
        if self._unit is not None:
            return self._unit
        small = not self._free_meter and Fraction(self._meter.beats, self._meter.unit) < Fraction(3, 4)
        return Fraction(1, 4) if small else Fraction(1, 2)

    def _read_meter(self, value: str) -> None:
        named = {"C": "4/4", "C|": "2/2", "": "none"}.get(value, value)
        found = re.match(r"\(?([\d+\s]+)\)?\s*/\s*(\d{1,3})", named)
        beats = sum(int(part[:4]) for part in found[1].split("+") if part.strip().isdigit()) if found else 0
        if found and 1 <= beats <= 32 and int(found[2]) in (1, 2, 4, 8, 16, 32):
            self._meter, self._free_meter = Meter(beats, int(found[2])), False
        elif named.lower().startswith("none"):
            self._meter, self._free_meter = Meter(4), True
        else:
            raise self.fault(f"M:{value[:_SHOWN]} is no meter. Write one as M:4/4, M:C or M:none")
        if self._in_body:
            self._current().bars[-1].meter = self._meter
        else:
            self._first_meter = self._meter

    def _read_tempo(self, value: str) -> None:
        words = re.sub(r'"[^"]*"', "", value).strip()
        found = re.fullmatch(r"((?:\d{1,3}/\d{1,3}\s*)+)=\s*(\d{1,4}(?:\.\d{1,3})?)", words)
        if found:
            fractions = [part.split("/") for part in found[1].split()]
            beat = sum((Fraction(int(above), int(below) or 1) for above, below in fractions), Fraction(0)) * 4
        elif number := re.fullmatch(r"(?:C\d*\s*=\s*)?(\d{1,4}(?:\.\d{1,3})?)", words):
            found, beat = [None, None, number[1]], self._unit_length
        elif not words:
            return  # a word alone, such as "Allegro"
        else:
            raise self.fault(f"Q:{value[:_SHOWN]} is no tempo. Write one as Q:1/4=120")
        bpm = round(float(Fraction(found[2]) * beat), 3)
        if not 0 < bpm < 10_000:
            raise self.fault(f"Q:{value[:_SHOWN]} is no tempo above 0")
        if self._in_body:
            self._current().bars[-1].tempos.append((self._current().place, bpm))
        else:
            self._bpm = bpm

    def _read_key(self, value: str) -> None:
        if transpose := re.search(r"\btranspose=(-?\d{1,2})", value):
            self._transpose = int(transpose[1])
        if octave := re.search(r"\boctave=(-?\d)\b", value):
            self._transpose = 12 * int(octave[1])
        words = re.sub(r"\b\w+=\S+", "", value).strip()
        if words and not words.lower().startswith(_CLEFS):
            try:
                self._key = key_of(words)
            except ValueError as error:
                raise self.fault(f"K:{value[:_SHOWN]} is no key. Write one as K:G, K:Am or K:Ddor") from error

    def _choose_voice(self, value: str) -> None:
        name = (value.split() or ["1"])[0][:40]
        if name not in self._voices and len(self._voices) >= _MAX_VOICES:
            raise self.fault(f"the tune has more than {_MAX_VOICES} voices")
        self._voice = self._voices.setdefault(name, _Voice(name, [Bar()]))

    def _current(self) -> _Voice:
        if self._voice is None:
            self._choose_voice("1")
        assert self._voice is not None
        return self._voice

    def _read_music(self, line: str) -> None:
        voice, position, chord, chord_is_tied = self._current(), 0, None, False
        while position < len(line):
            token = TOKEN.match(line, position)
            if token is None:
                raise self.fault(f"{line[position : position + _SHOWN]!r} is no ABC")
            position = token.end()
            kind = next(name for name in KINDS if token[name] is not None)
            if kind == "inline":
                name, _, value = token["inline"][1:-1].partition(":")
                self._read_field(name, value.strip())
                voice = self._current()
            elif kind == "symbol":
                self._read_symbol(voice, token["symbol"][1:-1].strip(), line[position:])
            elif kind == "deco":
                _read_mark(voice, token["deco"].strip("!+"), line[position:])
            elif kind == "tuplet":
                self._begin_tuplet(voice, token)
            elif kind == "bar":
                self._read_bar_line(voice, token)
            elif kind == "note":
                pitch, length = self._pitch(voice, token), length_of(token["length"])
                if chord is None:
                    self._add(voice, [pitch], length)
                else:
                    chord.append((pitch, length))
            elif kind == "rest":
                self._add(voice, [], length_of(token["rest_length"]))
            elif kind == "bars":
                self._rest_bars(voice, int(token["n_bars"][:5] or 1))
            elif kind == "open":
                chord = []
            elif kind == "close" and chord is not None:
                factor = length_of(token["chord_length"])
                if chord:
                    self._add(voice, [pitch for pitch, _ in chord], chord[0][1] * factor)
                    _tie(voice, chord_is_tied)
                chord = None
            elif kind == "tie":
                chord_is_tied = chord is not None
                _tie(voice, chord is None)
            elif kind == "broken":
                self._break(voice, token["broken"])
            elif kind == "overlay":
                raise self.fault("'&' lays a second voice over a bar, which is not read. Write it as a voice, with V:")

    def _read_symbol(self, voice: _Voice, text: str, rest: str) -> None:
        """A chord symbol; annotations begin with a sign of their place, and may be a D.C. or the like."""
        if text[:1] in "^_<>@":
            _read_mark(voice, re.sub(r"^(?:@[-\d.,]*|[\^_<>])", "", text), rest)
        elif text and text[0] in "ABCDEFGN":
            voice.bars[-1].symbols.append((voice.place, text[:64].replace("♯", "#").replace("♭", "b")))

    def _begin_tuplet(self, voice: _Voice, token: re.Match) -> None:
        p = int(token["p"])
        by_meter = 3 if self._meter.unit == 8 and self._meter.beats % 3 == 0 else 2
        q = int(token["q"]) if token["q"] else TUPLETS[p] or by_meter
        voice.tuplet = (int(token["r"] or 0) or p, Fraction(q, p))

    def _pitch(self, voice: _Voice, token: re.Match) -> int:
        letter = token["letter"].upper()
        if token["accidental"]:
            voice.accidentals[letter] = ACCIDENTALS[token["accidental"]]
        shift = {**self._key, **voice.held, **voice.accidentals}.get(letter, 0)
        octave = 5 + token["letter"].islower() + token["octave"].count("'") - token["octave"].count(",")
        pitch = 12 * octave + PITCHES[letter] + shift + self._transpose
        if not 0 <= pitch <= 127:
            raise self.fault(f"{token[0][:_SHOWN]!r} lies outside MIDI's range, 0 to 127")
        return pitch

    def _add(self, voice: _Voice, pitches: list[int], factor: Fraction) -> None:
        """A note, a chord, or a rest without pitches."""
        length = self._unit_length * factor * voice.broken
        left, shorter = voice.tuplet
        if left:
            length *= shorter
            voice.tuplet = (left - 1, shorter)
        length = snapped(length)
        self._n_notes += len(pitches)
        if self._n_notes > MAX_NOTES or length > 10_000:
            raise self.fault(f"the tune has more than {MAX_NOTES} notes, or a note longer than 10,000 quarter notes")
        if not length:
            raise self.fault("a note has a length of 0")
        voice.last = [BarNote(voice.place, length, pitch) for pitch in pitches]
        voice.bars[-1].notes.setdefault(voice.name, []).extend(voice.last)
        voice.place, voice.last_length, voice.broken = snapped(voice.place + length), length, Fraction(1)
        voice.held = {}
        voice.bars[-1].length = voice.place

    def _break(self, voice: _Voice, signs: str) -> None:
        """Broken rhythm: `>` lengthens the note before and shortens the next one, `<` the other way round."""
        part = Fraction(1, 2 ** min(len(signs), 4))
        first, second = (2 - part, part) if signs[0] == ">" else (part, 2 - part)
        change = voice.last_length * (first - 1)
        for note in voice.last:
            note.length += change
        voice.place += change
        voice.bars[-1].length, voice.last_length, voice.broken = voice.place, voice.last_length + change, second

    def _rest_bars(self, voice: _Voice, count: int) -> None:
        bar = Fraction(4 * self._meter.beats, self._meter.unit)
        if count > MAX_BARS:
            raise self.fault(f"a rest has {count} bars, and at most {MAX_BARS} are read")
        voice.place += count * bar
        voice.bars[-1].length, voice.last = voice.place, []

    def _read_bar_line(self, voice: _Voice, token: re.Match) -> None:
        sign, ending = token["bar"], token["ending1"] or token["ending2"]
        sign = sign.removesuffix(ending) if ending else sign
        is_empty = not (voice.bars[-1].notes or voice.bars[-1].length)
        last = voice.bars[-2 if is_empty and len(voice.bars) > 1 else -1]
        ends, begins = sign.startswith(":") or sign == "::", sign.endswith(":") or sign == "::"
        if ends:
            last.times = min(len(sign) - len(sign.lstrip(":")) + 1 if sign.strip(":") else 2, MAX_TIMES)
        if not is_empty:
            voice.bars.append(Bar())
            if len(voice.bars) > MAX_BARS:
                raise self.fault(f"the tune has more than {MAX_BARS} bars")
        if ends or begins or any(double in sign for double in ("||", "|]", "[|")):
            voice.ending = frozenset()
        if ending:
            voice.ending = numbers_of(ending)
        current = voice.bars[-1]
        current.begins_repeat = current.begins_repeat or begins
        current.endings = voice.ending
        voice.held = dict(voice.accidentals) if any(note.is_tied for note in voice.last) else {}
        voice.place, voice.accidentals, voice.last_length = current.length, {}, Fraction(0)

    def score(self) -> Score:
        voices = [voice for voice in self._voices.values() if any(bar.length for bar in voice.bars)]
        if not voices:
            raise InputError("it holds no notes.")
        joined = voices[0].bars
        for voice in voices:
            if not (voice.bars[-1].length or voice.bars[-1].notes):
                unfinished = voice.bars.pop()
                voice.bars[-1].add_marks(replace(mark, place=voice.bars[-1].length) for mark in unfinished.marks)
        for voice in voices[1:]:
            for number, bar in enumerate(voice.bars):
                if number == len(joined):
                    joined.append(Bar())
                joined[number].notes.update(bar.notes)
                joined[number].length = max(joined[number].length, bar.length)
                joined[number].symbols += bar.symbols
                joined[number].tempos += bar.tempos
                joined[number].add_marks(bar.marks)
        joined[0].meter = joined[0].meter or self._first_meter
        if self._bpm is not None:
            joined[0].tempos.insert(0, (Fraction(0), self._bpm))
        return lay_out(joined, [(voice.name, False) for voice in voices], self._title, ())


def _tie(voice: _Voice, is_tied: bool) -> None:
    for note in voice.last:
        note.is_tied = note.is_tied or is_tied


def _read_mark(voice: _Voice, words: str, rest: str) -> None:
    """A decoration that says where to go on. rest: the line behind it; at a line's end it belongs to the bar that is over."""
    words = _SHORT.get(words, words)
    mark = Mark(CODA_SIGN, voice.place) if words == "coda" else mark_of_words(words, voice.place)
    if mark is None:
        return
    bar = voice.bars[-1]
    if not (bar.length or bar.notes or rest.strip()) and len(voice.bars) > 1:
        bar = voice.bars[-2]
        mark = replace(mark, place=bar.length)
    bar.add_marks([mark])
