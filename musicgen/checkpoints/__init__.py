"""Checkpoints: from the files of each format to one configuration and one naming of the weights."""

from .checkpoint import Checkpoint, TextEncoderSource
from .open import open_checkpoint, open_fine_tune
from .weights.blend import blend
from .weights.fill import fill
from .weights.lazy import Weight

__all__ = ["Checkpoint", "TextEncoderSource", "Weight", "blend", "fill", "open_checkpoint", "open_fine_tune"]
