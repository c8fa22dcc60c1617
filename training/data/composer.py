"""Parts over a groove: drums, bass, chords, and a melody of motifs that return."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .grooves import DRUMS, Groove
from .harmony import OCTAVE, SCALES, Chord, nearest, voicing
from .instruments import INSTRUMENTS
from .score import FRAME_S, Part, on_frame

_STROKES = {"x": 86, "X": 108, "o": 52}
_FILL = ("s", "t", "f")


@dataclass(frozen=True)
class Grid:
    """Where beats are in time."""

    groove: Groove
    bpm: float
    swing: float

    @property
    def steps(self) -> int:
        """Of a bar."""
        return self.groove.beats * self.groove.steps

    @property
    def beat_s(self) -> float:
        return 60.0 / self.bpm

    @property
    def bar_s(self) -> float:
        return self.groove.beats * self.beat_s

    def at(self, bar: int, step: float) -> float:
        """Time of a step of a bar in seconds, the second half of a beat as late as the swing has it."""
        beat, within = divmod(step / self.groove.steps, 1.0)
        middle = 0.5 + self.swing
        within = within * 2 * middle if within <= 0.5 else middle + (within - 0.5) * 2 * (1 - middle)
        return (bar * self.groove.beats + beat + within) * self.beat_s


@dataclass(frozen=True)
class Bar:
    """What all players know of a bar."""

    number: int
    chord: Chord
    section: str  # A or B
    tutti: bool  # drums and bass play
    last: bool


def drums(part: Part, grid: Grid, bars: Sequence[Bar], level: float, rng: np.random.Generator) -> None:
    pattern = grid.groove.drums or {"k": ("X" + "." * (grid.steps - 1))}
    for bar in bars:
        if bar.last:
            for drum, velocity in (("k", 110), ("c", 100)):
                part.add(grid.at(bar.number, 0), 1.0, DRUMS[drum], level * velocity)
            continue
        fill = bar.tutti and bar.number % 4 == 3 and rng.random() < 0.35
        for drum, strokes in pattern.items():
            for step, stroke in enumerate(strokes):
                if stroke == "." or (fill and step >= grid.steps - grid.groove.steps and drum in "sr"):
                    continue
                if not bar.tutti and drum not in "hdp":
                    continue
                velocity = level * _STROKES[stroke]
                part.add(grid.at(bar.number, step), 0.2, DRUMS[drum], velocity)
        if fill:
            for i in range(grid.groove.steps):
                time = grid.at(bar.number, grid.steps - grid.groove.steps + i)
                part.add(time, 0.2, DRUMS[_FILL[min(2, i * 3 // grid.groove.steps)]], level * (80 + 8 * i))
        if bar.number and bar.number % 8 == 0 and bar.tutti:
            part.add(grid.at(bar.number, 0), 1.5, DRUMS["c"], level * 92)


def bass(part: Part, grid: Grid, bars: Sequence[Bar], pattern: str, level: float, rng: np.random.Generator) -> None:
    instrument = INSTRUMENTS[part.name]
    for bar, following in zip(bars, [*bars[1:], bars[-1]], strict=True):
        root = nearest(instrument.low + 8, (bar.chord.root,))
        if bar.last:
            part.add(grid.at(bar.number, 0), 2 * grid.beat_s, root, level * 92)
            continue
        if not bar.tutti:
            continue
        fifth = root + (6 if 6 in bar.chord.intervals else 7)
        third = root + (3 if bar.chord.is_minor else 4)
        walked = root
        events = [(step, sign) for step, sign in enumerate(pattern) if sign not in "-."]
        for i, (step, sign) in enumerate(events):
            end = next((s for s in range(step + 1, grid.steps) if pattern[s] != "-"), grid.steps)
            pitch = {"R": root, "5": fifth, "8": root + OCTAVE, "3": third, "W": root}[sign]
            if sign == "W":
                if i and i == len(events) - 1:
                    pitch = nearest(walked, (following.chord.root,)) + int(rng.choice([-1, 1, 2, -2]))
                elif i:
                    pitch = nearest(walked + rng.choice([-4, -3, 3, 4]), bar.chord.tones)
                walked = pitch = int(np.clip(pitch, instrument.low, instrument.high))
            start = grid.at(bar.number, step)
            length = grid.at(bar.number, end) - start
            part.add(start, length * 0.92, pitch, level * (90 + (6 if step == 0 else 0)))


def chords(
    part: Part, grid: Grid, bars: Sequence[Bar], pattern: str, level: float, centre: float, with_root: bool = False
) -> None:
    """with_root: the root an octave or two below on the first beat, for a player who is alone."""
    instrument = INSTRUMENTS[part.name]
    centre = float(np.clip(centre, instrument.low + 5, instrument.high - 5))
    for bar in bars:
        tones = voicing(bar.chord, centre, 4)
        low = nearest(max(centre - 15, instrument.low + 2), (bar.chord.root,))
        if bar.last:
            for i, pitch in enumerate([low, *tones]):
                part.add(on_frame(grid.at(bar.number, 0)) + FRAME_S * (i // 2), 2.5 * grid.beat_s, pitch, level * 84)
            continue
        cycle = [*tones, tones[0] + OCTAVE, *tones[:0:-1]]
        if with_root:
            part.add(grid.at(bar.number, 0), grid.bar_s * 0.9, low, level * 80)
        count = 0
        for step, sign in enumerate(pattern):
            if sign in "-.":
                continue
            start = grid.at(bar.number, step)
            end = next((s for s in range(step + 1, grid.steps) if pattern[s] != "-"), grid.steps)
            length = grid.at(bar.number, end) - start
            velocity = level * (78 + (6 if step == 0 else 0))
            if sign == "a":
                part.add(start, 2 * length, cycle[count % len(cycle)], velocity)
                count += 1
            elif sign == "B":
                part.add(start, length, low, velocity)
            else:
                held = min(length * 0.95, 0.55 * grid.beat_s if sign == "c" else 1e9)
                start = on_frame(start)
                for i, pitch in enumerate(tones):
                    strum_s = FRAME_S * (i // 2) if instrument.family == "plucked" else 0.0
                    part.add(start + strum_s, held, pitch, velocity)


def pad(part: Part, grid: Grid, bars: Sequence[Bar], level: float) -> None:
    """Held chords, slurred where the chord stays."""
    for bar in bars:
        for pitch in voicing(bar.chord, 62, 3):
            part.add(grid.at(bar.number, 0), grid.bar_s * 0.98 if not bar.last else 2 * grid.beat_s, pitch, level * 66)


@dataclass(frozen=True)
class Motif:
    """Onsets in steps with lengths, and a contour in degrees of the scale."""

    events: tuple[tuple[int, int, int], ...]  # step, length, contour


def motif(grid: Grid, motion: float, rng: np.random.Generator) -> Motif:
    """One bar's worth."""
    unit = grid.groove.steps
    onsets = []
    for step in range(grid.steps):
        within = step % unit
        if step == 0:
            chance = 0.9
        elif within == 0:
            chance = 0.35 + 0.55 * motion
        elif unit == 3:
            chance = 0.1 + 0.85 * motion * motion
        elif within == 2:
            chance = 0.1 + 0.75 * motion
        else:
            chance = 0.5 * motion * motion - 0.06
        if grid.beat_s < 0.42:  # at a quick tempo there is no time for small values
            chance *= 1.0 if within == 0 else (0.6 if within * 2 == unit or unit == 3 else 0.0)
        elif grid.beat_s > 0.8 and within * 2 == unit:
            chance = max(chance, 0.35)
        if rng.random() < chance:
            onsets.append(step)
    onsets = onsets or [0]
    contour, events = int(rng.integers(-2, 3)), []
    for onset, end in zip(onsets, [*onsets[1:], grid.steps], strict=True):
        length = end - onset
        if length > 2 * unit and rng.random() < 0.5:
            length = 2 * unit if rng.random() < 0.7 else unit
        events.append((onset, length, contour))
        contour += int(
            rng.choice([-3, -2, -1, -1, 0, 1, 1, 2, 3], p=[0.05, 0.12, 0.2, 0.08, 0.08, 0.08, 0.22, 0.12, 0.05])
        )
        contour = int(np.clip(contour, -5, 6))
    return Motif(tuple(events))


