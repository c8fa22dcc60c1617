"""Korean help pages: texts of the labels from locales/ko, tips from help_ko.json. The English pages are written by hand."""

import json
from pathlib import Path

from ..nodes import NODE_CLASS_MAPPINGS as NODES
from ..nodes.inputs import declared
from .graph import ROOT

TIPS = Path(__file__).with_name("help_ko.json")
_TEXTS = ROOT / "locales" / "ko" / "nodeDefs.json"


def picture_of(node_id: str) -> str:
    """The picture of a node's help page, below web/docs, which links are resolved against in every language."""
    return f"pictures/{node_id}.jpg"


def korean_pages() -> dict[Path, str]:
    """Path below the root -> page, of every node that has texts and tips."""
    texts, tips = (json.loads(path.read_text(encoding="utf-8")) for path in (_TEXTS, TIPS))
    return {
        Path("web", "docs", node_id, "ko.md"): _page(node_id, texts[node_id], tips[node_id])
        for node_id in NODES
        if node_id in texts and node_id in tips
    }


def _page(node_id: str, text: dict, tips: list[str]) -> str:
    node = NODES[node_id]
    optional = node.INPUT_TYPES().get("optional", {})
    # What is not translated yet has no row; tests/nodes/test_node_definitions.py names it.
    inputs = [(name, text["inputs"].get(name), ", 선택" if name in optional else "") for name in declared(node)]
    rows = [f"| {label['name']} (`{name}`{more}) | {label['tooltip']} |" for name, label, more in inputs if label]
    outputs = [
        f"| {label['name']} (`{name}`) | {label['tooltip']} |"
        for slot, name in enumerate(node.RETURN_NAMES)
        if (label := text["outputs"].get(str(slot)))
    ]
    lines = [
        f"# {text['display_name']}", "", text["description"], "", f"![{text['display_name']}]({picture_of(node_id)})", "",
        "## 입력", "", "| 입력 | 뜻 |", "|---|---|", *rows, "",
        "## 출력", "", "| 출력 | 뜻 |", "|---|---|", *outputs, "",
        "## 도움말", "", *(f"* {tip}" for tip in tips), "",
    ]  # fmt: skip
    return "\n".join(lines)
