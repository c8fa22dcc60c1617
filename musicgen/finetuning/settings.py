"""Settings of a training. Names follow the fields of the published trainer where they mean the same.

Source: sakemin/cog-musicgen-fine-tuner. Its optimizer `dadam` is not part of torch; `adamw` has a learning rate of its own.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..config import MAX_SEED, Parameter
from ..errors import InputError

OPTIMIZERS = ("adamw", "adam", "sgd")
LR_SCHEDULERS = ("cosine", "linear_warmup", "polynomial_decay", "inverse_sqrt", "exponential")
METHODS = ("lora", "whole weights")
TARGETS = ("all", "layers", "attention")
TRAINING_PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")
CHOICES = {
    "optimizer": OPTIMIZERS,
    "lr_scheduler": LR_SCHEDULERS,
    "method": METHODS,
    "targets": TARGETS,
    "precision": TRAINING_PRECISIONS,
}


def _parameter(*values: Any, **options: Any) -> Any:
    entry = Parameter(*values, **options)
    return field(default=entry.default, metadata={"parameter": entry})


@dataclass(frozen=True)
class TrainSettings:
    """One training. Each line of a number: default, lowest, highest, step, description."""

    epochs: int = _parameter(3, 1, 1000, 1, "How many rounds of updates_per_epoch updates (a count).")
    updates_per_epoch: int = _parameter(
        100, 1, 100_000, 1, "Optimizer updates in a round (a count). epochs times this is the length of the training."
    )
    batch_size: int = _parameter(
        8,
        1,
        256,
        1,
        "Clips that an update learns from (a count). They are computed one by one: memory does not grow with it.",
    )
    optimizer: str = "adamw"
    lr: float = _parameter(
        2e-4, 1e-7, 1.0, 1e-5, "Learning rate, the size of a step (no unit). Small models bear more: pansori-mini 2e-3."
    )
    lr_scheduler: str = "cosine"
    warmup: int = _parameter(
        8, 0, 10_000, 1, "Optimizer updates during which the learning rate rises from 0 (a count)."
    )
    cfg_p: float = _parameter(
        0.3, 0.0, 1.0, 0.05,
        "Share of clips learned without their text (0 to 1), which guidance needs to tell what the text adds.",
    )  # fmt: skip
    rank: int = _parameter(
        16, 1, 256, 1, "Rank of the LoRA (a count): how much it can learn, and how large the file is."
    )
    alpha: float = _parameter(
        0.0,
        0.0,
        1024.0,
        1.0,
        "Alpha of the LoRA (no unit): its effect is scaled by alpha / rank. 0 = as the rank, scale 1.",
    )
    dropout: float = _parameter(0.05, 0.0, 0.9, 0.05, "Share of a LoRA's inputs dropped at each update (0 to 1).")
    weight_decay: float = _parameter(0.1, 0.0, 1.0, 0.01, "Weight decay of adamw (no unit).")
    keep_base: float = _parameter(
        0.25, 0.0, 0.9, 0.05,
        "Share of clips that are the base's own music (0 to 1), so that it is not forgotten. 0 = off.",
    )  # fmt: skip
    max_forgetting: float = _parameter(
        0.03, 0.0, 10.0, 0.01,
        "How much the loss on other music may rise (a share of the base's): the training ends and the file is of before. 0 = any.",
    )  # fmt: skip
    segment_s: float = _parameter(
        0.0, 0.0, 60.0, 0.5,
        "Length of the clips that are learned, in seconds. Half the length takes half the memory. 0 = the model's window.",
    )  # fmt: skip
    variants: int = _parameter(
        0, 0, 8, 1,
        "How many copies of each clip are learned (a count): other than the first, louder or softer, and beginning elsewhere within a "
        "frame. 0 = as many as make ten minutes.",
    )  # fmt: skip
    seed: int = _parameter(0, 0, MAX_SEED, 1, "Decides order, cuts, dropout and beginning (no unit).")
    method: str = "lora"
    targets: str = "all"
    precision: str = "auto"
    sample_every: int = _parameter(
        0, 0, 100_000, 1, "Updates between two samples to listen to (a count). 0 = at the end alone."
    )
    proof_clips: int = _parameter(
        8, 0, 64, 1, "Clips that the base and the fine-tune each write for the proof of effect (a count). 0 = none."
    )

    def __post_init__(self) -> None:
        for name, parameter in TRAIN_PARAMETERS.items():
            parameter.check(name, getattr(self, name))
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                more = " (dadam is not part of torch)" if getattr(self, name) == "dadam" else ""
                raise InputError(f"'{name}' must be one of {', '.join(allowed)}, got {getattr(self, name)!r}{more}")
        if self.method == "whole weights" and self.precision not in ("auto", "float32"):
            raise InputError(
                f"'precision' {self.precision} cannot be trained as a whole. Set it to auto, or 'method' to lora."
            )

    @property
    def updates(self) -> int:
        """Optimizer updates of the whole training."""
        return self.epochs * self.updates_per_epoch

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return (self.alpha or self.rank) / self.rank

    @property
    def measure_every(self) -> int:
        """Updates between two measurements of the held-out loss."""
        return max(min(10, self.updates), round(0.05 * self.updates))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


TRAIN_PARAMETERS: dict[str, Parameter] = {
    entry.name: entry.metadata["parameter"] for entry in fields(TrainSettings) if "parameter" in entry.metadata
}
