"""Types on the wires, and ComfyUI's AUDIO to the engine's Audio and back."""

from typing import Any

import torch

from ..musicgen.audio import Audio
from ..musicgen.codes import CutShort
from ..musicgen.errors import InputError
from . import host

MODEL = "MUSICGEN_MODEL"  # host.Managed around a LanguageModel
CONDITIONER = "MUSICGEN_CONDITIONER"  # host.Managed around a Conditioner
CODEC = "MUSICGEN_CODEC"  # host.Managed around a Codec
CONDITIONING = "MUSICGEN_CONDITIONING"  # the engine's Conditioning, tensors on the CPU
DIFFUSION = "MUSICGEN_DIFFUSION"  # host.Managed around a Diffusion
CODES = "MUSICGEN_CODES"  # the engine's Codes
SCORE = "MUSICGEN_SCORE"  # the engine's Score
DATASET = "MUSICGEN_DATASET"  # the engine's Dataset
LOSS_MAP = "LOSS_MAP"  # the core's own: {"loss": [float for each update]}
AUDIO = "AUDIO"  # ComfyUI's {"waveform": [B, C, L] float, "sample_rate": int}

CATEGORY = "audio/MusicGen"


def audio_in(value: dict[str, Any] | None, name: str = "audio") -> Audio:
    """ComfyUI's AUDIO -> Audio on the CPU, at its own rate. InputError, naming the input, if it is unusable.

    The tensor may be another node's cached output: it is shared or copied, never changed.
    """
    if value is None:
        raise InputError(
            f"'{name}' carries no sound: what is connected gave nothing, as a video without a sound track does."
        )
    try:
        waveform, rate_hz = value["waveform"], value["sample_rate"]
    except (TypeError, KeyError) as error:
        raise InputError(
            f"'{name}' must be AUDIO, with a 'waveform' and a 'sample_rate', got {type(value).__name__}. "
            "Connect a node that outputs AUDIO."
        ) from error
    if not isinstance(waveform, torch.Tensor):
        raise InputError(
            f"'{name}': its 'waveform' must be a tensor, got {type(waveform).__name__}. "
            "Connect a node that outputs AUDIO."
        )
    try:
        return Audio(waveform.detach().cpu(), int(rate_hz))
    except InputError as error:
        raise InputError(f"'{name}': {error}") from error


def audio_out(audio: Audio, cut_short: CutShort | None = None) -> dict[str, Any]:
    """Audio -> ComfyUI's AUDIO: float32, contiguous, on the device that ComfyUI keeps results on.

    cut_short: mark of a piece that a Cancel ended, under a key of its own, which other nodes ignore.
    """
    value = {"waveform": audio.samples.to(host.intermediate_device()).contiguous(), "sample_rate": audio.rate_hz}
    return value if cut_short is None else {**value, "cut_short": cut_short}


def cut_short_of(value: dict[str, Any]) -> CutShort | None:
    """The mark that an AUDIO carries, if any."""
    mark = value.get("cut_short")
    return mark if isinstance(mark, CutShort) else None
