"""What is heard in a piece: tempo, beats, bars, key, chords, sections, melody and drums.

Chords are heard by another method than the melody conditioning's chroma: peaks of spectra of three resolutions, in tune with
the piece, a beat at a time.
"""

from ..choices import MAX_METER, VOCABULARIES
from .chords import NONE, ChordSpan
from .listen import LONGEST_S, SHORTEST_S, check_hearing, hear
from .midi import heard_parts, midi_bytes
from .notes import DRUMS, Hit, Note
from .picture import hearing_picture
from .result import Heard
from .sections import Section
from .voice import hear_voice

__all__ = [
    "DRUMS",
    "LONGEST_S",
    "MAX_METER",
    "NONE",
    "SHORTEST_S",
    "VOCABULARIES",
    "ChordSpan",
    "Heard",
    "Hit",
    "Note",
    "Section",
    "check_hearing",
    "hear",
    "hear_voice",
    "heard_parts",
    "hearing_picture",
    "midi_bytes",
]
