"""Audio: the type, files, conversion and levels."""

from .files import FORMATS, read, write
from .levels import STRATEGIES, measure_lufs, normalize
from .waveform import MAX_CHANNELS, Audio, convert, trim

__all__ = [
    "FORMATS",
    "MAX_CHANNELS",
    "STRATEGIES",
    "Audio",
    "convert",
    "measure_lufs",
    "normalize",
    "read",
    "trim",
    "write",
]
