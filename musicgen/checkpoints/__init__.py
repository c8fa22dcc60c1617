"""Checkpoints: from the files of each format to one configuration and one naming of the weights."""

from .adapter import Adapter
from .checkpoint import Checkpoint, TextEncoderSource
from .open import open_checkpoint, open_fine_tune
from .weights.adapt import adapt_text_encoder
from .weights.blend import blend, merge
from .weights.fill import fill
from .weights.lazy import Weight

__all__ = [
    "Adapter",
    "Checkpoint",
    "TextEncoderSource",
    "Weight",
    "adapt_text_encoder",
    "blend",
    "fill",
    "merge",
    "open_checkpoint",
    "open_fine_tune",
]
