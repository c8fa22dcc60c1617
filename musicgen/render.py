"""One piece of music from a loaded checkpoint, outside ComfyUI. Each module is on the device only while it runs."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from .audio import FADE_MS, Audio, fade, fade_out
from .codes import Codes
from .conditioning import Progression, encode_chords, encode_timeline
from .conditioning.chord_times import TimedChords
from .conditioning.chords import STRENGTH, described
from .conditioning.tune import encode_score
from .config import GenerationParams, check_text
from .errors import InputError
from .loading import Loaded
from .multiband import Diffusion
from .score import Score

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class RenderRequest:
    """Texts and clips that one piece of music is rendered from."""

    text: str | None = None
    negative: str | None = None
    prompt: Audio | None = None  # a clip to continue
    melody: Audio | None = None  # a clip whose melody is followed
    stems: str = "auto"
    fade_ms: float = FADE_MS  # at both ends of the music
    timeline: str | None = None  # texts at their times, in place of `text`
    ending: str = "none"  # of the timeline: one of ENDINGS
    fade_out_s: float = 0.0  # at the end of the music
    chords: Progression | TimedChords | None = None  # in place of a melody
    chord_strength: float = STRENGTH
    score: Score | None = None  # whose melody is followed

    def __post_init__(self) -> None:
        check_text("prompt", self.text)
        check_text("negative", self.negative)
        if sum(given is not None for given in (self.melody, self.chords, self.score)) > 1:
            raise InputError("A melody, a score and chords stand in one place. Give one of them.")


def render(
    loaded: Loaded,
    request: RenderRequest,
    params: GenerationParams,
    device: torch.device,
    on_progress: OnProgress,
    stem_dirs: Sequence[Path] = (),
    diffusion: Diffusion | None = None,
) -> tuple[Audio, Codes]:
    """Condition, generate codes, decode them. An exception raised by on_progress(stage, done, total) stops it.

    diffusion: decodes in place of the codec, from the same seed.
    """
    if diffusion is not None:
        diffusion.check(loaded.codec)
    with on_device(device, loaded.conditioner) as conditioner:
        positive = conditioner.encode_text([request.text])
        if request.timeline is not None:
            positive = encode_timeline(conditioner, request.timeline, request.ending)
        negative = conditioner.encode_text([request.negative]) if request.negative else None
        if request.melody is not None:
            listen = functools.partial(on_progress, "hearing the melody", 0, 1)
            positive = conditioner.encode_melody(positive, request.melody, request.stems, stem_dirs, listen)
        if request.chords is not None:
            logger.info(described(request.chords))
            if request.chords.duration_s > params.duration_s:
                logger.warning(
                    "the chords last %g s, the music %g s: the last ones are not reached",
                    request.chords.duration_s, params.duration_s,
                )  # fmt: skip
            positive = encode_chords(conditioner, positive, request.chords, request.chord_strength)
        if request.score is not None:
            positive = encode_score(conditioner, positive, request.score)
    prompt = None
    if request.prompt is not None:
        with on_device(device, loaded.codec) as codec:
            prompt = codec.encode(request.prompt, lambda *step: on_progress("reading the clip", *step))
    with on_device(device, loaded.model) as model:
        codes = model.generate(positive, params, prompt, negative, lambda *step: on_progress("writing codes", *step))
    with on_device(device, loaded.codec) as codec:
        audio = codec.decode(codes, lambda *step: on_progress("decoding", *step))
        if diffusion is None:
            return fade_out(fade(audio, request.fade_ms), request.fade_out_s), codes
        latents = codec.decode_latent(codes)
    with on_device(device, diffusion) as decoder:
        stage = "decoding with MultiBand Diffusion"
        audio = decoder.refine(audio, latents, params.seed, lambda *step: on_progress(stage, *step))
        return fade_out(fade(audio, request.fade_ms), request.fade_out_s), codes


class on_device(Generic[M]):
    """Move a module to a device for a with block, and back to the CPU after it."""

    def __init__(self, device: torch.device, module: M):
        self._device, self._module = device, module

    def __enter__(self) -> M:
        return self._module.to(self._device)

    def __exit__(self, *_: object) -> None:
        self._module.to("cpu")


def find_device(name: str) -> torch.device:
    """auto = CUDA, else Apple's GPU, else the CPU. InputError for a device that cannot be used here."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise RuntimeError("mps is the GPU of Apple's processors, which torch does not find")
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"'--device {name}' cannot be used here: {reason}. Leave it out, or give cpu.") from error
    return device
