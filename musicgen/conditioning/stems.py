"""Optional stem separation by Demucs, which removes drums and bass from a reference melody."""

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..audio import Audio, convert
from ..dependencies import require
from ..errors import CheckpointError, DependencyError, InputError
from ..separation import PURPOSE, Separator, load_separator

logger = logging.getLogger(__name__)

CHOICES = ("auto", "demucs", "off")
_MELODIC_STEMS = ("vocals", "other")

OnStep = Callable[[], None]


def melodic_part(
    audio: Audio, choice: str, rate_hz: int, dirs: Sequence[Path], device: torch.device, on_step: OnStep | None = None
) -> Tensor:
    """Mono samples [L] at `rate_hz`: the voices and melodic instruments of one clip, as `choice` says.

    auto separates them where demucs is installed and its weights are there, else takes the mix; demucs demands
    it (DependencyError, CheckpointError); off takes the mix. The path taken is logged. `on_step` is called
    many times a second meanwhile; what it raises ends the work.
    Source: audiocraft `ChromaStemConditioner._get_stemmed_wav`.
    """
    if choice not in CHOICES:
        raise InputError(f"'stems' must be one of {', '.join(CHOICES)}, got {choice!r}")
    mix = convert(audio, rate_hz, 1)
    if choice != "off":
        try:
            separator = load_separator(dirs)
        except (DependencyError, CheckpointError) as error:
            if choice == "demucs":
                raise
            logger.info("melody: taken from the whole mix, drums and bass included (%s)", error)
        else:
            logger.info("melody: taken from the voices and melodic instruments, separated by demucs")
            return separate(mix, separator.to(device), on_step)
    else:
        logger.info("melody: taken from the whole mix, as asked")
    return mix.samples[0, 0]


@torch.inference_mode()
def separate(mix: Audio, separator: Separator, on_step: OnStep | None = None) -> Tensor:
    """One mono clip -> its voices and melodic instruments, mono [L] at the same rate.

    Demucs shifts its input by a random amount, from Python's global generator; here always by the same.
    """
    apply = require("demucs.apply", PURPOSE, "demucs").apply_model
    device = next(separator.parameters()).device
    # demucs makes two channels of one before it resamples; audiocraft's own order is the other way round.
    wide = convert(Audio(mix.samples.expand(-1, 2, -1), mix.rate_hz), separator.samplerate, 2)
    tick = (lambda *_: on_step()) if on_step else None
    hooks = [m.register_forward_pre_hook(tick) for m in separator.modules()] if tick else []
    state = random.getstate()
    try:
        random.seed(0)
        stems = apply(separator, wide.samples.to(device), device=device)
    finally:
        random.setstate(state)
        for hook in hooks:
            hook.remove()
    melodic = stems[:, [separator.sources.index(name) for name in _MELODIC_STEMS]].sum(dim=1)
    mono = melodic.mean(dim=1, keepdim=True).cpu()
    return convert(Audio(mono, separator.samplerate), mix.rate_hz, 1).samples[0, 0]
