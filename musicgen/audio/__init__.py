"""Audio: the type, files, conversion and levels."""

from .levels import LEVELLINGS, STRATEGIES, normalize
from .loudness import measure_lufs
from .reading import read
from .waveform import FADE_MS, MAX_CHANNELS, Audio, convert, fade, trim
from .writing import FORMATS, write

__all__ = [
    "FADE_MS",
    "FORMATS",
    "LEVELLINGS",
    "MAX_CHANNELS",
    "STRATEGIES",
    "Audio",
    "convert",
    "fade",
    "measure_lufs",
    "normalize",
    "read",
    "trim",
    "write",
]
