"""Whether a piece changes when its text does: one player alone, then a band with drums, or the other way round."""

from collections.abc import Sequence

from torch import Tensor

from ....musicgen.conditioning.timeline import Entry, Timeline
from ....musicgen.config import GenerationParams
from ..measure import HEARING_HZ, Finding, _mono
from . import asked as asking
from .asked import Asked
from .findings import DURATION_S, Tools, _share, kept, tempo_and_tones
from .judge import Heard

PIECE_S, CHANGE_S = 30.0, 15.0
_BEFORE_S, _AFTER_S = 8.0, 18.0  # where DURATION_S are heard
_TEMPO_S = 10.0  # for a tempo, up to the change and to the end
_AT_ONCE = 8  # pieces


def section_findings(tools: Tools, n: int) -> list[Finding]:
    """n pieces whose text changes halfway: by chance, what is heard before; at best, the synthesizer's own second half.

    Tempo and key: those of 10 s before the change and behind it; by chance, before that of a piece of another genre.
    """
    firsts, seconds = asking.sections(n)
    pieces = made(tools, firsts, seconds)
    best = tools.heard(tools.coded(tools.played(seconds, DURATION_S)))
    before, after = (tools.heard([_from(piece, start_s) for piece in pieces]) for start_s in (_BEFORE_S, _AFTER_S))
    groups = (after, before, best)
    own = [_around(piece, CHANGE_S - _TEMPO_S, PIECE_S - _TEMPO_S) for piece in pieces]
    played = zip(*(tools.coded(tools.played(asked, _TEMPO_S)) for asked in (firsts, seconds)), strict=True)
    theirs = [[tempo_and_tones(half) for half in halves] for halves in played]
    (tempo, key, _), by_chance, at_best = (
        kept(*each) for each in ((own, own), (own[2:] + own[:2], own), (theirs,) * 2)
    )
    drums, kinds = (
        [_share([is_right(ear, one) for ear, one in zip(group, seconds, strict=True)]) for group in groups]
        for is_right in (_drums_right, _named)
    )
    return [
        Finding("text that changes: drums come in, or stop, within 3 s", drums[0], 0.8, drums[1], drums[2]),
        Finding("text that changes: its genre, or its player, is heard", kinds[0], None, kinds[1], kinds[2]),
        Finding("text that changes: tempo as before within 4 %, both name it", tempo, None, by_chance[0], at_best[0]),
        Finding("text that changes: key as before, none names it", key, None, by_chance[1]),
    ]


def made(tools: Tools, firsts: Sequence[Asked], seconds: Sequence[Asked]) -> list[Tensor]:
    """Mono pieces [L] of texts that change at CHANGE_S."""
    conditioner, result = tools.model.conditioner, []
    for start in range(0, len(firsts), _AT_ONCE):
        texts = [[one.text for one in each[start : start + _AT_ONCE]] for each in (firsts, seconds)]
        entries = [Entry(conditioner.encode_text(rows), at) for rows, at in zip(texts, (0.0, CHANGE_S), strict=True)]
        params = GenerationParams(duration_s=PIECE_S, batch_size=len(texts[0]), seed=start, cfg=tools.cfg)
        codes = tools.model.model.generate(Timeline(tuple(entries)), params)
        result += list(_mono(tools.model.codec.decode(codes)))
    return result


def _from(piece: Tensor, start_s: float) -> Tensor:
    return piece[round(start_s * HEARING_HZ) : round((start_s + DURATION_S) * HEARING_HZ)]


def _around(piece: Tensor, *starts_s: float) -> list[tuple]:
    """(tempo, tones) of _TEMPO_S from each of the moments on."""
    length = round(_TEMPO_S * HEARING_HZ)
    return [tempo_and_tones(piece[round(start_s * HEARING_HZ) :][:length]) for start_s in starts_s]


def _drums_right(ear: Heard, one: Asked) -> bool:
    return ear.drums == one.drums


def _named(ear: Heard, one: Asked) -> bool:
    return ear.style == one.genre if one.lead is None else ear.instrument == one.lead
