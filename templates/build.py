"""Every template, and the files that are written of them."""

import json
from pathlib import Path
from typing import Any

from . import bars, basics, songs, structure, studies
from .blueprints import BLUEPRINTS, blueprint_form
from .graph import ROOT, Graph, api_form, page_form
from .help import korean_pages
from .labels import english_labels

TEMPLATES = (
    basics.text_to_music,
    basics.continue_a_clip,
    basics.follow_a_melody,
    basics.several_takes,
    basics.two_minutes_of_music,
    basics.fine_tune,
    structure.a_piece_that_changes,
    structure.seamless_loop,
    structure.blend_of_two_moods,
    bars.bars_on_the_grid,
    bars.chord_progression,
    songs.remix,
    songs.train_a_style,
    bars.score_to_music,
    studies.another_ending,
    studies.theme_and_variation,
    studies.change_of_mood,
    studies.guidance_compared,
    studies.decode_two_ways,
    studies.levels_and_formats,
    studies.music_for_a_video,
)


def files() -> dict[Path, dict[str, Any]]:
    """Path below the root -> contents, of every workflow and blueprint."""
    result: dict[Path, dict[str, Any]] = {}
    for template in TEMPLATES:
        graph: Graph = template()
        api_name = graph.name.lower().replace(" ", "_")
        result[Path("workflows", f"{graph.name}.json")] = page_form(graph)
        result[Path("workflows", "api", f"{api_name}.json")] = api_form(graph)
    for make in BLUEPRINTS:
        blueprint = make()
        result[Path("subgraphs", f"{blueprint.graph.name}.json")] = blueprint_form(blueprint)
    return result


def text_of(contents: dict[str, Any]) -> str:
    """JSON in ASCII: servers read blueprints in the platform's encoding."""
    return json.dumps(contents, indent=2) + "\n"


def texts() -> dict[Path, str]:
    """Path below the root -> what stands in it, of every file that is written."""
    written = {path: text_of(contents) for path, contents in files().items()}
    return {**written, **korean_pages(), **english_labels()}


def write_all(root: Path = ROOT) -> None:
    """Write every file below `root`."""
    for path, text in texts().items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
