"""Scores to Standard MIDI files of format 1."""

import math
from collections.abc import Callable, Iterable

from .midi import CHORD_TRACK, DRUM_CHANNEL
from .score import Note, Score

_TICKS, _MOST_TICKS = 480, 32_767  # a quarter note: at the least, and by the file's 15 bits
_VELOCITY = 80
_PROGRAM = 0
_CHORD_OCTAVE = 48  # MIDI pitch of the C from which notes of chords are counted
_CHANNELS = [channel for channel in range(16) if channel != DRUM_CHANNEL]


def midi_bytes(score: Score, chord_notes: Callable[[str], Iterable[int]] | None = None) -> bytes:
    """The score as a file: tempo and meter, then a track a part, then the chord symbols as texts.

    Ticks are fine enough for every place of the score, where 32,767 a quarter allow it: `read_midi` then gives back the same
    notes, tempos, meters and symbols. chord_notes(label) gives the pitch classes that are written out with a symbol.
    """
    ticks = _ticks_of(score)
    conductor = [_meta(0x03, score.title.encode())] if score.title else []
    changes = [(round(tempo.start * ticks), 0x51, _tempo(tempo.bpm)) for tempo in score.tempos]
    for change in score.meters:
        meter = bytes((change.meter.beats, int(math.log2(change.meter.unit)), 24, 8))
        changes.append((round(change.start * ticks), 0x58, meter))
    tracks = [_track([*conductor], [(tick, 0, _meta(kind, content)[1:]) for tick, kind, content in sorted(changes)])]
    for number, part in enumerate(score.parts):
        channel = DRUM_CHANNEL if part.is_drums else _CHANNELS[number % len(_CHANNELS)]
        head = [_meta(0x03, part.name.encode())]
        if not part.is_drums:
            head.append(bytes((0, 0xC0 | channel, _PROGRAM)))
        tracks.append(_track(head, _events(part.notes, channel, ticks)))
    if score.symbols:
        tracks.append(_chord_track(score, ticks, chord_notes))
    header = (
        b"MThd" + (6).to_bytes(4, "big") + bytes((0, 1)) + len(tracks).to_bytes(2, "big") + ticks.to_bytes(2, "big")
    )
    return header + b"".join(tracks)


def _ticks_of(score: Score) -> int:
    """Ticks a quarter that all places are whole numbers of; 480 where there is no such number."""
    ticks = _TICKS
    places = [symbol.start for symbol in score.symbols] + [change.start for change in (*score.tempos, *score.meters)]
    denominators = {place.denominator for place in places}
    for part in score.parts:
        denominators |= {place.denominator for note in part.notes for place in (note.start, note.length)}
    for denominator in sorted(denominators):
        finer = math.lcm(ticks, denominator)
        if finer > _MOST_TICKS:
            return ticks
        ticks = finer
    return ticks


def _tempo(bpm: float) -> bytes:
    return min(max(round(60e6 / bpm), 1), 0xFFFFFF).to_bytes(3, "big")


def _events(notes: Iterable[Note], channel: int, ticks: int) -> list[tuple[int, int, bytes]]:
    """(tick, rank, message without its time): ends come before beginnings."""
    events = []
    for note in notes:
        start = round(note.start * ticks)
        end = max(round(note.end * ticks), start + 1)
        events.append((start, 1, bytes((0x90 | channel, note.pitch, _VELOCITY))))
        events.append((end, 0, bytes((0x80 | channel, note.pitch, 0))))
    return sorted(events)


def _chord_track(score: Score, ticks: int, chord_notes: Callable[[str], Iterable[int]] | None) -> bytes:
    channel = _CHANNELS[len(score.parts) % len(_CHANNELS)]
    events, ends = [], [*(symbol.start for symbol in score.symbols[1:]), score.length]
    for symbol, end in zip(score.symbols, ends):
        events.append((round(symbol.start * ticks), 2, _meta(0x01, symbol.label.encode())[1:]))
        pitches = sorted(chord_notes(symbol.label)) if chord_notes and end > symbol.start else []
        notes = [Note(symbol.start, end - symbol.start, _CHORD_OCTAVE + pitch) for pitch in pitches]
        events += _events(notes, channel, ticks)
    return _track([_meta(0x03, CHORD_TRACK.encode())], sorted(events))


def _track(head: list[bytes], events: list[tuple[int, int, bytes]]) -> bytes:
    content, before = bytearray(b"".join(head)), 0
    for tick, _, message in events:
        content += _variable(tick - before) + message
        before = tick
    content += _meta(0x2F, b"")
    return b"MTrk" + len(content).to_bytes(4, "big") + bytes(content)


def _meta(kind: int, content: bytes) -> bytes:
    """A meta event with a time of 0 in front."""
    return bytes((0, 0xFF, kind)) + _variable(len(content)) + content


def _variable(value: int) -> bytes:
    """A number in bytes of seven bits, at most four of them."""
    value = min(value, 0x0FFFFFFF)
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | value & 0x7F)
    return bytes(reversed(groups))