def melody(
    part: Part, grid: Grid, bars: Sequence[Bar], tonic: int, mode: str, centre: float, motion: float, level: float,
    rng: np.random.Generator, double: int | None = None,
) -> list[tuple[float, float, int]]:  # fmt: skip
    """Write the melody, and give its line as (start, end, pitch). double: an interval at which it is doubled in thirds or octaves."""
    instrument = INSTRUMENTS[part.name]
    low, high = instrument.low + 1, instrument.high - 1
    centre = float(np.clip(centre, low + 5, high - 7))
    scale = tuple((tonic + tone) % OCTAVE for tone in SCALES[mode])
    motifs = {section: [motif(grid, motion, rng) for _ in range(3)] for section in "AB"}
    plans = {section: _FORMS[rng.integers(len(_FORMS))] for section in "AB"}
    line: list[tuple[float, float, int]] = []
    for bar in bars:
        if bar.last:
            events = ((0, 2 * grid.groove.steps, 0),)
            target = nearest(centre, (tonic,))
        else:
            events = motifs[bar.section][plans[bar.section][bar.number % 4]].events
            target = None
        lift = 3 if bar.section == "B" else 0
        for step, length, contour in events:
            strong = step % grid.groove.steps == 0
            wanted = centre + lift + 1.75 * contour
            tones = bar.chord.tones if strong else tuple(set(scale) | set(bar.chord.tones))
            pitch = int(np.clip(target if target is not None else nearest(wanted, tones), low, high))
            start, end = grid.at(bar.number, step), grid.at(bar.number, step + length)
            velocity = level * (92 + (8 if step == 0 else 0) + 1.2 * contour)
            sounding = (end - start) * (instrument.legato if not bar.last else 1.0)
            part.add(start, sounding, pitch, velocity)
            if double:
                part.add(start, sounding, nearest(pitch - double, scale), velocity - 12)
            line.append((start, end, pitch))
    return line


_FORMS = ((0, 0, 0, 1), (0, 1, 0, 2), (0, 0, 1, 2), (0, 1, 0, 1), (0, 0, 1, 0))
