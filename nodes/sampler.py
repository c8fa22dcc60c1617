"""Conditioning, prompt codes, widgets -> codes."""

from typing import Any

from ..musicgen.codes import Codes
from ..musicgen.config import PARAMETERS, GenerationParams
from . import host
from .inputs import Node, checked, wiring_fault
from .sockets import CATEGORY, CODES, CONDITIONING, MODEL
from .widgets import parameter, socket

_DURATION = PARAMETERS["duration_s"]


class MusicGenSampler(Node):
    DESCRIPTION = (
        "Writes the music, as codes. The seed alone decides the result: same settings, same music. Pieces longer than "
        "the model's window (30 seconds; pansori-mini: 10) are written in overlapping windows."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "musicgen generate",
        "generate music",
        "ksampler",
        "text to music",
        "continue music",
        "music generation",
    )
    FUNCTION = "sample"
    RETURN_TYPES = (CODES,)
    RETURN_NAMES = ("codes",)
    OUTPUT_TOOLTIPS = ("The music as codes of the codec, continued prompt included, for MusicGen Decode.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "model": socket(MODEL, "The language model, from Load MusicGen."),
                "positive": socket(
                    CONDITIONING, "What the music should be like, from MusicGen Text, Prompt Timeline or Blend Prompts."
                ),
                "duration_s": parameter("duration_s"),
                "seed": parameter("seed"),
                "top_k": parameter("top_k"),
                "top_p": parameter("top_p"),
                "temperature": parameter("temperature"),
                "cfg": parameter("cfg"),
                "batch_size": parameter("batch_size"),
            },
            "optional": {
                "prompt": socket(
                    CODES,
                    "Music to continue, from MusicGen Encode Audio or another sampler. Must be shorter than duration_s "
                    "(seconds).",
                ),
                "negative": socket(
                    CONDITIONING, "What to steer away from, from MusicGen Text. Has an effect only if cfg is not 1."
                ),
                "extend_stride_s": parameter("extend_stride_s"),
                "anchor_s": parameter("anchor_s"),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, duration_s: float | None = None, input_types: dict | None = None) -> bool | str:
        # ComfyUI's own check of the range lets NaN through. None: wired from another node.
        if duration_s is not None and not _DURATION.low <= duration_s <= _DURATION.high:
            hint = " Make longer music in several runs, continuing the last one." if duration_s > _DURATION.high else ""
            return f"the length must be from {_DURATION.low:g} to {_DURATION.high:g} seconds, got {duration_s:g}.{hint}"
        return wiring_fault(cls, input_types or {}) or True

    @checked()
    def sample(
        self,
        model: host.Managed,
        positive: Any,
        duration_s: float,
        seed: int,
        top_k: int,
        top_p: float,
        temperature: float,
        cfg: float,
        batch_size: int,
        prompt: Codes | None = None,
        negative: Any | None = None,
        extend_stride_s: float = GenerationParams.extend_stride_s,
        anchor_s: float = GenerationParams.anchor_s,
    ) -> tuple[Codes]:
        params = GenerationParams(
            duration_s=duration_s,
            seed=seed,
            top_k=top_k,
            top_p=top_p,
            temperature=temperature,
            cfg=cfg,
            batch_size=batch_size,
            extend_stride_s=extend_stride_s,
            anchor_s=anchor_s,
        )
        codes = model.run(
            lambda module: module.generate(positive, params, prompt, negative, host.progress(), host.show_text),
            memory_bytes=model.module.memory_bytes(params, positive),
        )
        return (codes,)
