"""The note of each template."""

import math

from .graph import Graph
from .labels import with_labels

_LARGER = (
    "choose a larger model in **Load MusicGen**, say **facebook/musicgen-small** (about 1 GB): it is downloaded into "
    "*models/musicgen* when it is first used. Meta's weights are not for commercial use (CC-BY-NC 4.0)."
)
# Of each model that comes with the pack, what a musician may expect of it.
MODELS = {
    "general-mini": (
        "**general-mini** comes with this pack and plays at once, offline, on any computer: General MIDI in miniature, 38 "
        "instruments and drums in 30 genres at 50 to 190 bpm. It is small and rough; one or two players, a plain genre and a "
        "tempo suit it best. MIT licence. **pansori-mini** beside it plays pansori and nothing else. For fuller music, "
        + _LARGER
    ),
    "pansori-mini": (
        "**pansori-mini** comes with this pack and plays at once, offline, on any computer: pansori in miniature (a voice, "
        "*buk* drum, *daegeum* flute, *gayageum* zither), rough, and nothing else; MIT licence. **general-mini** beside it "
        "plays other music. For fuller music, " + _LARGER
    ),
}
_LINE_CHARACTERS, _LINE_HEIGHT = 62, 18


def note(graph: Graph, title: str, text: str) -> None:
    """A note below what the column holds, as high as its text needs."""
    text = with_labels(text)
    n_lines = sum(max(1, math.ceil(len(line) / _LINE_CHARACTERS)) for line in text.split("\n"))
    graph.note(f"# {title}\n\nPress **Run**.\n\n{text}\n", 100 + _LINE_HEIGHT * n_lines)
