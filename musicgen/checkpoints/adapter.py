"""An opened adapter: low-rank changes of a model's weights, in a file much smaller than the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .formats.peft_settings import AdapterSettings
from .weights.adapted import Change
from .weights.lazy import Stored


@dataclass(frozen=True)
class Module:
    """The tensors of one module: lora_A, lora_B, lora_embedding_A, lora_embedding_B, magnitude, weight, bias, ..."""

    path: str  # as its trainer saw it, for `alpha_pattern`
    tensors: Mapping[str, Stored]

    @property
    def rank(self) -> int | None:
        """Of its A; None for a module that is stored whole."""
        a = self.tensors.get("lora_A") or self.tensors.get("lora_embedding_A")
        return a.shape[0] if a is not None and a.shape else None


@dataclass(frozen=True)
class Adapter:
    """An adapter whose headers were read; whether it fits a base shows when it is put on one."""

    path: Path  # as it was given
    file: Path  # of its tensors
    name: str
    settings: AdapterSettings
    modules: Mapping[str, Module]  # by their names in transformers' whole model
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """What an adapter adds to each weight of a base, by the weights' names in each part."""

    lm: dict[str, list[Change]] = field(default_factory=dict)
    conditioner: dict[str, list[Change]] = field(default_factory=dict)
    text_encoder: dict[str, list[Change]] = field(default_factory=dict)
