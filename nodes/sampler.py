"""Conditioning, prompt codes, widgets -> codes."""

import math
from typing import Any

from ..musicgen.codes import Codes
from ..musicgen.config import MAX_SEED, GenerationParams
from . import host
from .sockets import CATEGORY, CODES, CONDITIONING, MODEL

MIN_DURATION_S, MAX_DURATION_S = 0.1, 3600.0


class MusicGenSampler:
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
                "model": (MODEL, {"tooltip": "The language model, from Load MusicGen."}),
                "positive": (CONDITIONING, {"tooltip": "What the music should be like, from MusicGen Text."}),
                "duration_s": (
                    "FLOAT",
                    {
                        "default": 8.0,
                        "min": MIN_DURATION_S,
                        "max": MAX_DURATION_S,
                        "step": 0.1,
                        "tooltip": "Length of the whole result in seconds, the continued clip included.",
                    },
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": MAX_SEED,
                        "step": 1,
                        "control_after_generate": True,
                        "tooltip": "Decides the random choices (no unit). Same seed and settings, same music.",
                    },
                ),
                "top_k": (
                    "INT",
                    {
                        "default": 250,
                        "min": 0,
                        "max": 2048,
                        "step": 1,
                        "tooltip": "Choose among this many most likely codes (a count). Lower is safer and more "
                        "repetitive. 0 = off, all of them. Ignored while top_p is on.",
                    },
                ),
                "top_p": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "Choose among the likeliest codes that together reach this probability (0 to 1). "
                        "0 = off, top_k is used.",
                    },
                ),
                "temperature": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 10.0,
                        "step": 0.01,
                        "tooltip": "How adventurous the choices are (a factor, 1 = as trained). 0 = always the "
                        "likeliest code, without chance.",
                    },
                ),
                "cfg": (
                    "FLOAT",
                    {
                        "default": 3.0,
                        "min": 0.0,
                        "max": 20.0,
                        "step": 0.1,
                        "tooltip": "Classifier-free guidance: how strictly the description is followed (a factor). "
                        "1 = off and twice as light to compute.",
                    },
                ),
                "batch_size": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 64,
                        "step": 1,
                        "tooltip": "How many different takes to make at once (a count). The first is what a batch of "
                        "one gives.",
                    },
                ),
            },
            "optional": {
                "prompt": (
                    CODES,
                    {
                        "tooltip": "Music to continue, from MusicGen Encode Audio or another sampler. Must be shorter "
                        "than duration_s (seconds)."
                    },
                ),
                "negative": (
                    CONDITIONING,
                    {"tooltip": "What to steer away from, from MusicGen Text. Has an effect only if cfg is not 1."},
                ),
                "extend_stride_s": (
                    "FLOAT",
                    {
                        "default": 18.0,
                        "min": 1.0,
                        "max": 29.0,
                        "step": 0.1,
                        "tooltip": "Only for music longer than the model's window: seconds of new music that each "
                        "further window adds. Smaller remembers more of what came before, and takes longer. 18 also stands for "
                        "the right stride of models with shorter windows.",
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, duration_s: float = 8.0) -> bool | str:
        # ComfyUI's own check of the range lets NaN through.
        if math.isnan(duration_s) or not MIN_DURATION_S <= duration_s <= MAX_DURATION_S:
            return (
                f"the length must be from {MIN_DURATION_S:g} to {MAX_DURATION_S:g} seconds, got {duration_s:g}. "
                "Make longer music in several runs, continuing the last one."
            )
        return True

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
        extend_stride_s: float = 18.0,
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
        )
        codes = model.run(
            lambda module: module.generate(positive, params, prompt=prompt, negative=negative, on_step=host.progress()),
            memory_bytes=model.module.memory_bytes(params, positive),
        )
        return (codes,)
