"""Makes an adapter of a whole fine-tune: its difference from the base, each matrix in the nearest one of a lower rank."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InputError
from ...outputs import atomic_file
from ..checkpoint import Checkpoint
from ..formats import peft
from ..formats.peft_names import Place, places
from ..formats.peft_settings import MAX_RANK
from ..weights.adapted import held
from ..weights.blend import check_architecture
from ..weights.lazy import Weight
from .convert import Entry, OnStep, check_target, save

RANK = 16
_PREFIX = "base_model.model."
_NO_CHANGE = 1e-7  # of a matrix, relative to it: rounding


@dataclass(frozen=True)
class Extracted:
    """An adapter that was written, and what it lacks."""

    path: Path
    rank: int
    n_matrices: int
    error: float  # norm of what is lost, over the norm of the whole difference
    worst: tuple[str, float]  # the module that loses most of its own difference
    change: float  # norm of the whole difference, over the norm of the base

    def __str__(self) -> str:
        return (
            f"rank {self.rank}, {self.n_matrices} matrices; they differ from the base by {100 * self.change:.3g} % of it; "
            f"{100 * self.error:.3g} % of that is lost (of {self.worst[0]}, {100 * self.worst[1]:.3g} %)"
        )


def extract(
    tuned: Checkpoint, base: Checkpoint, target: Path, rank: int = RANK, on_step: OnStep | None = None
) -> Extracted:
    """Write the difference of two models as a LoRA: a .safetensors file, or a folder as PEFT reads it.

    Matrices get A and B of `rank` at the most, of which B A is the nearest to the difference (Eckart, Young); norms and biases
    are stored whole. on_step(matrices done, in all); what it raises ends the work. InputError: a target that exists or cannot be
    written; two equal models. CheckpointError: models of two architectures.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= MAX_RANK:
        raise InputError(f"'rank' must be a whole number from 1 to {MAX_RANK}, got {rank!r}")
    is_file = target.suffix == ".safetensors"
    if is_file:
        check_target(target)
    elif target.exists():
        raise InputError(f"'{target}' exists already. Remove it first, or choose another name.")
    check_architecture(base, tuned)
    table = places(base.config)
    tensors: dict[str, Tensor] = {}
    saved, targets, losses = set(), set(), {}
    lost = total = size = 0.0
    for index, (name, place) in enumerate(table.items()):
        if on_step:
            on_step(index, len(table))
        before, after = (_rows(checkpoint, place) for checkpoint in (base, tuned))
        difference = after.double() - before.double()
        norm = float(difference.square().sum())
        size += float(before.double().square().sum())
        total += norm
        if norm <= _NO_CHANGE**2 * float(before.double().square().sum()):
            continue
        module, _, kind = name.rpartition(".")
        if kind == "bias" and f"{module}.weight" in table and len(table[f"{module}.weight"].shape) == 2:
            tensors[f"{_PREFIX}{module}.base_layer.bias"] = after
        elif len(place.shape) != 2:
            tensors[_PREFIX + name] = after
            saved.add(module)
        else:
            a, b = _low_rank(difference, rank)
            loss = float((difference - b @ a).square().sum())
            lost, losses[module] = lost + loss, (loss / norm) ** 0.5
            if place.is_embedding:
                tensors[f"{_PREFIX}{module}.lora_embedding_A"] = b.T.float().contiguous()
                tensors[f"{_PREFIX}{module}.lora_embedding_B"] = a.T.float().contiguous()
            else:
                tensors[f"{_PREFIX}{module}.lora_A.weight"] = a.float().contiguous()
                tensors[f"{_PREFIX}{module}.lora_B.weight"] = b.float().contiguous()
            targets.add(module)
    if not targets:
        raise InputError(f"{tuned.path} has the very matrices of {base.path}: there is nothing to make an adapter of")
    settings = _settings(base, rank, targets, saved, any(name.endswith("base_layer.bias") for name in tensors))
    _write(target, tensors, settings, base, tuned, is_file)
    worst = max(losses.items(), key=lambda item: item[1])
    return Extracted(target, rank, len(targets), (lost / total) ** 0.5, worst, (total / size) ** 0.5)


def _rows(checkpoint: Checkpoint, place: Place) -> Tensor:
    weight: Weight = getattr(checkpoint, place.part)[place.weight]
    n_rows = 1 if place.is_embedding else place.shape[0]
    return weight.rows(place.first_row, place.first_row + n_rows).read().reshape(place.shape)


def _low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """[m, n] -> A [r, n], B [m, r]: B A is the matrix on its r strongest directions, from the Gram matrix of its short side."""
    rank = min(rank, *matrix.shape)
    if matrix.shape[0] < matrix.shape[1]:
        b, a = _low_rank(matrix.T, rank)
        return a.T, b.T
    directions = torch.linalg.eigh(matrix.T @ matrix).eigenvectors[:, -rank:]
    a, b = directions.T, matrix @ directions
    root = b.norm(dim=0).clamp(min=1e-300).sqrt()  # A and B of one size
    return a * root[:, None], b / root


def _settings(base: Checkpoint, rank: int, targets: set[str], saved: set[str], biased: bool) -> dict:
    """What PEFT needs to build the adapter's layers, and nothing of this machine."""
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base.config.name,
        "r": rank,
        "lora_alpha": rank,
        # Matrices of fewer rows or columns than the rank have the rank of these.
        "target_modules": sorted(targets),
        "modules_to_save": sorted(saved) or None,
        "bias": "lora_only" if biased else "none",
        "inference_mode": True,
    }


def _write(
    target: Path, tensors: dict[str, Tensor], settings: dict, base: Checkpoint, tuned: Checkpoint, is_file: bool
) -> None:
    ranks = {}
    for name, tensor in tensors.items():
        module, _, kind = name.removeprefix(_PREFIX).partition(".lora_")
        if kind in ("A.weight", "embedding_A") and tensor.shape[0] != settings["r"]:
            ranks[module.replace(".", r"\.")] = tensor.shape[0]
    if ranks:  # alpha follows, so that the scale of each stays 1
        settings = {**settings, "rank_pattern": ranks, "alpha_pattern": ranks}
    entries = [Entry(name, held(name, tensor), torch.float32) for name, tensor in sorted(tensors.items())]
    text = json.dumps(settings, indent=2)
    metadata = {"format": "pt", peft.CONFIG_KEY: text, "base": base.config.name, "made_from": tuned.config.name}
    if is_file:
        save(target, entries, metadata, None)
        return
    try:
        target.mkdir(parents=True)
        save(target / peft.WEIGHTS_FILES[0], entries, metadata, None)
        with atomic_file(target / peft.CONFIG_FILE) as file:
            file.write(text.encode())
    except OSError as error:
        raise InputError(f"'{target}' cannot be written: {error.strerror or error}") from error
