"""A T5's tokenizer: tokenizer.json, checked against what it can be before the library sees it."""

import base64
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..dependencies import require
from ..errors import CheckpointError, InputError
from ..foreign import guarded, read_json

END = "</s>"  # T5's last token of every text
MAX_TOKENS = 2048  # far beyond any description; protects memory from a pasted book
MAX_CHARACTERS = 32_768
_MAX_GROWTH = 256  # characters that normalization may make of one
_MAX_STEPS = 16  # normalizers or pre-tokenizers in a row, or parts of the template
_MAX_ENTRIES = 2**18  # of the vocabulary
_MAX_TEXT = 2**19  # bytes of the vocabulary, and of added tokens after their normalization; T5's has 0.25 million
_MAX_TOKEN = 256  # characters
_MAX_PIECE = 64  # bytes that a Precompiled normalizer puts in the place of a character; T5's puts 33 at most
_MAX_SENTENCEPIECE = 16 * 2**20
_RUNS_OF_SPACES = " {2,}"  # the one regular expression that tokenizers of T5 have

Table = Mapping[str, Any]


class Tokenizer:
    """Text -> ids of tokens, all below `vocab_size`, `</s>` included. No truncation and no padding."""

    def __init__(self, text: str, source: str, vocab_size: int):
        """`text` is that of a tokenizer.json. CheckpointError for one that no T5 encoder of `vocab_size` can have."""
        table = read_json(text, source)
        self.source = source
        with guarded(source, "is no tokenizer of a T5"):
            _check(table, vocab_size)
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
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(
                "'text' holds half of a surrogate pair, which is no character. Type the description again."
            )
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


# --- what the tokenizer of a T5 can be; whatever the checks themselves stumble over is an error in the file


def _check(table: Table, vocab_size: int) -> None:
    vocabulary = _MODELS[_kind(table["model"], _MODELS)](table["model"])
    added = {token["content"]: token["id"] for token in table.get("added_tokens") or []}
    for names in (vocabulary, added):
        _require(all(isinstance(name, str) and name for name in names), "a token is no text")
        _require(max(map(len, names), default=0) <= _MAX_TOKEN, "a token is too long")
        _require(len(names) <= _MAX_ENTRIES and _n_bytes(names) <= _MAX_TEXT, "its vocabulary is too large")
    processor = table["post_processor"]
    _kind(processor, ("TemplateProcessing",))
    _require(processor["single"][-1]["SpecialToken"]["id"] == END, f"it does not end texts with {END}")
    special = [id for token in processor["special_tokens"].values() for id in token["ids"]]
    _require(len(processor["single"]) + len(special) <= _MAX_STEPS, "its template is too long")
    ids = [*vocabulary.values(), *added.values(), *special]
    _require(all(type(id) is int for id in ids), "an id is no whole number")
    _require(min(ids) >= 0 and max(ids) < vocab_size, f"its ids reach from {min(ids)} to {max(ids)}, but the encoder's "
             f"embedding has {vocab_size} entries")  # fmt: skip
    for step in _steps(table.get("pre_tokenizer"), "pretokenizers"):
        _kind(step, _PRE_TOKENIZERS)
    growth = 1.0
    for step in _steps(table.get("normalizer"), "normalizers"):
        growth *= _NORMALIZERS[_kind(step, _NORMALIZERS)](step)
    _require(growth <= _MAX_GROWTH, f"its normalizer makes up to {growth:g} characters of one")
    _require(growth * _n_bytes(added) <= _MAX_TEXT, "its added tokens are too long")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _n_bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _kind(table: Table, known: Any) -> str:
    kind = table["type"]
    _require(isinstance(kind, str) and kind in known, f"it has the part {str(kind)[:50]!r}")
    return kind


def _steps(table: Table | None, key: str) -> list[Table]:
    """The steps of a Sequence, or the one step."""
    steps = [] if table is None else table[key] if table["type"] == "Sequence" else [table]
    _require(len(steps) <= _MAX_STEPS, f"it has {len(steps)} {key}")
    return steps


def _unigram(model: Table) -> dict[str, int]:
    pieces = model["vocab"]
    _require(all(math.isfinite(score) for _, score in pieces), "a score is no number")
    _require(type(model["unk_id"]) is int and 0 <= model["unk_id"] < len(pieces), "it has no token for the unknown")
    return {piece: id for id, (piece, _) in enumerate(pieces)}


def _bpe(model: Table) -> dict[str, int]:
    vocabulary, unknown = model["vocab"], model.get("unk_token")
    _require(model.get("dropout") in (None, 0), "it is random (dropout)")
    _require(unknown is None or unknown in vocabulary, "it has no token for the unknown")
    return vocabulary


def _precompiled(step: Table) -> float:
    """Source: sentencepiece's `normalizer.cc`: size of a trie, the trie, and replacements, a zero behind each."""
    data = base64.b64decode(step["precompiled_charsmap"], validate=True)
    (n_trie,) = struct.unpack_from("<I", data)
    _require(0 < n_trie <= len(data) - 4 and n_trie % 4 == 0, "its normalizer is cut off")
    longest = max(map(len, data[4 + n_trie :].split(b"\0")))
    _require(longest <= _MAX_PIECE, f"its normalizer replaces one character by {longest} bytes")
    return longest


def _replace(step: Table) -> float:
    ((kind, pattern),) = step["pattern"].items()
    _require(kind == "String" or pattern == _RUNS_OF_SPACES, f"it has the regular expression {str(pattern)[:50]!r}")
    _require(len(pattern) > 0, "it replaces nothing by something")
    return max(1.0, len(step["content"]) / (len(pattern) if kind == "String" else 2))


def _prepend(step: Table) -> float:
    return 1.0 + len(step["prepend"])  # to the whole text, which may be one character


_MODELS: dict[str, Callable[[Table], dict[str, int]]] = {"Unigram": _unigram, "BPE": _bpe}
_NORMALIZERS: dict[str, Callable[[Table], float]] = {
    **dict.fromkeys(("NFC", "NFD", "Lowercase", "Strip", "StripAccents", "Nmt"), lambda step: 1.0),
    **dict.fromkeys(("NFKC", "NFKD"), lambda step: 1.0),  # at most 18 of a character, which then stay as they are
    "Precompiled": _precompiled,
    "Replace": _replace,
    "Prepend": _prepend,
}
_PRE_TOKENIZERS = {"Metaspace", "ByteLevel", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"}
