"""MusicXML, plain (.musicxml, .xml) and zipped (.mxl), to scores.

Source: W3C Music Notation Community Group, "MusicXML 4.0". The text is read measure by measure. Entities are refused, an external
DOCTYPE is passed over and nothing is ever fetched.
"""

import io
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from xml.etree.ElementTree import Element
from xml.parsers import expat

from ..errors import InputError
from ..units import Meter
from .bars import MAX_TIMES, Bar, BarNote
from .layout import lay_out
from .musicxml_marks import marks_of
from .score import MAX_NOTES, NAMES, Score, check_changes, snapped

MAX_XML = 32 * 2**20  # bytes, unzipped
MAX_ELEMENTS = 2_000_000
_MAX_IN_MEASURE = 100_000  # elements
_MAX_DEPTH = 64
_MAX_ENTRIES = 1000  # files in a zip
_MAX_MEASURES = 20_000
_MAX_DIVISIONS = 10**6
_MAX_PARTS = 1000
_BLOCK, _MAX_TAG = 2**16, 2**20  # bytes
_MAX_TEXT = 10_000  # characters of one element
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_QUARTERS = {
    "maxima": 32, "long": 16, "breve": 8, "whole": 4, "half": 2, "quarter": 1, "eighth": Fraction(1, 2),
    "16th": Fraction(1, 4), "32nd": Fraction(1, 8), "64th": Fraction(1, 16),
}  # fmt: skip
# <kind> of <harmony> -> quality of a chord symbol.
_KINDS = {
    "major": "", "minor": ":min", "augmented": ":aug", "diminished": ":dim", "dominant": ":7", "major-seventh": ":maj7",
    "minor-seventh": ":min7", "diminished-seventh": ":dim7", "augmented-seventh": ":7(*5,#5)", "half-diminished": ":hdim7",
    "major-minor": ":minmaj7", "major-sixth": ":maj6", "minor-sixth": ":min6", "dominant-ninth": ":9", "major-ninth": ":maj9",
    "minor-ninth": ":min9", "dominant-11th": ":11", "minor-11th": ":min11", "dominant-13th": ":13", "major-13th": ":maj13",
    "minor-13th": ":min13", "suspended-second": ":sus2", "suspended-fourth": ":sus4", "power": ":5", "none": "N",
}  # fmt: skip


def read_musicxml(data: bytes) -> Score:
    """The score of MusicXML, partwise or timewise, zipped or not. A part is a voice of a part and staff.

    Repeats and endings are played out as the first part has them, D.C., D.S., Fine and Coda as any part does; grace and cue notes are left out; transposing instruments sound
    as they do. InputError for what is no MusicXML, is damaged, declares entities, or is larger than is read.
    """
    if data[:4] == b"PK\x03\x04":
        data = _unzipped(data)
    reader = _Reader()
    _parse(data, reader.read_element)
    return reader.score()


