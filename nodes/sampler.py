"""Conditioning, prompt codes, widgets -> codes."""

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..musicgen.codes import Codes
from ..musicgen.config import PARAMETERS, GenerationParams
from ..musicgen.errors import InputError
from ..musicgen.live import Written
from ..musicgen.units import Length
from . import host
from .inputs import Node, checked, wiring_fault
from .live import LISTEN, Live, live
from .sockets import CATEGORY, CODEC, CODES, CONDITIONING, MODEL
from .widgets import choice, parameter, socket, text

log = logging.getLogger(__name__)
_DURATION = PARAMETERS["duration_s"]
ON_CANCEL = ("discard", "keep")

# Node id -> number of its last run that a Cancel ended and that was kept. ComfyUI caches the short piece as the result of
# the run that began; IS_CHANGED makes the next one another.
_kept: dict[str, int] = {}
_numbers = itertools.count(1)


class MusicGenSampler(Node):
    DESCRIPTION = (
        "Writes the music, as codes. The seed alone decides the result: same settings, same music. Pieces longer than "
        "the model's window (30 seconds; general-mini and pansori-mini: 10) are written in overlapping windows."
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
                "codec": socket(
                    CODEC,
                    "From the same Load MusicGen, to hear and see the music in the page while it is written. The result is "
                    "the same with and without.",
                ),
                "listen": choice(
                    LISTEN,
                    "What the page gets while the music is written, if 'codec' is connected: the first take of a batch. "
                    "Takes about 3 % of the time; where decoding is slow, the sound falls behind the writing.",
                ),
                "on_cancel": choice(
                    ON_CANCEL,
                    "What Cancel does with the music written so far. discard: the run ends without a result. keep: it goes "
                    "on with a shorter piece, which is decoded and saved; a second Cancel ends it.",
                ),
                "length": text(
                    "",
                    "The length in a musician's words, in place of duration_s: 8 bars @ 92 in 4/4, 32 beats @ 120, 1:30. "
                    "Tell the tempo to MusicGen Text too. Empty = duration_s.",
                    placeholder="8 bars @ 92 in 4/4",
                ),
            },
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> int:
        return _kept.get(host.executing_node() or "", 0)

    @classmethod
    def VALIDATE_INPUTS(
        cls, duration_s: float | None = None, length: str | None = None, input_types: dict | None = None
    ) -> bool | str:
        # ComfyUI's own check of the range lets NaN through. None: wired from another node.
        if duration_s is not None and not _DURATION.low <= duration_s <= _DURATION.high:
            hint = " Make longer music in several runs, continuing the last one." if duration_s > _DURATION.high else ""
            return f"the length must be from {_DURATION.low:g} to {_DURATION.high:g} seconds, got {duration_s:g}.{hint}"
        try:
            _seconds(length or "", 1.0)
        except InputError as error:
            return str(error)
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
        codec: host.Managed | None = None,
        listen: str = LISTEN[0],
        on_cancel: str = ON_CANCEL[0],
        length: str = "",
    ) -> tuple[Codes]:
        duration_s = _seconds(length, duration_s)
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
        memory_bytes = model.module.memory_bytes(params, positive)
        n_known = 0 if prompt is None else prompt.n_frames
        written = Written(n_known)
        hearer = live(codec, listen, model.module, n_known, duration_s)

        def generate(module: Any) -> Codes:
            on_frames = _both(written, hearer)
            return module.generate(
                positive, params, prompt=prompt, negative=negative, on_step=host.progress(), on_redraw=host.show_text,
                on_frames=on_frames,
            )  # fmt: skip

        try:
            codes = model.run(generate, memory_bytes)
        except BaseException as error:
            codes = None
            if on_cancel == "keep" and host.is_cancel(error):
                codec_config = model.module.config.codec
                codes = written.cut_short(duration_s, codec_config.frame_rate_hz, codec_config.identity)
            if hearer is not None:
                hearer.stop("stopped" if codes is None else "kept")
            if codes is None:
                raise
            codes = replace(codes, origins=model.module.origins(positive, params))
            _keep(codes)
        else:
            if hearer is not None:
                hearer.finish(codes)
        return (codes,)


def _seconds(length: str, duration_s: float) -> float:
    """`length` in seconds if there is one, else `duration_s`."""
    return Length.parse(length).duration_s if length.strip() else duration_s


def _both(written: Written, hearer: Live | None) -> Callable[[int, Callable[[int, int], Tensor]], None]:
    """One `on_frames` of two."""

    def on_frames(n_frames: int, read: Callable[[int, int], Tensor]) -> None:
        written(n_frames, read)
        if hearer is not None:
            hearer(n_frames, read)

    return on_frames


def _keep(codes: Codes) -> None:
    """Log what a Cancel has left, and see to it that the next run of this node is not answered with it."""
    mark, node_id = codes.cut_short, host.executing_node()
    assert mark is not None
    log.info("Cancelled: the first %.1f s of %g s are kept.", mark.kept_s, mark.asked_s)
    if node_id is not None:
        _kept[node_id] = next(_numbers)
