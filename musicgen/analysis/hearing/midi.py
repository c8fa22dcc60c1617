"""What was heard as notes, and as a standard MIDI file: melody, chords and drums over the tempo and meter."""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from ...score import MeterChange, Note, Part, Score, Tempo
from ...score import midi_bytes as score_bytes
from ...score.score import DEFAULT_BPM
from ...units import Meter
from .chords import NAMES, NONE, QUALITIES, SEVENTHS
from .notes import DRUMS
from .result import Heard

_DRUM_S = 0.05


def midi_bytes(heard: Heard) -> bytes:
    """A file of format 1: tempo and meter, then the tracks Melody, Chords and Drums.

    Ticks count from the beginning of the sound at one constant tempo, so that times in seconds are kept to a millisecond; where no
    pulse is heard, it is 120 bpm.
    """
    meter = MeterChange(Fraction(0), Meter(heard.meter or 4, heard.unit))
    empty = Score((), Fraction(0), (Tempo(Fraction(0), heard.bpm * 4 / heard.unit or DEFAULT_BPM),), (meter,))
    parts = heard_parts(heard, empty)
    length = max((note.end for part in parts for note in part.notes), default=Fraction(0))
    return score_bytes(replace(empty, parts=parts, length=length))


def heard_parts(heard: Heard, score: Score) -> tuple[Part, ...]:
    """Melody, chords and drums at their times, on the tempo of a score."""
    return (
        Part("Melody", _placed(score, [(note.start_s, note.end_s, note.pitch) for note in heard.melody])),
        Part("Chords", _placed(score, chord_notes(heard))),
        Part(
            "Drums", _placed(score, [(hit.time_s, hit.time_s + _DRUM_S, DRUMS[hit.drum]) for hit in heard.drums]), True
        ),
    )


def _placed(score: Score, times_s: Iterable[tuple[float, float, int]]) -> tuple[Note, ...]:
    """Notes at times in seconds, on a score's tempo."""
    notes = []
    for start_s, end_s, pitch in times_s:
        start = score.place_at(max(start_s, 0.0))
        notes.append(Note(start, max(score.place_at(end_s) - start, Fraction(1, 480)), pitch))
    return tuple(sorted(notes))


def chord_notes(heard: Heard) -> list[tuple[float, float, int]]:
    """(start, end, pitch) of each note of the chords, in seconds and MIDI pitches."""
    notes = []
    for span in heard.chords:
        if span.label != NONE:
            root, colon, quality = span.label.partition(":")
            steps = (QUALITIES | SEVENTHS)[colon + quality]
            notes += [(span.start_s, span.end_s, 48 + NAMES.index(root) + step) for step in steps]
    return notes
