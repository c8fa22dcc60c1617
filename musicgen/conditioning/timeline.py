"""Texts at their times: the conditioning of a piece whose description changes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from ..errors import InputError
from .mixture import Mixture, Share, check_together, leaves_of
from .timeline_text import Line, parse_timeline

if TYPE_CHECKING:
    from .conditioner import Conditioner, Conditioning

ENDINGS = ("none", "cadence")
CADENCE_S = 8.0  # of the piece, at its end
CADENCE_TEXT = "slow final ending, last cadence, fading to silence"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One text and when it begins."""

    conditioning: "Conditioning"
    start_s: float
    strength: float = 1.0
    before_end: bool = False  # start_s counts back from the end
    is_last: bool = False  # never before the other entries


@dataclass(frozen=True)
class Timeline(Mixture):
    """The entry that has begun last is followed; before all of them, the first."""

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        check_together(self.leaves())

    def leaves(self) -> "tuple[Conditioning, ...]":
        return tuple(entry.conditioning for entry in self.entries)

    def mapped(self, change: "Callable[[Conditioning], Conditioning]") -> "Timeline":
        changed = {id(leaf): change(leaf) for leaf in self.leaves()}  # entries of one text share it
        return Timeline(
            tuple(
                Entry(changed[id(each.conditioning)], each.start_s, each.strength, each.before_end, each.is_last)
                for each in self.entries
            )
        )

    def at(self, time_s: float, duration_s: float) -> tuple[Share, ...]:
        placed = self._placed(duration_s)
        entry = next((entry for start_s, entry in reversed(placed) if start_s <= time_s), placed[0][1])
        return (Share(entry.conditioning, 1.0, entry.strength),)

    def changes(self, duration_s: float) -> tuple[float, ...]:
        placed = self._placed(duration_s)
        return tuple(
            start_s
            for (_, before), (start_s, entry) in pairwise(placed)
            if 0 < start_s < duration_s
            and not (before.conditioning is entry.conditioning and before.strength == entry.strength)
        )

    def _placed(self, duration_s: float) -> list[tuple[float, Entry]]:
        """Entries with their start from the beginning of the piece, in order; the last of those that begin at once."""
        placed = [
            (max(0.0, duration_s - entry.start_s) if entry.before_end else entry.start_s, entry)
            for entry in self.entries
        ]
        others = sorted((pair for pair in placed if not pair[1].is_last), key=lambda pair: pair[0])
        last = [(max(start_s, others[-1][0]), entry) for start_s, entry in placed if entry.is_last]
        placed = others + last
        next_s = [*(start_s for start_s, _ in placed[1:]), float("inf")]
        return [pair for pair, after_s in zip(placed, next_s, strict=True) if pair[0] < after_s]


def encode_timeline(conditioner: "Conditioner", lines: str, ending: str = "none") -> "Conditioning | Timeline":
    """The timeline that is written in `lines` (grammar: `timeline_text`), as `told_lines` has it; a single text is its own conditioning.

    ending: cadence = the last CADENCE_S follow the last text with words that ask for an ending (`ending_words`).
    InputError: what cannot be read, naming the entry and the word; another engine than the native one.
    """
    if ending not in ENDINGS:
        raise InputError(f"'ending' must be one of {', '.join(ENDINGS)}, got {ending!r}")
    written = told_lines(conditioner, lines, ending)
    for remark in tempo_remarks(conditioner, written):
        logger.info(remark)
    encoded = {text: conditioner.encode_text([text]) for text in dict.fromkeys(line.text for line in written)}
    if len(written) == 1 and written[0].strength == 1:
        return encoded[written[0].text]
    for conditioning in encoded.values():
        leaves_of(conditioning, "conditioner")
    is_last = [ending == "cadence" and line is written[-1] for line in written]
    return Timeline(
        tuple(
            Entry(encoded[line.text], line.start_s, line.strength, line.before_end, last)
            for line, last in zip(written, is_last, strict=True)
        )
    )


def ending_words(conditioner: "Conditioner") -> str:
    """How its model was taught to be asked for an ending; words for models of which that is not known."""
    vocabulary = getattr(conditioner, "vocabulary", None)  # none of the audiocraft engine
    return vocabulary.endings[0] if vocabulary and vocabulary.endings else CADENCE_TEXT


def told_lines(conditioner: "Conditioner", lines: str, ending: str = "none") -> list[Line]:
    """`timeline_lines` as the conditioner's model is told them: one that begins anew with each text goes on in tempo and key named last.

    It would take others where a text names none, for it does not hear the music before. A pace without a number (*slow*) is
    a tempo of its own.
    """
    written = timeline_lines(lines, ending, ending_words(conditioner))
    vocabulary = getattr(conditioner, "vocabulary", None)
    if not (vocabulary and vocabulary.begins_anew):
        return written
    tempo, key, told = "", "", dict[int, Line]()
    for index in sorted(range(len(written)), key=lambda index: _order(written[index])):
        line = written[index]
        own_tempo, own_key = vocabulary.tempo(line.text), vocabulary.key(line.text)
        kept = ", ".join(filter(None, ["" if own_key else key, tempo if own_tempo is None else ""]))
        if kept and line.text:
            line = replace(line, text=f"{line.text}, {kept}", kept=kept)
        tempo, key = tempo if own_tempo is None else own_tempo, f"in {own_key.name}" if own_key else key
        told[index] = line
    return [told[index] for index in range(len(written))]


def tempo_remarks(conditioner: "Conditioner", told: list[Line]) -> list[str]:
    """What a user is told of tempo and key of `told_lines`: what is kept, and that each text begins with a tempo of its own."""
    remarks = []
    if kept := [line.text for line in told if line.kept]:
        remarks.append("Kept from the text before: " + "; ".join(dict.fromkeys(kept)) + ".")
    vocabulary = getattr(conditioner, "vocabulary", None)
    if not (vocabulary and vocabulary.begins_anew) or any(vocabulary.tempo(line.text) is not None for line in told):
        return remarks
    if len({vocabulary.before_end(vocabulary.translate(line.text)) for line in told}) < 2:
        return remarks
    return [
        *remarks,
        "No text names a tempo, so each begins with its own. Name one in the first, as '110 bpm': the others keep it.",
    ]


def timeline_lines(lines: str, ending: str = "none", words: str = CADENCE_TEXT) -> list[Line]:
    """Entries of `lines`, and that of the ending behind them, which `words` ask for. Errors as in `encode_timeline`."""
    written = parse_timeline(lines)
    if ending == "none":
        return written
    final = max(written, key=_order)
    text = f"{final.text}, {words}" if final.text else words
    return [*written, Line(CADENCE_S, text, final.strength, before_end=True)]


def _order(line: Line) -> tuple[bool, float]:
    """Ascending with time, in a piece that is long enough for all entries."""
    return line.before_end, -line.start_s if line.before_end else line.start_s
