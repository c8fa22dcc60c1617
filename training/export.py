"""Puts a trained codec, language model and text encoder into one file of the format that `convert` writes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..musicgen.beats import BeatTracker
from ..musicgen.checkpoints import open_checkpoint
from ..musicgen.checkpoints.checkpoint import Checkpoint, TextEncoderSource
from ..musicgen.checkpoints.tools.convert import convert
from ..musicgen.checkpoints.weights.lazy import Check, Weight
from ..musicgen.codec import Codec, fingerprint
from ..musicgen.errors import InputError
from ..musicgen.loading import load
from .lm import train as lm_training
from .lm.model import MusicGen
from .lm.text import t5_table
from .recipe import SHARPNESS

MAX_BYTES = 32_000_000  # of the file that ships with the project


@dataclass(frozen=True)
class Held(Weight):
    """A weight that is in memory."""

    tensor: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def rows(self, start: int, stop: int) -> "Held":
        return replace(self, shape=(stop - start, *self.shape[1:]), tensor=self.tensor[start:stop])

    def _copy(self, out: Tensor, check: Check) -> None:
        out.copy_(self.tensor)


def export(codec: Codec, lm_path: Path, target: Path) -> Path:
    """Write `target` from a codec and a language model's checkpoint, by its averaged weights."""
    trainer = lm_training.opened(lm_path)
    return write(codec, trainer.average, trainer.tokenizer_json, target)


def write(
    codec: Codec, model: MusicGen, tokenizer_json: str, target: Path, max_bytes: int = MAX_BYTES, sharpness: float = SHARPNESS,
    tracker: BeatTracker | None = None,
) -> Path:  # fmt: skip
    """One safetensors file, every tensor in float16, the heads `sharpness` times as sharp as learnt. InputError if it would be
    larger than what may be shipped."""
    parts = {
        "lm": {**model.lm.state_dict(), "heads.weight": sharpness * model.lm.heads.weight},
        "conditioner": {
            f"{name}.{part}": getattr(getattr(model, name), part)
            for name in ("text_projection", "melody_projection")
            for part in ("weight", "bias")
        },
        "codec": codec.state_dict(),
        "text": model.text.weights(),
        "beat_tracker": tracker.state_dict() if tracker else {},
    }
    held = {part: _held(weights) for part, weights in parts.items()}
    n_bytes = sum(2 * math.prod(weight.shape) for table in held.values() for weight in table.values())
    if n_bytes > max_bytes:
        raise InputError(
            f"the weights take {n_bytes / 1e6:.1f} MB, more than {max_bytes / 1e6:.0f}. Train smaller ones."
        )
    text = TextEncoderSource(config=t5_table(tokenizer_json), weights=held["text"], tokenizer_json=tokenizer_json)
    config = replace(model.config, name=target.stem, codec=codec.config)
    source = Checkpoint(
        target,
        "training",
        config,
        held["lm"],
        held["conditioner"],
        held["codec"],
        text,
        beat_tracker=held["beat_tracker"],
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    return convert(source, target, None, text)


def with_decoder(model: Path, codec: Codec, target: Path) -> Path:
    """A model that ships with the decoder of `codec`, all else as it is: the same seeds give the same codes.

    InputError if the model's codes are not the codec's.
    """
    source = open_checkpoint(model)
    theirs = load(model, "float32").codec
    if fingerprint(theirs) != fingerprint(codec) or replace(theirs.config, fingerprint="") != replace(
        codec.config, fingerprint=""
    ):
        raise InputError(
            f"{model} has another codec than the one whose decoder was trained. Give a model of that codec."
        )
    decoder = {name: tensor for name, tensor in codec.state_dict().items() if name.startswith("decoder.")}
    source = replace(source, codec={**source.codec, **_held(decoder)}, config=replace(source.config, name=target.stem))
    return convert(source, target, None, source.text_encoder)


def with_beat_tracker(model: Path, tracker: BeatTracker, target: Path) -> Path:
    """A model that ships with a beat tracker of its codes, all else as it is."""
    source = open_checkpoint(model)
    config = replace(source.config, name=target.stem)
    source = replace(source, beat_tracker=_held(tracker.state_dict()), config=config)
    return convert(source, target, None, source.text_encoder)


def _held(weights: Mapping[str, Tensor]) -> dict[str, Weight]:
    return {
        name: Held(tuple(tensor.shape), (name,), tensor.detach().cpu().half().contiguous())
        for name, tensor in weights.items()
    }
