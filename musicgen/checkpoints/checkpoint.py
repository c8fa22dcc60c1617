"""What opening a checkpoint gives: its configuration, and where each weight lies."""

from dataclasses import dataclass, field
from pathlib import Path

from ..config import ModelConfig
from .weight import Weight


@dataclass(frozen=True)
class TextEncoderSource:
    """Where a checkpoint's own text encoder is; nothing is set when it has none."""

    folder: Path | None = None  # for transformers' from_pretrained: encoder and tokenizer
    config: dict | None = None  # settings of a T5 whose weights are inside the checkpoint itself
    weights: dict[str, Weight] = field(default_factory=dict)  # names of transformers' T5EncoderModel
    tokenizer: Path | None = None  # folder of the tokenizer that goes with `weights`


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose headers were read and found whole; no weight has been read yet."""

    path: Path
    format: str  # "audiocraft" or "huggingface"
    config: ModelConfig  # the codec's fingerprint is still empty
    lm: dict[str, Weight]
    conditioner: dict[str, Weight]
    codec: dict[str, Weight]
    text_encoder: TextEncoderSource
