"""One piece of music from a loaded checkpoint, each part on the device only while it works. For use without ComfyUI."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .audio import Audio
from .codes import Codes
from .config import GenerationParams
from .errors import InputError
from .loading import Loaded
from .pipeline import Diffusion

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Piece:
    """What a piece is made from."""

    text: str | None = None
    negative: str | None = None
    prompt: Audio | None = None  # a clip to continue
    melody: Audio | None = None  # a clip whose melody is followed
    stems: str = "auto"


def make(
    loaded: Loaded,
    piece: Piece,
    params: GenerationParams,
    device: torch.device,
    on_progress: OnProgress,
    stem_dirs: Sequence[Path] = (),
    diffusion: Diffusion | None = None,
) -> tuple[Audio, Codes]:
    """Condition, write codes, decode them. on_progress(stage, done, total) may raise to stop it.

    diffusion: decodes in the codec's place, from the same seed.
    """
    if diffusion is not None:
        diffusion.check(loaded.codec)
    with _on(device, loaded.conditioner) as conditioner:
        positive = conditioner.encode_text([piece.text])
        negative = conditioner.encode_text([piece.negative]) if piece.negative else None
        if piece.melody is not None:
            positive = conditioner.encode_melody(positive, piece.melody, piece.stems, stem_dirs)
    prompt = None
    if piece.prompt is not None:
        with _on(device, loaded.codec) as codec:
            prompt = codec.encode(piece.prompt, lambda *step: on_progress("reading the clip", *step))
    with _on(device, loaded.model) as model:
        codes = model.generate(positive, params, prompt, negative, lambda *step: on_progress("writing codes", *step))
    with _on(device, loaded.codec) as codec:
        plain = codec.decode(codes, lambda *step: on_progress("decoding", *step))
        if diffusion is None:
            return plain, codes
        latents = codec.decode_latent(codes)
    with _on(device, diffusion) as diffusion:
        stage = "decoding with MultiBand Diffusion"
        return diffusion.refine(plain, latents, params.seed, lambda *step: on_progress(stage, *step)), codes


class _on:
    """A module on a device for the length of a with block."""

    def __init__(self, device: torch.device, module: nn.Module):
        self._device, self._module = device, module

    def __enter__(self) -> nn.Module:
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
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"'--device {name}' cannot be used here: {reason}. Leave it out, or give cpu.") from error
    return device
