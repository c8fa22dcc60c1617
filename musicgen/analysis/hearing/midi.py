"""What was heard as a standard MIDI file: melody, chords and drums over the tempo and meter."""

import io

from ...dependencies import require
from .chords import NAMES, NONE, QUALITIES, SEVENTHS
from .notes import DRUMS
from .result import Heard

_TICKS = 480  # a quarter note
_DRUM_CHANNEL, _DRUM_S = 9, 0.05
_UNKNOWN_BPM = 120.0


def midi_bytes(heard: Heard) -> bytes:
    """A file of type 1: tempo and meter, then the tracks Melody, Chords and Drums.

    Ticks count from the beginning of the sound at one constant tempo, so that times in seconds are kept to a millisecond; where no
    pulse is heard, it is 120 bpm. DependencyError without mido.
    """
    mido = require("mido", "Writing MIDI")
    tempo = mido.bpm2tempo(heard.bpm or _UNKNOWN_BPM)
    file = mido.MidiFile(type=1, ticks_per_beat=_TICKS)
    conductor = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=tempo)])
    if heard.meter:
        conductor.append(mido.MetaMessage("time_signature", numerator=heard.meter, denominator=4))
    file.tracks.append(conductor)
    for name, channel, program, notes in (
        ("Melody", 0, 73, [(note.start_s, note.end_s, note.pitch) for note in heard.melody]),
        ("Chords", 1, 0, chord_notes(heard)),
        ("Drums", _DRUM_CHANNEL, 0, [(hit.time_s, hit.time_s + _DRUM_S, DRUMS[hit.drum]) for hit in heard.drums]),
    ):
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
        if channel != _DRUM_CHANNEL:
            track.append(mido.Message("program_change", channel=channel, program=program))
        file.tracks.append(track)
        events = [(end_s, 0, pitch) for _, end_s, pitch in notes] + [(start_s, 1, pitch) for start_s, _, pitch in notes]
        before = 0
        for time_s, is_on, pitch in sorted(events):
            tick = round(mido.second2tick(time_s, _TICKS, tempo))
            kind = "note_on" if is_on else "note_off"
            track.append(mido.Message(kind, channel=channel, note=pitch, velocity=80 * is_on, time=tick - before))
            before = tick
    file_bytes = io.BytesIO()
    file.save(file=file_bytes)
    return file_bytes.getvalue()


def chord_notes(heard: Heard) -> list[tuple[float, float, int]]:
    """(start, end, pitch) of each note of the chords, in seconds and MIDI pitches."""
    notes = []
    for span in heard.chords:
        if span.label != NONE:
            root, colon, quality = span.label.partition(":")
            steps = (QUALITIES | SEVENTHS)[colon + quality]
            notes += [(span.start_s, span.end_s, 48 + NAMES.index(root) + step) for step in steps]
    return notes
