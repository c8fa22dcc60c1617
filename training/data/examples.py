"""The clips of the node Example Clip: short performances by the synthesizer, as FLAC files in `clips/`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...musicgen.audio import Audio, convert, write
from .pieces import Label, play

MAX_BYTES = 150_000  # of one file
_RATE_HZ = 32_000


@dataclass(frozen=True)
class Example:
    """A clip: what is played, for how long, and which performance of it."""

    label: Label
    duration_s: float
    seed: int
    rate_hz: int = _RATE_HZ  # of the file; breath fills a flute's file up to the highest frequency


EXAMPLES = {
    "buk drum": Example(Label("none", True, "jungjungmori", 74, None, None, None), 8.0, 1),
    "daegeum flute": Example(Label("daegeum", False, "jungjungmori", 66, "ujo", 0, "high"), 7.0, 3, 16_000),
    "gayageum melody": Example(Label("gayageum", False, "jungjungmori", 66, "pyeongjo", 5, "high"), 7.5, 1),
    "gayageum scale": Example(Label("gayageum", False, None, 150, "major", 0, "high"), 6.5, 1),
    "pansori voice": Example(Label("voice", False, "jungmori", 86, "gyemyeonjo", 2, "deep"), 8.0, 1),
    "voice and buk": Example(Label("voice", True, "jungjungmori", 66, "gyemyeonjo", 2, "high"), 7.0, 1),
}


def render(example: Example) -> Audio:
    """The clip's sound, mono, at the rate of its file."""
    made = play(example.label, example.duration_s, _RATE_HZ, np.random.default_rng(example.seed))
    return convert(Audio(torch.from_numpy(made.samples)[None, None], _RATE_HZ), example.rate_hz, 1)


def write_all(folder: Path) -> list[Path]:
    """Every clip as FLAC of 16 bits in `folder`; a file of the same name is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write(render(example), folder / f"{name}.flac") for name, example in EXAMPLES.items()]
