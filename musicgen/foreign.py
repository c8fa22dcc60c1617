"""Content of files from strangers on its way into a library: bounded first, then read behind one guard."""

import contextlib
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from .dependencies import require
from .errors import CheckpointError, MusicGenError

MAX_JSON = 2**24  # characters; the longest, a tokenizer, has some 5 million
MAX_JSON_ITEMS = 1_000_000
MAX_YAML = 2**17  # characters of YAML, whose reader is slow; real files have some ten thousand
_PANIC = "PanicException"  # a BaseException, by which libraries written in Rust report a bug of their own
_INTERRUPTION = "InterruptProcessingException"  # ComfyUI's, an Exception in some of its versions


@contextlib.contextmanager
def guarded(source: str, problem: str = "cannot be read") -> Iterator[None]:
    """CheckpointError "`source` `problem`" for whatever a library raises on a stranger's file, panics included.

    Errors of this package pass, and so do KeyboardInterrupt, SystemExit and ComfyUI's interruption.
    """
    try:
        yield
    except BaseException as error:
        kind = type(error).__name__
        interruption = not isinstance(error, Exception) or kind == _INTERRUPTION
        if isinstance(error, MusicGenError) or (interruption and kind != _PANIC):
            raise
        reason = ascii(str(error).strip().partition("\n")[0][:200])[1:-1]
        reason = reason if type(error) is ValueError and reason else f"{kind}: {reason}".removesuffix(": ")
        raise CheckpointError(f"{source} {problem} ({reason})") from error


def read_json(text: str, source: str, unique: bool = False) -> object:
    """The value of a JSON text. `unique`: no table may have a key twice.

    CheckpointError for a text that is damaged, too long, or would become too many objects.
    """
    n_items = sum(map(text.count, ",[{"))
    if len(text) > MAX_JSON or n_items > MAX_JSON_ITEMS:
        raise CheckpointError(
            f"{source} has {len(text)} characters of JSON with about {n_items} items; at most {MAX_JSON} with "
            f"{MAX_JSON_ITEMS} are read"
        )
    with guarded(source, "is not readable JSON"):
        return json.loads(text, object_pairs_hook=_unique if unique else None)


def _unique(pairs: list[tuple]) -> dict:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def read_yaml(text: str, source: str) -> object:
    """The value of a YAML text, whose shared parts may still unfold to any size."""
    if len(text) > MAX_YAML:
        raise CheckpointError(f"{source} is {len(text)} characters long; at most {MAX_YAML} are read")
    yaml = require("yaml", "Reading audiocraft's checkpoints", "pyyaml")
    with guarded(source, "is not readable YAML"):
        return yaml.load(text, Loader=_yaml_loader(yaml))


def _yaml_loader(yaml: ModuleType) -> type:
    """PyYAML's safe loader without merge keys (`<<`), which no config has, and which double in size level by level."""

    class Loader(yaml.SafeLoader):
        def flatten_mapping(self, node: Any) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise yaml.constructor.ConstructorError(problem="it uses merge keys")

    return Loader
