"""Optional stem separation by Demucs, which removes drums and bass from a reference melody."""

import json
import logging
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from ..audio import Audio, convert
from ..dependencies import require
from ..errors import CheckpointError, DependencyError, InputError

logger = logging.getLogger(__name__)

WEIGHTS = "955717e8-8726e21a.th"
HUB_REPOSITORY, HUB_WEIGHTS = "adefossez/HTDemucs", "955717e8.safetensors"  # where demucs 4.1 and later has them
ADDRESS = f"https://dl.fbaipublicfiles.com/demucs/hybrid_transformer/{WEIGHTS}"
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


class Separator(nn.Module):
    """What is used of demucs' HTDemucs."""

    samplerate: int  # Hz
    sources: list[str]  # names of the stems


def load_separator(dirs: Sequence[Path]) -> Separator:
    """HTDemucs from `dirs`, or from the caches that demucs itself downloads to. Runs nothing of the file's own.

    DependencyError without demucs; CheckpointError without its weights, or with damaged ones.
    """
    library = require("demucs.htdemucs", "Separating stems ('stems': demucs)", "demucs")
    file = _find(dirs)
    try:
        kind, args, kwargs, state = (_read_safetensors if file.suffix == ".safetensors" else _read_pickle)(
            file, library
        )
        if kind != f"{library.HTDemucs.__module__}.{library.HTDemucs.__name__}":
            raise CheckpointError(
                f"{file} holds a {kind}, not the HTDemucs that is needed. Download {ADDRESS} instead."
            )
        separator = library.HTDemucs(*args, **kwargs)
        separator.load_state_dict({name: weight.float() for name, weight in state.items()})
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as there are bytes in it
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{file} is not a usable file of demucs weights ({reason}). Download {ADDRESS} again."
        ) from error
    return separator.eval().requires_grad_(False)


def _find(dirs: Sequence[Path]) -> Path:
    folders = [*(Path(d) for d in dirs), Path(torch.hub.get_dir()) / "checkpoints"]
    for folder in folders:
        for name in (WEIGHTS, HUB_WEIGHTS):
            if (folder / name).is_file():
                return folder / name
    hub = require("huggingface_hub", "Looking for the weights of demucs")
    cached = hub.try_to_load_from_cache(HUB_REPOSITORY, HUB_WEIGHTS)
    if isinstance(cached, str):
        return Path(cached)
    raise CheckpointError(
        f"The weights of demucs, {WEIGHTS} or {HUB_WEIGHTS}, were not found in {' or '.join(map(str, folders))}. "
        f"Download {ADDRESS} into {folders[0]}, or set 'stems' to off."
    )


def _read_pickle(file: Path, library: ModuleType) -> tuple[str, tuple, dict, dict]:
    with torch.serialization.safe_globals([library.HTDemucs, Fraction]):
        package = torch.load(file, map_location="cpu", weights_only=True)
    kind = package["klass"]
    return f"{kind.__module__}.{kind.__name__}", package["args"], package["kwargs"], package["state"]


def _read_safetensors(file: Path, library: ModuleType) -> tuple[str, tuple, dict, dict]:
    with require("safetensors", "Reading safetensors").safe_open(file, framework="pt") as weights:
        metadata = weights.metadata()
        state = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118 (not a mapping)
    args, kwargs = (json.loads(metadata[key], object_hook=_fraction) for key in ("args", "kwargs"))
    return metadata["klass"], args, kwargs, state


def _fraction(value: dict) -> object:
    return Fraction(value["numerator"], value["denominator"]) if value.get("_type") == "fraction" else value


@torch.inference_mode()
def separate(mix: Audio, separator: Separator, on_step: OnStep | None = None) -> Tensor:
    """One mono clip -> its voices and melodic instruments, mono [L] at the same rate.

    Demucs shifts its input by a random amount, from Python's global generator; here always by the same.
    """
    apply = require("demucs.apply", "Separating stems ('stems': demucs)", "demucs").apply_model
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
