"""Conditioning: text (and melody) turned into vectors of the language model's width."""

from .conditioner import Conditioner, Conditioning
from .text import TextEncoder, empty_encoder, find_encoder

__all__ = ["Conditioner", "Conditioning", "TextEncoder", "empty_encoder", "find_encoder"]
