"""English labels: the names of inputs and outputs as words, with their unit. The other languages' are written by hand."""

import json
import re
from pathlib import Path

from ..nodes import NODE_CLASS_MAPPINGS as NODES
from ..nodes.inputs import declared

FILE = Path("locales", "en", "nodeDefs.json")
_UNITS = {"s": "s", "ms": "ms", "db": "dB", "lufs": "LUFS"}
_IN_A_NOTE = re.compile(r"(?<=\*)[a-z]+(?:_[a-z0-9]+)+(?=\*)")


def label_of(name: str) -> str:
    """`gain_1_db` -> `gain 1 (dB)`."""
    *words, last = name.split("_")
    return " ".join([*words, f"({_UNITS[last]})" if words and last in _UNITS else last])


def with_labels(note: str) -> str:
    """A note in which names between asterisks are the labels that the page shows."""
    return _IN_A_NOTE.sub(lambda match: label_of(match[0]), note)


def english_labels() -> dict[Path, str]:
    """Path below the root -> labels of what has another label than its name, as ComfyUI's page reads them."""
    texts: dict[str, dict] = {}
    for node_id, node in NODES.items():
        inputs = {name: {"name": label_of(name)} for name in declared(node) if label_of(name) != name}
        outputs = {
            str(slot): {"name": label_of(name)} for slot, name in enumerate(node.RETURN_NAMES) if label_of(name) != name
        }
        entry = {key: found for key, found in (("inputs", inputs), ("outputs", outputs)) if found}
        if entry:
            texts[node_id] = entry
    return {FILE: json.dumps(texts, indent=2) + "\n"}
