"""A language model in training as one file of float16: what a checkout hands on to a machine that has no checkpoint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

FILE = Path(__file__).with_name("lm.safetensors")  # of the codec beside it
_STEP, _TOKENIZER, _CODEBOOKS = "step", "tokenizer", "codebooks"  # in the file's metadata


@dataclass(frozen=True)
class HandedOn:
    """Weights by their names in ScoredMusicGen, what was averaged over the steps before, and what they are worth nothing without."""

    weights: dict[str, Tensor]
    step: int
    tokenizer_json: str
    codebooks: str  # digest of the codec's


def digest(codebooks: Tensor) -> str:
    """Names the codes that a language model writes: [K, card, d] of a codec in float16."""
    return hashlib.sha256(codebooks.half().contiguous().numpy().tobytes()).hexdigest()[:32]


def write(path: Path, weights: dict[str, Tensor], step: int, tokenizer_json: str, codebooks: Tensor) -> None:
    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in weights.items()}
    told = {_STEP: str(step), _TOKENIZER: tokenizer_json, _CODEBOOKS: digest(codebooks)}
    draft = path.with_name(f".{path.name}")
    safetensors.torch.save_file(tensors, draft, told)
    draft.replace(path)


def tokenizer_of(path: Path = FILE) -> str | None:
    """The text of its tokenizer.json; None where there is no file."""
    if not path.exists():
        return None
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()[_TOKENIZER]


def read(path: Path = FILE) -> HandedOn | None:
    """All of it, the weights in float32; None where there is no file."""
    if not path.exists():
        return None
    with safetensors.safe_open(path, "pt") as file:
        told = file.metadata()
        weights = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118
    return HandedOn(weights, int(told[_STEP]), told[_TOKENIZER], told[_CODEBOOKS])
