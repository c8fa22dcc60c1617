"""The clips of the node Example Clip: short performances by the synthesizers, as FLAC files in `clips/`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...musicgen.audio import Audio, convert, write
from .grooves import GROOVES
from .pieces import Label, play
from .render import Synthesizer, levelled
from .songs import compose

MAX_BYTES = 150_000  # of one file
_RATE_HZ = 32_000


@dataclass(frozen=True)
class Example:
    """A clip of pansori: what is played, for how long, and which performance of it."""

    label: Label
    duration_s: float
    seed: int
    rate_hz: int = _RATE_HZ  # of the file; breath fills a flute's file up to the highest frequency


@dataclass(frozen=True)
class Piece:
    """A clip of general music: the beginning of a piece in a groove."""

    groove: str  # of GROOVES
    arrangement: str  # of songs.ARRANGEMENTS
    bpm: float
    lead: str  # of INSTRUMENTS
    duration_s: float
    seed: int
    rate_hz: int = _RATE_HZ


EXAMPLES = {
    "buk drum": Example(Label("none", True, "jungjungmori", 74, None, None, None), 8.0, 1),
    "daegeum flute": Example(Label("daegeum", False, "jungjungmori", 66, "ujo", 0, "high"), 7.0, 3, 16_000),
    "gayageum melody": Example(Label("gayageum", False, "jungjungmori", 66, "pyeongjo", 5, "high"), 7.5, 1),
    "gayageum scale": Example(Label("gayageum", False, None, 150, "major", 0, "high"), 6.5, 1),
    "pansori voice": Example(Label("voice", False, "jungmori", 86, "gyemyeonjo", 2, "deep"), 8.0, 1),
    "voice and buk": Example(Label("voice", True, "jungjungmori", 66, "gyemyeonjo", 2, "high"), 7.0, 1),
}
PIECES = {
    "pop piano": Piece("bright pop", "solo", 100, "piano", 7.2, 1),
    "folk flute": Piece("fingerpicked folk", "solo", 96, "flute", 7.5, 3, 16_000),
    "rock band": Piece("straight rock", "ensemble", 120, "electric guitar", 6.0, 1, 16_000),
}


def render(example: Example) -> Audio:
    """The clip's sound, mono, at the rate of its file."""
    made = play(example.label, example.duration_s, _RATE_HZ, np.random.default_rng(example.seed))
    return _at_rate(made.samples, example.rate_hz)


def render_piece(piece: Piece, synthesizer: Synthesizer) -> Audio:
    """The same of general music, by a synthesizer of 32 kHz."""
    rng = np.random.default_rng(piece.seed)
    groove, duration_s = GROOVES[piece.groove], piece.duration_s
    song = compose(piece.groove, groove, piece.arrangement, duration_s, rng, piece.bpm, piece.lead, "beginning")
    samples = levelled(synthesizer.play(song.parts, song.first_s, duration_s), "medium")
    return _at_rate(samples, piece.rate_hz)


def write_all(folder: Path, synthesizer: Synthesizer) -> list[Path]:
    """Every clip as FLAC of 16 bits in `folder`; a file of the same name is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    sounds = {name: render(example) for name, example in EXAMPLES.items()}
    sounds |= {name: render_piece(piece, synthesizer) for name, piece in PIECES.items()}
    return [write(sound, folder / f"{name}.flac") for name, sound in sounds.items()]


def _at_rate(samples: np.ndarray, rate_hz: int) -> Audio:
    return convert(Audio(torch.from_numpy(samples)[None, None], _RATE_HZ), rate_hz, 1)
