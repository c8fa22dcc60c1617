"""The language model: conditioning and prompt codes in, codes [B, K, T] out. Never sees a waveform or a text."""

from .generate import OnFrames, generate_codes
from .linear import Int8Linear, Linear, quantize_linears, replace_linears, storage_dtype
from .model import LM, Rows, Stream
from .sampling import RowNoise, Sampling, row_seed
from .stepper import PlainStepper, Stepper

__all__ = [
    "LM", "Int8Linear", "Linear", "OnFrames", "PlainStepper", "RowNoise", "Rows", "Sampling", "Stepper",
    "Stream", "generate_codes", "quantize_linears", "replace_linears", "row_seed", "storage_dtype",
]  # fmt: skip