def _unzipped(data: bytes) -> bytes:
    """The score in a .mxl file: the root file that its container names."""
    if data.count(b"PK\x01\x02") > _MAX_ENTRIES:
        raise InputError(f"it is a zip of more than {_MAX_ENTRIES} files, which is no score.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            roots: list[str] = []

            def find(element: Element) -> None:
                roots.extend(root.get("full-path", "") for root in element.iter("rootfile"))

            _parse(_member(archive, "META-INF/container.xml"), find, whole="container")
            if not roots:
                raise InputError("its META-INF/container.xml names no score.")
            return _member(archive, roots[0])
    except (
        zipfile.BadZipFile,
        KeyError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        UnicodeError,
        zlib.error,
    ) as error:
        reason = str(error).partition("\n")[0][:100]
        raise InputError(
            f"it is no whole .mxl file ({type(error).__name__}: {reason}). Save it again, or as .musicxml."
        ) from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:  # by its name in the archive: nothing is written anywhere
        content = file.read(MAX_XML + 1)
    if len(content) > MAX_XML:
        raise InputError(f"it holds more than {MAX_XML // 2**20} MiB when it is unzipped. Give a part of it.")
    return content


def _parse(data: bytes, take: Callable[[Element], None], whole: str = "") -> None:
    """take(element) of each measure, part-list and work as it ends, or of the root named `whole`; each is then forgotten."""
    if len(data) > MAX_XML:
        raise InputError(
            f"it is {len(data) // 2**20} MiB long, and at most {MAX_XML // 2**20} are read. Give a part of it."
        )
    parser = expat.ParserCreate()
    parser.buffer_text = True
    stack: list[Element] = []
    counts = {"all": 0, "measure": 0}
    wanted = {whole} if whole else {"measure", "part-list", "work", "movement-title"}

    def start(tag: str, attributes: dict[str, str]) -> None:
        counts["all"] += 1
        counts["measure"] += 1
        if counts["all"] > MAX_ELEMENTS or counts["measure"] > _MAX_IN_MEASURE or len(stack) >= _MAX_DEPTH:
            raise InputError(
                f"it has more than {MAX_ELEMENTS} elements, {_MAX_IN_MEASURE} in a measure, or {_MAX_DEPTH} in one another."
            )
        tag = tag.rpartition(":")[2]
        if not stack and not whole and tag not in ("score-partwise", "score-timewise"):
            raise InputError(f"its root is <{tag[:40]}>, and that of MusicXML is <score-partwise> or <score-timewise>.")
        element = Element(tag, attributes)
        if len(stack) == 2 and stack[1].tag == "part":  # of a partwise score: it is read and forgotten by measures
            element.set("part", stack[1].get("id", ""))
        elif len(stack) > 1 or (stack and whole):
            stack[-1].append(element)
        stack.append(element)

    def end(tag: str) -> None:
        element = stack.pop()
        if element.tag in wanted:
            take(element)
        if len(stack) == 1 or element.tag == "measure":
            counts["measure"] = 0

    def text(content: str) -> None:
        if not len(stack[-1]) and len(before := stack[-1].text or "") < _MAX_TEXT:
            stack[-1].text = before + content

    def entity(name: str, *_: object) -> None:
        raise InputError(f"it declares an entity ({name[:40]!r}), which no score needs: it is not read.")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.EntityDeclHandler = entity
    try:
        for first in range(0, len(data), _BLOCK):
            parser.Parse(data[first : first + _BLOCK], False)
            if first - parser.CurrentByteIndex > _MAX_TAG:
                raise InputError(f"it has a tag longer than {_MAX_TAG} bytes, which no score has.")
        parser.Parse(b"", True)
    except InputError:  # of the handlers
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise InputError(f"it is no readable XML ({error}). Save it again.") from error


class _Reader:
    """Bars and voices while they are read."""

    def __init__(self) -> None:
        self._bars: list[Bar] = []
        self._parts: dict[str, _PartState] = {}
        self._names: dict[str, str] = {}
        self._title = ""
        self._notices: dict[str, None] = {}
        self._drums: dict[str, bool] = {}  # by voice
        self._ending: frozenset[int] = frozenset()
        self._ended = False
        self._n_notes = self._n_changes = 0

    def score(self) -> Score:
        if not self._bars:
            raise InputError("it has no measures.")
        counts: dict[str, int] = defaultdict(int)
        voices = list(self._drums)
        for voice in voices:
            counts[voice.partition("\0")[0]] += 1
        names = {voice: self._voice_name(voice, counts[voice.partition("\0")[0]]) for voice in voices}
        for bar in self._bars:
            bar.notes = {names[voice]: notes for voice, notes in bar.notes.items()}
        return lay_out(
            self._bars, [(names[voice], self._drums[voice]) for voice in voices], self._title, list(self._notices)
        )

    def _voice_name(self, voice: str, n_voices: int) -> str:
        part, _, number = voice.partition("\0")
        name = self._names.get(part) or part or "Part"
        if list(self._names.values()).count(name) > 1:
            name = f"{name} {part}"
        return f"{name}, {number}" if n_voices > 1 else name

    def read_element(self, element: Element) -> None:
        if element.tag == "part-list":
            for part in element.iter("score-part"):
                name = " ".join((part.findtext("part-name") or "").split())[:60]
                self._names[part.get("id", "")] = name
        elif element.tag == "work":
            self._title = self._title or (element.findtext("work-title") or "").strip()[:120]
        elif element.tag == "movement-title":
            self._title = self._title or (element.text or "").strip()[:120]
        else:
            timewise = element.findall("part")
            index = None
            for part in timewise or [element]:
                id = part.get("id", "") if timewise else part.get("part", "")
                state = self._part(id)
                index = state.n_measures
                self._read_measure(state, part, index)

    def _part(self, id: str) -> "_PartState":
        if id not in self._parts:
            if len(self._parts) >= _MAX_PARTS:
                raise InputError(f"it has more than {_MAX_PARTS} parts.")
            self._parts[id] = _PartState(id, is_first=not self._parts)
        return self._parts[id]

    def _read_measure(self, state: "_PartState", measure: Element, index: int) -> None:
        if index >= _MAX_MEASURES:
            raise InputError(f"it has more than {_MAX_MEASURES} measures. Give a part of it.")
        state.n_measures += 1
        if index == len(self._bars):
            self._bars.append(Bar())
        bar = self._bars[index]
        place = longest = chord_start = Fraction(0)
        for item in measure:
            if item.tag == "attributes":
                self._read_attributes(state, bar, item)
            elif item.tag in ("backup", "forward"):
                step = state.quarters(item.findtext("duration"))
                place = snapped(max(Fraction(0), place - step) if item.tag == "backup" else place + step)
            elif item.tag == "note":
                length = state.quarters(item.findtext("duration"))
                if item.find("chord") is None:
                    chord_start = place
                    place = snapped(place + length)
                self._read_note(state, bar, item, chord_start, length)
            elif item.tag == "harmony":
                self._read_harmony(
                    bar, item, max(Fraction(0), place + _number(item.findtext("offset")) / state.divisions)
                )
            elif item.tag in ("direction", "sound"):
                self._read_tempo(bar, item, place)
                bar.add_marks(
                    marks_of(item, max(Fraction(0), place + _number(item.findtext("offset")) / state.divisions))
                )
            elif item.tag == "barline" and state.is_first:
                self._read_barline(bar, item)
            longest = max(longest, place)
        if state.is_first:
            bar.endings = bar.endings or self._ending
            if self._ended:
                self._ending, self._ended = frozenset(), False
        nominal = Fraction(4 * state.meter.beats, state.meter.unit)
        bar.length = max(bar.length, longest or nominal)

    def _read_attributes(self, state: "_PartState", bar: Bar, item: Element) -> None:
        if (text := item.findtext("divisions")) is not None:
            divisions = _number(text)
            if not 0 < divisions <= _MAX_DIVISIONS:
                raise InputError(f"its divisions are {text.strip()[:40]!r}; they must be above 0.")
            state.divisions = divisions
        time = item.find("time")
        if time is not None and time.findtext("beats") is not None:
            beats = sum(int(_number(part)) for part in (time.findtext("beats") or "").split("+"))
            unit = int(_number(time.findtext("beat-type")))
            if 1 <= beats <= 32 and unit in (1, 2, 4, 8, 16, 32):
                state.meter = Meter(beats, unit)
                bar.meter = state.meter if state.is_first else bar.meter
            else:
                self._notices["A meter that is not read is left out."] = None
        if (transpose := item.find("transpose")) is not None:
            octaves = int(_number(transpose.findtext("octave-change")))
            state.transpose = int(_number(transpose.findtext("chromatic"))) + 12 * octaves

    def _read_note(self, state: "_PartState", bar: Bar, item: Element, start: Fraction, length: Fraction) -> None:
        pitch, is_drum = item.find("pitch"), item.find("unpitched") is not None
        if (
            (pitch is None and not is_drum)
            or item.find("grace") is not None
            or item.find("cue") is not None
            or length <= 0
        ):
            return
        self._n_notes += 1
        if self._n_notes > MAX_NOTES:
            raise InputError(f"it has more than {MAX_NOTES} notes. Give a part of it.")
        staff, voice = item.findtext("staff") or "1", item.findtext("voice") or "1"
        key = f"{state.id}\0staff {staff[:8]}, voice {voice[:8]}"
        self._drums[key] = self._drums.get(key, True) and is_drum
        if pitch is None:
            midi = 38
        else:
            step, alter = (pitch.findtext("step") or "").strip(), _number(pitch.findtext("alter"))
            if step not in _STEPS:
                raise InputError(f"a note has the step {step[:20]!r}; steps are A to G.")
            midi = 12 * (int(_number(pitch.findtext("octave"))) + 1) + _STEPS[step] + round(alter) + state.transpose
            if alter.denominator != 1:
                self._notices["Quarter tones are read as the semitone next to them."] = None
            if not 0 <= midi <= 127:
                raise InputError("a note lies outside MIDI's range, 0 to 127.")
        is_tied = any(tie.get("type") == "start" for tie in item.findall("tie"))
        bar.notes.setdefault(key, []).append(BarNote(start, length, midi, is_tied))

    def _read_harmony(self, bar: Bar, item: Element, place: Fraction) -> None:
        self._count_change()
        kind = (item.findtext("kind") or "").strip()
        root = (item.findtext("root/root-step") or "").strip()
        if kind not in _KINDS or (kind != "none" and root not in _STEPS):
            self._notices[
                f"A chord symbol of the kind {(kind or 'none')[:40]!r} is not read: the chord before it goes on."
            ] = None
            return
        label = _KINDS[kind] if kind == "none" else _note_name(root, item.findtext("root/root-alter")) + _KINDS[kind]
        degrees = []
        for degree in item.findall("degree"):
            name = _accidental(degree.findtext("degree-alter")) + (degree.findtext("degree-value") or "").strip()[:2]
            how = (degree.findtext("degree-type") or "").strip()
            degrees += {"add": [name], "subtract": [f"*{name}"], "alter": [f"*{name.lstrip('b#')}", name]}.get(how, [])
        if degrees and kind != "none":
            joint = label[:-1] + "," if label.endswith(")") else f"{label}(" if ":" in label else f"{label}:maj("
            label = f"{joint}{','.join(degrees)})"
        bass = (item.findtext("bass/bass-step") or "").strip()
        if bass in _STEPS and kind != "none":
            label += "/" + _note_name(bass, item.findtext("bass/bass-alter"))
        bar.symbols.append((place, label))

    def _read_tempo(self, bar: Bar, item: Element, place: Fraction) -> None:
        sound = item if item.tag == "sound" else item.find("sound")
        bpm = _number(sound.get("tempo")) if sound is not None else Fraction(0)
        if not bpm and (metronome := item.find("direction-type/metronome")) is not None:
            unit = Fraction(_QUARTERS.get((metronome.findtext("beat-unit") or "").strip(), 1))
            unit = unit * Fraction(3, 2) if metronome.find("beat-unit-dot") is not None else unit
            bpm = _number(metronome.findtext("per-minute")) * unit
        if 0 < bpm < 10_000:
            self._count_change()
            bar.tempos.append((place, round(float(bpm), 3)))

    def _count_change(self) -> None:
        self._n_changes += 1
        check_changes(self._n_changes)

    def _read_barline(self, bar: Bar, item: Element) -> None:
        ending, repeat = item.find("ending"), item.find("repeat")
        if ending is not None:
            if ending.get("type") == "start":
                numbers = [
                    int(number)
                    for number in (ending.get("number") or "1").replace(",", " ").split()
                    if number.isdigit()
                ]
                self._ending = frozenset(number for number in numbers if 0 < number <= MAX_TIMES)
            else:
                self._ended = True
        if repeat is not None and repeat.get("direction") == "forward":
            bar.begins_repeat = True
        elif repeat is not None:
            bar.times = min(max(int(_number(repeat.get("times")) or 2), 2), MAX_TIMES)


class _PartState:
    """What holds on from measure to measure in one part."""

    def __init__(self, id: str, is_first: bool) -> None:
        self.id, self.is_first = id, is_first
        self.n_measures = 0
        self.divisions = Fraction(1)
        self.meter = Meter(4)
        self.transpose = 0

    def quarters(self, duration: str | None) -> Fraction:
        """A duration in quarter notes; 0 for a negative one."""
        return max(Fraction(0), snapped(_number(duration) / self.divisions))


def _number(text: str | None) -> Fraction:
    """A number of the file, 0 where there is none. InputError for what is none."""
    text = (text or "0").strip()
    try:
        value = Fraction(text) if len(text) <= 20 and "e" not in text.lower() else None
    except (ValueError, ZeroDivisionError):
        value = None
    if value is None:
        raise InputError(f"a number is {text[:40]!r}.")
    return value


def _note_name(step: str, alter: str | None) -> str:
    if abs(_number(alter)) > 2:
        return NAMES[int(_STEPS[step] + _number(alter)) % 12]
    return step + _accidental(alter)


def _accidental(alter: str | None) -> str:
    value = int(_number(alter))
    return "#" * min(value, 2) if value > 0 else "b" * min(-value, 2)
