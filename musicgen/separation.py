"""Stem separation by Demucs, an optional library: its weights, and songs taken apart into their stems."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .audio import Audio, convert
from .dependencies import require
from .errors import CheckpointError, InputError

WEIGHTS = "955717e8-8726e21a.th"
HUB_REPOSITORY, HUB_WEIGHTS = "adefossez/HTDemucs", "955717e8.safetensors"  # where demucs 4.1 and later has them
ADDRESS = f"https://dl.fbaipublicfiles.com/demucs/hybrid_transformer/{WEIGHTS}"
NAMES = ("vocals", "drums", "bass", "other")
PURPOSE = "Separating stems"
_OVERLAP = 0.25  # of a segment with the next one
_CHANNELS = 2  # of every Demucs

OnStep = Callable[[int, int], None]


class Separator(nn.Module):
    """What is used of HTDemucs, of an optional library."""

    samplerate: int  # Hz
    sources: list[str]  # names of the stems


@dataclass(frozen=True)
class Stems:
    """Stems of B clips, each with the clips' sample rate, channels and length. All five together are the clips.

    Sums of five float32 samples round: what is left of a difference is below 1e-6 of full scale.
    """

    vocals: Audio
    drums: Audio
    bass: Audio
    other: Audio  # sources of a separator besides these four are in it
    rest: Audio  # what is in none of the four

    @classmethod
    def of_voice(cls, song: Audio, vocals: Audio) -> "Stems":
        """Stems of a song whose voice is known: the music is all in `rest`. InputError for another rate or length."""
        if song.rate_hz != vocals.rate_hz or song.n_samples != vocals.n_samples:
            raise InputError(
                f"The voice is {vocals.n_samples} samples at {vocals.rate_hz} Hz, and the song {song.n_samples} at {song.rate_hz} Hz. "
                "Give the song's own voice."
            )
        vocals = convert(vocals, song.rate_hz, song.n_channels)
        silence = Audio(torch.zeros_like(song.samples), song.rate_hz)
        return cls(vocals, silence, silence, silence, Audio(song.samples - vocals.samples, song.rate_hz))


def separate_stems(song: Audio, separator: Any, on_step: OnStep | None = None) -> Stems:
    """Clips of one or two channels, at any sample rate, in their stems. The separator stays on its device.

    Segments overlap by a quarter, with triangular weights, as `demucs.apply.apply_model` has them without its random shift;
    only one of them is on the device at a time. Mono is separated as two equal channels, and the mean of the stem's two taken.
    on_step(segments done, in all) is also called between layers; what it raises ends the work.
    """
    if song.n_channels > _CHANNELS:
        raise InputError(
            f"'audio' has {song.n_channels} channels, and stems are separated of mono and stereo. Mix it down first."
        )
    sources = list(separator.sources)
    if set(NAMES) - set(sources):
        raise InputError(f"The separator has the stems {', '.join(sources)}, and {', '.join(NAMES)} are needed.")
    progress = _Progress(separator, on_step or (lambda done, total: None))
    clips = [Audio(clip[None], song.rate_hz) for clip in song.samples]
    with progress:
        parts = [_separated(clip, separator, progress.of_clip(number, len(clips))) for number, clip in enumerate(clips)]
    named = {name: torch.cat([part[name] for part in parts]) for name in NAMES}
    rest = song.samples.clone()
    for stem in named.values():
        rest -= stem
    return Stems(**{name: Audio(stem, song.rate_hz) for name, stem in named.items()}, rest=Audio(rest, song.rate_hz))


def _separated(clip: Audio, separator: Any, on_segment: OnStep) -> dict[str, Tensor]:
    """The four stems of one clip, [1, C, L] each."""
    wide = clip.samples if clip.n_channels == _CHANNELS else clip.samples.expand(-1, _CHANNELS, -1)
    mixed = convert(Audio(wide, clip.rate_hz), separator.samplerate, _CHANNELS).samples
    stems = _in_segments(mixed, separator, on_segment)
    found, sources = {}, list(separator.sources)
    for name in NAMES:
        members = [name] if name != "other" else [source for source in sources if source not in NAMES or source == name]
        stem = stems[sources.index(members[0])]
        for more in members[1:]:
            stem = stem + stems[sources.index(more)]
        back = convert(Audio(stem[None], separator.samplerate), clip.rate_hz, clip.n_channels).samples
        found[name] = F.pad(back[..., : clip.n_samples], (0, max(0, clip.n_samples - back.shape[-1])))
    return found


@torch.no_grad()
def _in_segments(mixed: Tensor, separator: Any, on_segment: OnStep) -> Tensor:
    """[1, 2, L] -> [sources, 2, L] on the CPU. Source: `demucs.apply.apply_model` with `split`."""
    library = require("demucs.apply", PURPOSE, "demucs")
    device = next(separator.parameters()).device
    size, length = int(separator.samplerate * separator.segment), mixed.shape[-1]
    rising = torch.arange(1, size // 2 + 1)
    weight = torch.cat([rising, torch.arange(size - size // 2, 0, -1)]) / (size - size // 2)
    offsets = range(0, length, int((1 - _OVERLAP) * size))
    stems, total = torch.zeros(len(separator.sources), _CHANNELS, length), torch.zeros(length)
    for number, start in enumerate(offsets):
        on_segment(number, len(offsets))
        chunk = library.TensorChunk(mixed, start, size)
        made = library.apply_model(separator, chunk, shifts=0, split=False, device=device)[0].cpu()
        n = made.shape[-1]
        stems[..., start : start + n] += weight[:n] * made
        total[start : start + n] += weight[:n]
    on_segment(len(offsets), len(offsets))
    return stems.div_(total)


class _Progress:
    """Calls of on_step between segments and, for Cancel, before every layer."""

    def __init__(self, separator: Any, on_step: OnStep) -> None:
        self._separator, self._on_step, self._at, self._hooks = separator, on_step, (0, 1), []

    def __enter__(self) -> None:
        def again(*_: object) -> None:
            self._on_step(*self._at)

        self._hooks = [module.register_forward_pre_hook(again) for module in self._separator.modules()]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def of_clip(self, number: int, n_clips: int) -> OnStep:
        def on_segment(done: int, total: int) -> None:
            self._at = (number * total + done, n_clips * total)
            self._on_step(*self._at)

        return on_segment


def memory_bytes(separator: Any) -> int:
    """Memory of one segment on the device besides the weights, estimated: about 60 floats a sample and channel of the first layer."""
    channels = getattr(separator, "channels", 48)
    return int(4 * 60 * channels * separator.samplerate * float(separator.segment) / 4)


def load_separator(dirs: Sequence[Path], file: Path | None = None) -> Separator:
    """HTDemucs from `file`, or from `dirs` or the caches that demucs itself downloads to. Runs nothing of the file's own.

    DependencyError without demucs; CheckpointError without its weights, or with damaged ones.
    """
    library = require("demucs.htdemucs", PURPOSE, "demucs")
    file = file or _find(dirs)
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
        f"Download {ADDRESS} into {folders[0]}. (A melody can also be heard in the whole mix: set its 'stems' to off.)"
    )


def _read_pickle(file: Path, library: Any) -> tuple[str, tuple, dict, dict]:
    with torch.serialization.safe_globals([library.HTDemucs, Fraction]):
        package = torch.load(file, map_location="cpu", weights_only=True)
    kind = package["klass"]
    return f"{kind.__module__}.{kind.__name__}", package["args"], package["kwargs"], package["state"]


def _read_safetensors(file: Path, library: Any) -> tuple[str, tuple, dict, dict]:
    with require("safetensors", "Reading safetensors").safe_open(file, framework="pt") as weights:
        metadata = weights.metadata()
        state = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118 (not a mapping)
    args, kwargs = (json.loads(metadata[key], object_hook=_fraction) for key in ("args", "kwargs"))
    return metadata["klass"], args, kwargs, state


def _fraction(value: dict) -> object:
    return Fraction(value["numerator"], value["denominator"]) if value.get("_type") == "fraction" else value
