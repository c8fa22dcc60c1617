"""Conditioning: text (and melody) turned into vectors of the language model's width."""

from .chords import Chords, Progression, chord_list, encode_chords
from .conditioner import Conditioner, Conditioning
from .melody import Melody
from .mixture import Mixture, Share, blend, check_model
from .stems import CHOICES as STEM_CHOICES
from .text import TextEncoder, t5_encoder
from .timeline import ENDINGS, Timeline, encode_timeline, tempo_remarks, timeline_lines, told_lines
from .tokenizer import Tokenizer

__all__ = [
    "ENDINGS",
    "STEM_CHOICES",
    "Chords",
    "Conditioner",
    "Conditioning",
    "Melody",
    "Mixture",
    "Progression",
    "Share",
    "TextEncoder",
    "Timeline",
    "Tokenizer",
    "blend",
    "check_model",
    "chord_list",
    "encode_chords",
    "encode_timeline",
    "t5_encoder",
    "tempo_remarks",
    "timeline_lines",
    "told_lines",
]
