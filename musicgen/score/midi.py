"""Standard MIDI files to scores: formats 0, 1 and 2, running status, tempo maps, SMPTE time.

Source: MIDI Manufacturers Association, "Standard MIDI Files 1.0" (RP-001). Read here rather than by a library, so that a damaged
or hostile file costs bounded time and memory.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from ..errors import InputError
from ..units import Meter
from .score import (
    MAX_NOTES,
    MeterChange,
    Note,
    Part,
    Score,
    Symbol,
    Tempo,
    check_changes,
    meters_of,
    tempos_of,
    whole_bars,
)

DRUM_CHANNEL = 9
CHORD_TRACK = "Chords"  # name of the track whose texts are chord symbols
MAX_EVENTS = 1_000_000
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
_FRAME_RATES = {24: Fraction(24), 25: Fraction(25), 29: Fraction(30000, 1001), 30: Fraction(30)}
_SMPTE_QUARTERS = 2  # in a second: 120 a minute stands for the tempo that SMPTE time has none of
_MAX_NAME = 60  # characters of a track's name


@dataclass
class _Track:
    """What one track holds, in ticks."""

    name: str = ""
    notes: list[tuple[int, int, int, int]] = field(default_factory=list)  # channel, start, end, pitch
    tempos: list[tuple[int, int]] = field(default_factory=list)  # tick, microseconds a quarter
    meters: list[tuple[int, Meter]] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    end: int = 0


def read_midi(data: bytes, tune: int = 1) -> Score:
    """The score of a MIDI file. tune: which track of a format 2 file, whose tracks are pieces of their own; 1 = the first.

    A part is the notes of one channel in one track; channel 10 has the drums. A note that is never ended lasts to its track's
    end. InputError for what is no MIDI file, is damaged, or has more than a million events.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":
        data = data[data.find(b"MThd") :] if b"MThd" in data[:64] else b""
    if data[:4] != b"MThd" or len(data) < 14:
        raise InputError("it does not begin as a MIDI file does (MThd). Save it as a Standard MIDI File.")
    length = int.from_bytes(data[4:8], "big")
    kind, division = int.from_bytes(data[8:10], "big"), int.from_bytes(data[12:14], "big")
    if length < 6 or kind > 2:
        raise InputError(f"its header is damaged: format {kind}, {length} bytes long. Formats 0, 1 and 2 are read.")
    notices: list[str] = []
    quarters_a_tick = _quarters_a_tick(division, notices)
    budget = [MAX_EVENTS]
    tracks = [_read_track(data, *span, number, budget) for number, span in enumerate(_chunks(data, 8 + length), 1)]
    check_changes(*(sum(len(getattr(track, kind)) for track in tracks) for kind in ("tempos", "meters", "texts")))
    if not tracks:
        raise InputError("it has no tracks. Save it again with notes in it.")
    if kind == 2 and len(tracks) > 1:
        if not 1 <= tune <= len(tracks):
            raise InputError(
                f"'tune' is {tune}, and the file holds {len(tracks)} pieces, one a track. Give 1 to {len(tracks)}."
            )
        notices.append(f"The file holds {len(tracks)} pieces (format 2): the one of track {tune} is read.")
        tracks = [tracks[tune - 1]]
    return _score(tracks, quarters_a_tick, bool(division & 0x8000), notices)


def _quarters_a_tick(division: int, notices: list[str]) -> Fraction:
    if not division & 0x8000:
        if not division:
            raise InputError("its header is damaged: 0 ticks a quarter note. Save it again.")
        return Fraction(1, division)
    rate, ticks = 256 - (division >> 8), division & 0xFF
    if rate not in _FRAME_RATES or not ticks:
        raise InputError(
            f"its header is damaged: {rate} frames a second of {ticks} ticks. SMPTE time has 24, 25, 29 or 30 frames."
        )
    notices.append("The file counts seconds, not beats (SMPTE time): 120 bpm in 4/4 is assumed.")
    return _SMPTE_QUARTERS / (_FRAME_RATES[rate] * ticks)


