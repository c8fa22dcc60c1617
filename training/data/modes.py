"""The modes (jo) of pansori as scales with gestures on certain tones. Sources: SOURCES.md.

A jo is more than its tones: a way of producing the voice and of moving. Scholars do not agree on the tones of ujo and
pyeongjo either. What is here is one published reading of each, in semitones above its lowest principal tone.
"""

from dataclasses import dataclass

OCTAVE = 12


@dataclass(frozen=True)
class Mode:
    """Tones in semitones above the tonic, within an octave, and what happens on some of them."""

    name: str
    hangul: str
    tones: tuple[int, ...]
    trembling: int | None = None  # the tone with the deep vibrato (tteoneun-eum)
    breaking: tuple[int, int] | None = None  # (from, to): the first is struck and falls to the second (kkeokneun-eum)
    vibrato_semitones: float = 0.25  # half of the swing on long tones other than the trembling one

    def pitch(self, degree: int) -> int:
        """Semitones above the tonic of a degree that may lie in any octave."""
        octave, index = divmod(degree, len(self.tones))
        return OCTAVE * octave + self.tones[index]


MODES = {
    mode.name: mode
    for mode in (
        # la-do-re-mi-sol: majestic, steady.
        Mode("ujo", "우조", (0, 3, 5, 7, 10), vibrato_semitones=0.2),
        # sol-la-do-re-mi: calm, bright.
        Mode("pyeongjo", "평조", (0, 2, 5, 7, 9), vibrato_semitones=0.3),
        # la-(si-do)-mi: sorrowful. mi trembles deeply, do breaks down to si, la is held plain.
        Mode("gyemyeonjo", "계면조", (0, 2, 3, 7), trembling=7, breaking=(3, 2), vibrato_semitones=0.1),
    )
}

# Plain scales, for melodies that are not pansori.
SCALES = {
    scale.name: scale
    for scale in (
        Mode("major", "", (0, 2, 4, 5, 7, 9, 11), vibrato_semitones=0.1),
        Mode("minor", "", (0, 2, 3, 5, 7, 8, 10), vibrato_semitones=0.1),
        Mode("pentatonic", "", (0, 2, 4, 7, 9), vibrato_semitones=0.1),
        Mode("chromatic", "", tuple(range(12)), vibrato_semitones=0.1),
    )
}
