"""An opened checkpoint: its configuration, and the position of each weight."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..config import ModelConfig
from .weights.lazy import Weight


@dataclass(frozen=True)
class TextEncoderSource:
    """Position of a checkpoint's own text encoder; nothing is set when it has none."""

    folder: Path | None = None  # for transformers' from_pretrained: encoder and tokenizer
    config: dict | None = None  # settings of a T5 whose weights are inside the checkpoint itself
    weights: dict[str, Weight] = field(default_factory=dict)  # names of transformers' T5EncoderModel
    tokenizer: Path | None = None  # folder of the tokenizer that goes with `weights`
    tokenizer_json: str | None = None  # or the text of its tokenizer.json

    @contextlib.contextmanager
    def tokenizer_folder(self) -> Iterator[Path | None]:
        """A folder that transformers can load the tokenizer from, for as long as the context lasts; None: there is none."""
        if self.tokenizer_json is None:
            yield self.tokenizer
            return
        with tempfile.TemporaryDirectory(prefix="musicgen-tokenizer-") as name:
            folder = Path(name)
            (folder / "tokenizer.json").write_text(self.tokenizer_json, encoding="utf-8")
            (folder / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER_CONFIG), encoding="utf-8")
            yield folder


# Everything else is in tokenizer.json itself. These names are those of every T5.
_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "clean_up_tokenization_spaces": False,
}


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

    def weights(self) -> Iterator[Weight]:
        """All weights, the text encoder's included."""
        for table in (self.lm, self.conditioner, self.codec, self.text_encoder.weights):
            yield from table.values()

    def close(self) -> None:
        """Let all files go, so that they can be replaced. A weight that is read later opens its file again."""
        for weight in self.weights():
            for file in weight.files():
                file.close()
