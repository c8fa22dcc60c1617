"""A key that a text names, as rows in front of the codes: for models that heed chords and hear no key in words.

Nothing of this is the reference's. A model whose card has `key_s` is told the tonic triad for so many seconds, as if it were a
chord, and nothing for as many, by turns, through every window: told once, music has left the key after some seconds; told
always, it stays on one chord. One who plays alone is told its tones one after another, as if they were a melody: told a chord,
players of one tone at a time sound like others.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from .conditioner import Conditioner

TONES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_KOREAN = ("다", "올림 다", "라", "내림 마", "마", "바", "올림 바", "사", "내림 가", "가", "내림 나", "나")
_NATURAL = {
    "c": 0,
    "d": 2,
    "e": 4,
    "f": 5,
    "g": 7,
    "a": 9,
    "b": 11,
    "다": 0,
    "라": 2,
    "마": 4,
    "바": 5,
    "사": 7,
    "가": 9,
    "나": 11,
}
_MODES = {"maj": "major", "min": "minor", "m": "minor", "장조": "major", "단조": "minor", "": "major"}
_WITH_MINOR_THIRD = ("minor", "dorian")
_SHIFTS = {"sharp": 1, "#": 1, "♯": 1, "올림": 1, "flat": -1, "b": -1, "♭": -1, "내림": -1, "": 0}
_SIGN = r"[#♯b♭]|[ -]?(?i:sharp|flat)"
_NAMED = re.compile(
    # "Bb minor", "F-sharp maj", "D dorian"; "in a minor key" is none, nor "a major hit"
    rf"(?<![\w#♯♭])(?!a[ -](?i:maj|min)\w*\s+[^\s,.;])(?:(?P<tone>[A-Ga-g])(?P<sign>{_SIGN})?[ -]?(?P<mode>(?i:major|minor|maj|min|dorian|mixolydian))\b"
    r"(?! (?:key|mode|scale|mood|third|chord))"
    # "C#m"; of naturals, which may be words ("Am I"), what follows "in" or stands alone
    r"|(?P<tone2>[A-G])(?P<sign2>[#♯b♭])m\b|(?:(?<=\bin )|(?<=\bkey of )|(?<=, )|^)(?P<tone3>[A-G])m(?=\s*(?:[,.;]|$))"
    # "key of D", "in E flat"
    rf"|(?:(?<=\bkey of )|(?<=\bin ))(?P<tone4>[A-G])(?P<sign4>{_SIGN})?(?=\s*(?:[,.;]|$)))"
    # the particle of "피아노가 단조" is no tone
    r"|(?<![가-힣])(?:(?P<sign5>올림|내림) ?)?(?P<tone5>[다라마바사가나]) ?(?P<mode5>장조|단조)"
)


@dataclass(frozen=True)
class Key:
    """A key by its tonic's pitch class, C = 0, and its mode: major, minor, dorian or mixolydian."""

    tonic: int
    mode: str

    @property
    def name(self) -> str:
        """As the descriptions of general-mini's training have it."""
        return f"{TONES[self.tonic]} {self.mode}"

    @property
    def triad(self) -> tuple[int, int, int]:
        """Pitch classes of its first chord."""
        third = 3 if self.mode in _WITH_MINOR_THIRD else 4
        return self.tonic, (self.tonic + third) % len(TONES), (self.tonic + 7) % len(TONES)


def named(text: str) -> Key | None:
    """The first key that a text names, in English or Korean, with words or signs; None if there is none."""
    found = _NAMED.search(text)
    return _key(found) if found else None


def respelled(text: str) -> str:
    """The text with its keys as the descriptions have them, in its language: they have one name for each tone."""

    def told(found: re.Match) -> str:
        key = _key(found)
        return f" {_KOREAN[key.tonic]}{found['mode5']} " if found["tone5"] else key.name  # a particle may follow

    return _NAMED.sub(told, text)


def remark(conditioner: object, text: str) -> str | None:
    """What a user is told of the key that a conditioner's model is told for a text; None if it is told none."""
    vocabulary = getattr(conditioner, "vocabulary", None)  # none of the audiocraft engine
    key = vocabulary.key(text) if vocabulary else None
    return f"Key: {key.name}." if key else None


def rows_of(conditioner: "Conditioner", texts: Sequence[str], null: Tensor | None) -> tuple[Tensor, ...]:
    """For each text the rows [F, D] of a window: its key's triad, together or tone by tone, and no melody (`null` [F, D]) by turns.

    () if no text names a key, or the model is told none.
    """
    vocabulary = conditioner.vocabulary
    keys = [vocabulary.key(text) for text in texts] if vocabulary else []
    if vocabulary is None or null is None or not any(keys):
        return ()
    times_s = torch.arange(len(null)) * conditioner.config.segment_s / len(null)
    turn = (times_s * 3 / vocabulary.key_s).long() % 6  # 0 to 2: a tone; 3 to 5: nothing
    weight, bias = (parameter.detach().cpu() for parameter in conditioner.melody_projection.parameters())

    def told(key: Key, alone: bool) -> Tensor:
        tones = F.one_hot(torch.tensor(key.triad), len(TONES)).float()
        chroma = tones[turn % 3] if alone else tones.sum(dim=0).expand(len(turn), -1)
        return torch.where((turn < 3)[:, None], F.linear(chroma, weight, bias), null)

    alone = map(vocabulary.is_alone, texts)
    return tuple(null if key is None else told(key, one) for key, one in zip(keys, alone, strict=True))


def _key(found: re.Match) -> Key:
    groups = found.groupdict()
    tone, sign = (
        next((groups[name] for name in groups if name.startswith(kind) and groups[name]), "")
        for kind in ("tone", "sign")
    )
    mode = (groups["mode"] or groups["mode5"] or ("m" if groups["tone2"] or groups["tone3"] else "")).lower()
    tonic = (_NATURAL[tone.lower()] + _SHIFTS[sign.strip(" -").lower()]) % len(TONES)
    return Key(tonic, _MODES.get(mode, mode))