def _chunks(data: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each track's events; chunks of other kinds are passed over."""
    number = 1
    while position + 8 <= len(data):
        name, end = (
            data[position : position + 4],
            position + 8 + int.from_bytes(data[position + 4 : position + 8], "big"),
        )
        if name == b"MTrk":
            if end > len(data):
                raise InputError(
                    f"it ends within track {number}, {end - len(data)} bytes early: it is damaged, or was not copied whole."
                )
            yield position + 8, end
            number += 1
        position = end


def _read_track(data: bytes, position: int, end: int, number: int, budget: list[int]) -> _Track:
    track, tick, status = _Track(), 0, 0
    sounding: dict[tuple[int, int], deque[int]] = defaultdict(deque)
    try:
        while position < end:
            delta, position = _variable(data, position, end)
            tick += delta
            budget[0] -= 1
            if budget[0] < 0:
                raise InputError(f"it has more than {MAX_EVENTS} events. Give a part of it.")
            byte = data[position]
            if byte >= 0xF0:
                position += 1
                if byte == 0xFF:
                    meta, position = data[position], position + 1
                    size, position = _variable(data, position, end)
                    content, position = data[position : position + size], position + size
                    if position > end:
                        raise IndexError
                    if meta == 0x2F:
                        break
                    _read_meta(track, tick, meta, content)
                elif byte in (0xF0, 0xF7):
                    size, position = _variable(data, position, end)
                    position += size
                    if position > end:
                        raise IndexError
                else:
                    raise InputError(f"track {number} holds byte {byte:#x}, which no MIDI file has: it is damaged.")
                continue
            if byte & 0x80:
                status, position = byte, position + 1
            elif not status:
                raise InputError(f"track {number} begins with data that belong to no event: it is damaged.")
            kind, channel, size = status >> 4, status & 0xF, _DATA_BYTES[status >> 4]
            pitch = data[position]
            velocity = data[position + 1] if size == 2 else 0
            position += size
            if position > end or (pitch | velocity) & 0x80:
                raise IndexError
            if kind == 0x9 and velocity:
                sounding[channel, pitch].append(tick)
            elif kind in (0x8, 0x9) and sounding.get((channel, pitch)):
                track.notes.append((channel, sounding[channel, pitch].popleft(), tick, pitch))
    except IndexError:
        raise InputError(f"an event of track {number} is cut off or damaged. Save the file again.") from None
    for (channel, pitch), starts in sounding.items():
        track.notes += [(channel, start, tick, pitch) for start in starts]
    if len(track.notes) > MAX_NOTES:
        raise InputError(f"track {number} has {len(track.notes)} notes, and at most {MAX_NOTES} are read.")
    track.end = tick
    return track


def _variable(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A number of up to four bytes of seven bits, and the place behind it."""
    value = 0
    for count in range(4):
        if position + count >= end:
            break
        byte = data[position + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + count + 1
    raise IndexError


def _read_meta(track: _Track, tick: int, kind: int, content: bytes) -> None:
    if kind == 0x51 and len(content) == 3 and any(content):
        track.tempos.append((tick, int.from_bytes(content, "big")))
    elif kind == 0x58 and len(content) >= 2:
        beats, unit = content[0], 1 << min(content[1], 10)
        if 1 <= beats <= 32 and unit <= 32:
            track.meters.append((tick, Meter(beats, unit)))
    elif kind == 0x03 and not track.name:  # the first one counts
        track.name = _text(content)
    elif kind == 0x01 and track.name == CHORD_TRACK:
        track.texts.append((tick, _text(content)))


def _text(content: bytes) -> str:
    content = content[: 4 * _MAX_NAME]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return "".join(letter for letter in text if letter.isprintable())[:_MAX_NAME].strip()


def _score(tracks: list[_Track], quarters_a_tick: Fraction, is_smpte: bool, notices: list[str]) -> Score:
    parts: list[Part] = []
    for number, track in enumerate(tracks, 1):
        channels: dict[int, list[Note]] = defaultdict(list)
        for channel, start, end, pitch in track.notes:
            if end > start:
                channels[channel].append(Note(start * quarters_a_tick, (end - start) * quarters_a_tick, pitch))
        if track.name == CHORD_TRACK and track.texts:
            continue  # its notes are those of the symbols
        for channel, notes in sorted(channels.items()):
            name = track.name or f"Track {number}"
            name = f"{name}, channel {channel + 1}" if len(channels) > 1 else name
            parts.append(Part(name, tuple(sorted(notes)), channel == DRUM_CHANNEL))
    tempos = [
        Tempo(tick * quarters_a_tick, round(60e6 / microseconds, 3))
        for track in tracks
        for tick, microseconds in track.tempos
        if not is_smpte
    ]
    meters = meters_of([MeterChange(tick * quarters_a_tick, meter) for track in tracks for tick, meter in track.meters])
    symbols = [Symbol(tick * quarters_a_tick, text) for track in tracks for tick, text in track.texts]
    last = max((note.end for part in parts for note in part.notes), default=Fraction(0))
    length = whole_bars(max(last, *(symbol.start for symbol in symbols), Fraction(0)), meters)
    inside = [tempo for tempo in tempos if tempo.start < length or not tempo.start]
    meters = tuple(change for change in meters if change.start < length or not change.start)
    title = tracks[0].name if len(tracks) > 1 and not tracks[0].notes else ""
    return Score(tuple(parts), length, tempos_of(inside), meters, tuple(sorted(symbols)), title, notices=tuple(notices))
