"""Whether told chords, and keys named in words, are played: those of the composer's own pieces, as `analysis/hearing` hears them."""

from collections.abc import Iterator, Sequence
from itertools import count, islice

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
_KEYS = ("in {}", "key of {}", "{}")
_FIRST_NUMBER, _FIRST_OF_KEYS = 200, 400  # of the pieces: those below are asked for elsewhere
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


def key_findings(tools: Tools, n: int) -> list[Finding]:
    """Share of pieces in the major or minor key that their text names; by chance, in that of another; at best, the synthesizer's own."""
    pieces = list(islice(_in_keys(), n))
    texts = [
        f"{_TEXTS[piece.facts.genre]}, no drums, {_KEYS[number % len(_KEYS)].format(piece.facts.key)}"
        for number, piece in enumerate(pieces)
    ]
    played = tools.coded([torch.from_numpy(samples) for samples in rendered(tools.own, pieces, DURATION_S, 1)])
    made = tools.made([Asked(text) for text in texts], DURATION_S)
    wanted = [(piece.facts.tonic, piece.facts.mode) for piece in pieces]
    heard, best = ([heard_key(samples) for samples in each] for each in (made, played))
    others = [next(other for other in wanted[i:] + wanted if other != key) for i, key in enumerate(wanted)]
    shares = [
        float(np.mean([a == b for a, b in zip(*each, strict=True)]))
        for each in ((wanted, heard), (others, heard), (wanted, best))
    ]
    return [Finding("key in the text is heard, of 24", shares[0], None, shares[1], shares[2])]


def _in_keys() -> Iterator[Song]:
    """Pieces of the texts' genres in major and minor, without end."""
    genres = list(_TEXTS)
    for number in count():
        asked = Asked("", genre=genres[number % len(genres)], drums=False)
        piece = asking.piece(asked, _FIRST_OF_KEYS + number, DURATION_S)
        if piece.facts.mode in ("major", "minor"):
            yield piece


def heard_key(samples: Tensor) -> tuple[int, str] | None:
    """[L] at HEARING_HZ -> (pitch class, major or minor); None where no key is heard."""
    if is_silent(samples):
        return None
    tonic, _, mode = hear(Audio(samples[None, None], HEARING_HZ)).key.partition(" ")
    return (NAMES.index(tonic), mode) if mode else None


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
