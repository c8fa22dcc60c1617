"""Conditioning: text (and melody) turned into vectors of the language model's width."""

from .conditioner import Conditioner, Conditioning
from .melody import Melody
from .stems import CHOICES as STEM_CHOICES
from .text import TextEncoder, t5_encoder
from .tokenizer import Tokenizer

__all__ = [
    "STEM_CHOICES",
    "Conditioner",
    "Conditioning",
    "Melody",
    "TextEncoder",
    "Tokenizer",
    "t5_encoder",
]
