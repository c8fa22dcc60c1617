"""What the tokenizer of a T5 can be. Whatever the checks themselves stumble over is an error in the file."""

import base64
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

END = "</s>"  # T5's last token of every text
_MAX_GROWTH = 256  # characters that normalization may make of one
_MAX_STEPS = 16  # normalizers or pre-tokenizers in a row, or parts of the template
_MAX_ENTRIES = 2**18  # of the vocabulary
_MAX_TEXT = 2**19  # bytes of the vocabulary, and of added tokens after their normalization; T5's has 0.25 million
_MAX_TOKEN = 256  # characters
_MAX_PIECE = 64  # bytes that a Precompiled normalizer puts in the place of a character; T5's puts 33 at most
_RUNS_OF_SPACES = " {2,}"  # the one regular expression that tokenizers of T5 have

Table = Mapping[str, Any]


def check(table: Any, vocab_size: int) -> Table:
    """The table. ValueError, KeyError and the like for a tokenizer.json that no T5 encoder of `vocab_size` entries can have."""
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
    return table


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
