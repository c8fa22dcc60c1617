"""Scores: notes, chord symbols, tempo and meter, read from MIDI, MusicXML, ABC and typed notes, and written as MIDI."""

from .abc import read_abc
from .choices import CHORDS, MELODY, SUFFIXES
from .harmony import with_heard_chords
from .melody import chosen_parts, melody_of, melody_part, upper_line
from .midi import read_midi
from .midi_writing import midi_bytes
from .musicxml import read_musicxml
from .picture import score_picture
from .prepare import described, prepared
from .reading import read_score
from .score import MeterChange, Note, Part, Score, Symbol, Tempo
from .typed import read_notes, written

__all__ = [
    "CHORDS",
    "MELODY",
    "SUFFIXES",
    "MeterChange",
    "Note",
    "Part",
    "Score",
    "Symbol",
    "Tempo",
    "chosen_parts",
    "described",
    "melody_of",
    "melody_part",
    "midi_bytes",
    "prepared",
    "read_abc",
    "read_midi",
    "read_musicxml",
    "read_notes",
    "read_score",
    "score_picture",
    "upper_line",
    "with_heard_chords",
    "written",
]
