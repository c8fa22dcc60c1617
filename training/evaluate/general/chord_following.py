"""Whether chords that are told are played: of the composer's own progressions, as `analysis/hearing` hears them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ....musicgen.analysis.hearing import hear
from ....musicgen.analysis.hearing.chords import NAMES
from ....musicgen.audio import Audio
from ....musicgen.conditioning import Progression, encode_chords
from ....musicgen.config import GenerationParams
from ...data.songs import Song
from ..measure import HEARING_HZ, Finding, _mono, _others
from . import asked as asking
from .asked import Asked
from .findings import Tools
from .heard import is_silent
from .judge import rendered

DURATION_S = 8.0
_TEXTS = {
    "pop": "pop song with piano",
    "folk": "folk, acoustic guitar",
    "waltz": "waltz with strings",
    "ballad": "ballad, electric piano",
}
_FIRST_NUMBER = 200  # of the pieces: those below are asked for elsewhere
_EACH_S = 0.05


def chord_findings(tools: Tools, n: int) -> list[Finding]:
    """Share of the time in which a told chord, a triad a bar, is heard; none for a model that has no rows for chords.

    By chance: another piece's chords. At best: the synthesizer's own piece on these chords, behind the codec.
    """
    if tools.model.config.melody is None:
        return []
    genres = [list(_TEXTS)[number % len(_TEXTS)] for number in range(max(2, n))]
    asked = [Asked(f"{_TEXTS[genre]}, no drums", genre=genre, drums=False) for genre in genres]
    pieces = [asking.piece(one, _FIRST_NUMBER + number, DURATION_S) for number, one in enumerate(asked)]
    wanted = [_triads(piece) for piece in pieces]
    made = [
        _made(tools, one.text, piece, number) for number, (one, piece) in enumerate(zip(asked, pieces, strict=True))
    ]
    played = tools.coded([torch.from_numpy(samples) for samples in rendered(tools.own, pieces, DURATION_S, 1)])
    heard, best = ([_heard(samples) for samples in each] for each in (made, played))
    value, chance, ceiling, least = (
        _mean_share(each, labels) for each, labels in ((wanted, heard), (_others(wanted), heard), (wanted, best), (_others(wanted), best))
    )  # fmt: skip
    return [
        Finding("told chords are heard, of the time", value, 0.7, chance, ceiling),
        Finding("told chords above those of another piece", value - chance, 0.3, 0.0, ceiling - least),
    ]


def _made(tools: Tools, text: str, piece: Song, number: int) -> Tensor:
    """[L] at HEARING_HZ: `text` on the chords of the piece, each as long as its bar."""
    conditioner = tools.model.conditioner
    labels = [f"{NAMES[chord.root]}{'m' if chord.is_minor else ''}" for chord in _bars(piece)]
    progression = Progression.parse(" | ".join(labels), 4 * 60 / piece.grid.bar_s)
    conditioning = encode_chords(conditioner, conditioner.encode_text([text]), progression)
    codes = tools.model.model.generate(
        conditioning, GenerationParams(duration_s=DURATION_S, seed=number, cfg=tools.cfg)
    )
    return _mono(tools.model.codec.decode(codes))[0]


def _bars(piece: Song) -> Sequence:
    """Chords of the bars that are heard; the piece begins with the clip."""
    return piece.chords[: int(np.ceil(DURATION_S / piece.grid.bar_s))]


def _triads(piece: Song) -> list[str]:
    """The triad of every _EACH_S."""
    bars = ((np.arange(round(DURATION_S / _EACH_S)) + 0.5) * _EACH_S / piece.grid.bar_s).astype(int)
    return [NAMES[piece.chords[bar].root] + (":min" if piece.chords[bar].is_minor else "") for bar in bars]


def _heard(samples: Tensor) -> list[str]:
    """The same as it is heard; empty where no chord is."""
    if is_silent(samples):
        return [""] * round(DURATION_S / _EACH_S)
    found = hear(Audio(samples[None, None], HEARING_HZ)).chords
    times = (np.arange(round(DURATION_S / _EACH_S)) + 0.5) * _EACH_S
    return [next((span.label for span in found if span.start_s <= time < span.end_s), "") for time in times]


def _mean_share(wanted: Sequence[Sequence[str]], heard: Sequence[Sequence[str]]) -> float:
    shares = [
        np.mean([a == b for a, b in zip(one, other, strict=True)]) for one, other in zip(wanted, heard, strict=True)
    ]
    return float(np.mean(shares))
