"""The language model: conditioning and prompt codes in, codes [B, K, T] out. Never sees a waveform or a text."""

from .generate import generate_codes
from .linear import quantize_linears, resolve_precision, storage_dtype
from .model import LM, Stream
from .sampling import RowNoise, Sampling, row_seed

__all__ = [
    "LM",
    "RowNoise",
    "Sampling",
    "Stream",
    "generate_codes",
    "quantize_linears",
    "resolve_precision",
    "row_seed",
    "storage_dtype",
]
