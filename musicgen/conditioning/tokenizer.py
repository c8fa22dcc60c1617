"""A T5's tokenizer: tokenizer.json, checked against what it can be before the library sees it."""

import json
from pathlib import Path
from types import SimpleNamespace

from ..config import check_text
from ..dependencies import require
from ..errors import CheckpointError, InputError
from ..foreign import guarded, read_json
from .tokenizer_rules import check

MAX_TOKENS = 2048  # far beyond any description; protects memory from a pasted book
MAX_CHARACTERS = 32_768
_MAX_SENTENCEPIECE = 16 * 2**20


class Tokenizer:
    """Text -> ids of tokens, all below `vocab_size`, `</s>` included. No truncation and no padding."""

    def __init__(self, text: str, source: str, vocab_size: int):
        """`text` is that of a tokenizer.json. CheckpointError for one that no T5 encoder of `vocab_size` can have."""
        self.text, self.source = text, source
        with guarded(source, "is no tokenizer of a T5"):
            table = check(read_json(text, source), vocab_size)
            # The rest is not needed to encode, and may hold anything.
            needed = ("version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")
            library = require("tokenizers", "The text encoder", "transformers")
            self.library = library.Tokenizer.from_str(json.dumps({key: table.get(key) for key in needed}))

    def ids(self, text: str) -> list[int]:
        """InputError for a text of more than 2048 tokens or of invalid characters."""
        if len(text) > MAX_CHARACTERS:
            raise InputError(
                f"'text' is {len(text)} characters long; at most {MAX_CHARACTERS} are allowed. Shorten the description."
            )
        check_text("text", text)
        with guarded(self.source, "fails on this text"):
            ids = self.library.encode(text).ids
        if len(ids) > MAX_TOKENS:
            raise InputError(
                f"'text' is {len(ids)} tokens long; at most {MAX_TOKENS} are allowed. Shorten the description."
            )
        return ids


def read_tokenizer(folder: Path) -> str:
    """The text of a T5's tokenizer.json in `folder`, or of one made of its spiece.model."""
    path, piece_model = folder / "tokenizer.json", folder / "spiece.model"
    _check_class(folder / "tokenizer_config.json")
    if path.is_file():
        with guarded(str(path)):
            return path.read_text(encoding="utf-8-sig")
    if not piece_model.is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json. Download it from where the text encoder is from.")
    if piece_model.stat().st_size > _MAX_SENTENCEPIECE:
        raise CheckpointError(f"{piece_model} is larger than {_MAX_SENTENCEPIECE} bytes, too large for a tokenizer")
    for name, package in (("google.protobuf", "protobuf"), ("sentencepiece", "sentencepiece")):
        require(name, "A text encoder with spiece.model but without tokenizer.json", package)
    library = require("transformers.convert_slow_tokenizer", "Reading spiece.model", "transformers")
    with guarded(str(piece_model), "is no tokenizer of a T5"):
        slow = SimpleNamespace(vocab_file=str(piece_model), _extra_ids=100, convert_tokens_to_ids=lambda token: 1)
        return library.T5Converter(slow).converted().to_str()


def _check_class(path: Path) -> None:
    """CheckpointError for a tokenizer_config.json of another kind of tokenizer. Nothing else in it is used."""
    if not path.is_file():
        return
    with guarded(str(path)):
        table = read_json(path.read_text(encoding="utf-8-sig"), str(path))
    name = table.get("tokenizer_class") if isinstance(table, dict) else table
    known = ("T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", None)
    if not isinstance(table, dict) or name not in known:
        raise CheckpointError(f"{path} describes the tokenizer {str(name)[:100]!r}, not that of a T5")
