"""Puts a trained codec, language model and text encoder into one file of the format that `convert` writes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..musicgen.checkpoints.checkpoint import Checkpoint, TextEncoderSource
from ..musicgen.checkpoints.tools.convert import convert
from ..musicgen.checkpoints.weights.lazy import Check, Weight
from ..musicgen.codec import Codec
from ..musicgen.errors import InputError
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
    codec: Codec, model: MusicGen, tokenizer_json: str, target: Path, max_bytes: int = MAX_BYTES, sharpness: float = SHARPNESS
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
    }
    held = {part: _held(weights) for part, weights in parts.items()}
    n_bytes = sum(2 * math.prod(weight.shape) for table in held.values() for weight in table.values())
    if n_bytes > max_bytes:
        raise InputError(
            f"the weights take {n_bytes / 1e6:.1f} MB, more than {max_bytes / 1e6:.0f}. Train smaller ones."
        )
    text = TextEncoderSource(config=t5_table(tokenizer_json), weights=held["text"], tokenizer_json=tokenizer_json)
    config = replace(model.config, name=target.stem, codec=codec.config)
    source = Checkpoint(target, "training", config, held["lm"], held["conditioner"], held["codec"], text)
    target.parent.mkdir(parents=True, exist_ok=True)
    return convert(source, target, None, text)


def _held(weights: Mapping[str, Tensor]) -> dict[str, Weight]:
    return {
        name: Held(tuple(tensor.shape), (name,), tensor.detach().cpu().half().contiguous())
        for name, tensor in weights.items()
    }
