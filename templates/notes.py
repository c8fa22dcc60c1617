"""The note of each template."""

import math

from .graph import Graph
from .labels import with_labels

MODELS = (
    "**pansori-mini** comes with this pack and plays at once, offline, on any computer: pansori in miniature (a voice, "
    "*buk* drum, *daegeum* flute, *gayageum* zither), rough, and nothing else; MIT licence. For other music, choose a "
    "larger model in **Load MusicGen**, say **facebook/musicgen-small** (about 1 GB): it is downloaded into *models/musicgen* "
    "when it is first used. Meta's weights are not for commercial use (CC-BY-NC 4.0)."
)
_LINE_CHARACTERS, _LINE_HEIGHT = 62, 18


def note(graph: Graph, title: str, text: str) -> None:
    """A note below what the column holds, as high as its text needs."""
    text = with_labels(text)
    n_lines = sum(max(1, math.ceil(len(line) / _LINE_CHARACTERS)) for line in text.split("\n"))
    graph.note(f"# {title}\n\nPress **Run**.\n\n{text}\n", 100 + _LINE_HEIGHT * n_lines)
