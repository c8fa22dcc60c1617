"""Audio: the type, files, conversion and levels."""

from .conversion import convert
from .levels import LEVELLINGS, MAX_FADE_OUT_S, STRATEGIES, fade_out, normalize
from .loudness import measure_lufs
from .reading import read
from .waveform import FADE_MS, MAX_CHANNELS, MAX_FADE_MS, Audio, fade, trim
from .writing import FORMATS, write, write_new

__all__ = [
    "FADE_MS",
    "FORMATS",
    "LEVELLINGS",
    "MAX_CHANNELS",
    "MAX_FADE_MS",
    "MAX_FADE_OUT_S",
    "STRATEGIES",
    "Audio",
    "convert",
    "fade",
    "fade_out",
    "measure_lufs",
    "normalize",
    "read",
    "trim",
    "write",
    "write_new",
]
