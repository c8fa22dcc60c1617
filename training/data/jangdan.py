"""Jangdan, the rhythmic cycles of pansori, and the strokes of the buk that mark them. Sources: SOURCES.md.

A cycle is a number of beats (bak), each of two or three pulses. What is modelled is the skeleton that beginners learn:
the first beat struck with both hands, the accent on the wood where the cycle "binds" (the ninth beat of jungmori, the
ninth pulse of its quicker relatives, the fifth and sixth beats of jinyangjo), lighter strokes between, which a drummer
(gosu) varies. Real drumming follows the singer and is far freer.
"""

from dataclasses import dataclass

import numpy as np

STROKES = ("deong", "kung", "deok", "tak")
# deong: both hands at once. kung: the left hand on its head, deep. deok: the stick on the right head. tak: the stick on
# the wood of the body, short and sharp.

_ORNAMENT_CHANCE, _OMISSION_CHANCE = 0.08, 0.08
_LIGHT = 0.45  # strokes below this accent may be left out


@dataclass(frozen=True)
class Stroke:
    """One stroke of a cycle."""

    pulse: int  # from the start of the cycle
    name: str  # one of STROKES
    accent: float  # loudness, 1 = full


@dataclass(frozen=True)
class Hit:
    """One stroke in time."""

    time_s: float
    name: str
    accent: float


@dataclass(frozen=True)
class Jangdan:
    """A rhythmic cycle. `tempos_bpm` count its beats, which are dotted where a beat has three pulses."""

    name: str
    hangul: str
    n_beats: int
    pulses_per_beat: int
    tempos_bpm: tuple[float, ...]  # at which it is played, from slow to fast
    strokes: tuple[Stroke, ...]

    @property
    def tempo_bpm(self) -> tuple[float, float]:
        """The slowest and the fastest tempo."""
        return self.tempos_bpm[0], self.tempos_bpm[-1]

    @property
    def n_pulses(self) -> int:
        return self.n_beats * self.pulses_per_beat

    def cycle_s(self, bpm: float) -> float:
        return 60.0 * self.n_beats / bpm

    def pulse_s(self, bpm: float) -> float:
        return 60.0 / bpm / self.pulses_per_beat


def _cycle(pattern: str, accents: str) -> tuple[Stroke, ...]:
    """Strokes from two strings of a character a pulse: O deong, u kung, d deok, x tak, . nothing; accents 1..9."""
    names = dict(zip("Oudx", STROKES, strict=True))
    return tuple(
        Stroke(pulse, names[mark], int(accent) / 9)
        for pulse, (mark, accent) in enumerate(zip(pattern, accents, strict=True))
        if mark != "."
    )


# Tempos: the usual ranges overlap from singer to singer; here they are kept apart, so that a pace says which is meant. Of
# each range a few are played, so close that any other is within 8 % of one: a small model learns a beat that comes back
# thousands of times soon, but in the same time no beat at all if every tempo is played now and then.
JANGDAN = {
    jangdan.name: jangdan
    for jangdan in (
        # Six beats of three (18/8), very slow, accents on the 13th and the 16th pulse.
        Jangdan("jinyangjo", "진양조", 6, 3, (32, 37, 42), _cycle("O.....u.....x..x.x", "9.....3.....8..8.5")),
        # Twelve beats (12/4), accent on the ninth.
        Jangdan("jungmori", "중모리", 12, 2, (86, 96), _cycle("O...d.u.d.ddu.u.x.u.u...", "9...4.4.5.445.5.9.5.4...")),
        # Twelve pulses (12/8), the same skeleton at about twice the pace.
        Jangdan("jungjungmori", "중중모리", 4, 3, (59, 66, 74), _cycle("O.dudduuxuu.", "9.444545944.")),
        # Four quick beats of three (12/8).
        Jangdan("jajinmori", "자진모리", 4, 3, (109, 121, 134), _cycle("O..u..u.xu..", "9..5..5.85..")),
        # Four very quick beats of two (4/4), accent on the sixth pulse.
        Jangdan("hwimori", "휘모리", 4, 2, (192, 208, 224), _cycle("O.dduxu.", "9.44585.")),
    )
}


def hits(jangdan: Jangdan, bpm: float, first_pulse: float, duration_s: float, rng: np.random.Generator) -> list[Hit]:
    """The drummer's strokes in `duration_s`, of which the start is `first_pulse` pulses into a cycle.

    Every cycle leaves out some light strokes and adds a few lighter ones; times waver by a few milliseconds.
    """
    pulse_s = jangdan.pulse_s(bpm)
    made = []
    for cycle in range(int((first_pulse + duration_s / pulse_s) // jangdan.n_pulses) + 1):
        for stroke in _varied(jangdan, rng):
            time_s = (cycle * jangdan.n_pulses + stroke.pulse - first_pulse) * pulse_s + rng.normal(0, 0.004)
            if 0 <= time_s < duration_s:
                made.append(Hit(time_s, stroke.name, stroke.accent * rng.uniform(0.85, 1.0)))
    return made


def _varied(jangdan: Jangdan, rng: np.random.Generator) -> list[Stroke]:
    written = {stroke.pulse: stroke for stroke in jangdan.strokes}
    strokes = []
    for pulse in range(jangdan.n_pulses):
        chance = rng.random()
        stroke = written.get(pulse)
        if stroke is None and chance < _ORNAMENT_CHANCE and jangdan.name != "hwimori":
            strokes.append(Stroke(pulse, "deok", 0.25))
        elif stroke is not None and not (stroke.accent < _LIGHT and chance < _OMISSION_CHANCE):
            strokes.append(stroke)
    return strokes
