"""Checkpoints: from the files of each format to one configuration and one naming of the weights."""

from .blend import blend
from .checkpoint import Checkpoint, TextEncoderSource
from .fill import fill
from .formats import open_checkpoint
from .weight import Weight

__all__ = ["Checkpoint", "TextEncoderSource", "Weight", "blend", "fill", "open_checkpoint"]
