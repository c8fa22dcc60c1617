"""An opened checkpoint: its configuration, and the position of each weight."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config import ModelConfig
from .weights.lazy import Weight


@dataclass(frozen=True)
class TextEncoderSource:
    """Position of a checkpoint's own text encoder; nothing is set when it has none."""

    folder: Path | None = None  # with an encoder and tokenizer that were not read yet
    config: dict = field(default_factory=dict)  # arguments of transformers' T5Config
    weights: dict[str, Weight] = field(default_factory=dict)  # names of transformers' T5EncoderModel
    tokenizer_json: str = ""  # the text of its tokenizer.json
    origin: str = ""  # where weights and tokenizer lie, for messages


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose headers were read and found whole; no weight has been read yet."""

    path: Path
    format: str  # "audiocraft", "huggingface" or "converted"
    config: ModelConfig  # the codec's fingerprint is still empty
    lm: dict[str, Weight]
    conditioner: dict[str, Weight]
    codec: dict[str, Weight]
    text_encoder: TextEncoderSource
    codec_origin: str = ""  # where the codec lies, in words
    beat_tracker: dict[str, Weight] = field(default_factory=dict)  # of a converted file that brings one (`beats`)
    metadata: Mapping[str, str] = field(default_factory=dict)  # of a converted file: what its maker says of it

    def weights(self) -> Iterator[Weight]:
        """All weights, the text encoder's included."""
        for table in (self.lm, self.conditioner, self.codec, self.text_encoder.weights, self.beat_tracker):
            yield from table.values()
