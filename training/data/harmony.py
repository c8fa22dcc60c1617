"""Keys, scales and chord progressions."""

import re
from dataclasses import dataclass

OCTAVE = 12
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
KEY_NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_QUALITIES = {
    "": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "m7": (0, 3, 7, 10), "dim": (0, 3, 6),
    "5": (0, 7), "sus": (0, 5, 7), "9": (0, 4, 7, 10, 14), "6": (0, 4, 7, 9),
}  # fmt: skip
_ROMAN = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}
_NUMERAL = re.compile(r"(b|#)?([ivIV]+)(maj7|7|9|dim|5|sus|6)?$")


@dataclass(frozen=True)
class Chord:
    """A chord by pitch class."""

    root: int  # 0..11, C = 0
    intervals: tuple[int, ...]  # semitones above the root

    @property
    def is_minor(self) -> bool:
        return 3 in self.intervals

    @property
    def tones(self) -> tuple[int, ...]:
        return tuple((self.root + interval) % OCTAVE for interval in self.intervals)

    @property
    def bits(self) -> int:
        return sum(1 << tone for tone in set(self.tones))


def progression(numerals: str, tonic: int) -> list[Chord]:
    """'I vi7 bVII' in a key -> chords. Numerals count from the major scale; small ones are minor."""
    return [_chord(numeral, tonic) for numeral in numerals.split()]


def nearest(pitch: float, tones: tuple[int, ...]) -> int:
    """The MIDI pitch nearest to `pitch` whose pitch class is among `tones`."""
    centre = round(pitch)
    return min((p for p in range(centre - 7, centre + 8) if p % OCTAVE in tones), key=lambda p: (abs(p - pitch), p))


def voicing(chord: Chord, centre: float, n_tones: int) -> list[int]:
    """The chord in close position around `centre`, lowest tone first."""
    tones = [chord.tones[i % len(chord.tones)] for i in range(min(n_tones, len(chord.tones)))]
    return sorted({nearest(centre + 3 * (i - (len(tones) - 1) / 2), (tone,)) for i, tone in enumerate(tones)})


def _chord(numeral: str, tonic: int) -> Chord:
    match = _NUMERAL.match(numeral)
    if match is None:
        raise ValueError(f"{numeral!r} is no numeral of a chord")
    accidental, roman, quality = match.groups(default="")
    minor = roman.islower()
    if minor and quality in ("", "7"):
        quality = "m" + quality
    shift = {"b": -1, "#": 1, "": 0}[accidental]
    return Chord((tonic + _ROMAN[roman.lower()] + shift) % OCTAVE, _QUALITIES[quality])
