"""Pieces of general music: drawn by chance, composed, and cut to a window. A piece follows from its split and number alone."""

from dataclasses import dataclass

import numpy as np

from . import composer
from .composer import Bar, Grid
from .grooves import DRUMS, GENRES, GROOVES, Groove
from .harmony import KEY_NAMES, OCTAVE, Chord, progression
from .instruments import INSTRUMENTS, KITS
from .pieces import SPLITS
from .score import DRUM_BANK, Part, beat_on_frames, on_frame

ARRANGEMENTS = {"ensemble": 0.32, "no drums": 0.13, "solo": 0.36, "duo": 0.1, "drums alone": 0.09}
WINDOWS = {"beginning": 0.46, "ending": 0.32, "middle": 0.22}
_HEARD_S = 1.2  # of the last chord that must be heard for the piece to end within a clip
_STREAM = 7  # keeps these draws apart from pansori's
_HARD, _SOFT = 1.15, 0.62  # factors of velocity
_REVERB, _KIT_LEVEL = 32, 94  # of all pieces: what varies from piece to piece makes other codes of the same tone


@dataclass(frozen=True)
class Facts:
    """What a clip is, in the words of the field; `songwords.describe` puts it into a sentence."""

    groove: str
    genre: str
    metre: str
    bpm: float  # asked for; `Song.grid` has the one that is played
    tonic: int | None  # pitch class; None where there are drums alone
    mode: str | None
    arrangement: str  # of ARRANGEMENTS
    lead: str | None  # of INSTRUMENTS
    players: tuple[str, ...]  # all instruments but the drums, the lead first
    drums: bool
    register: str | None  # low, middle, high
    density: str  # sparse, medium, busy
    dynamics: str  # soft, medium, loud
    begins: bool  # the clip begins with the piece
    ends: bool  # the piece ends within the clip

    @property
    def key(self) -> str | None:
        return None if self.tonic is None else f"{KEY_NAMES[self.tonic]} {self.mode}"

    @property
    def alone(self) -> bool:
        return self.arrangement in ("solo", "drums alone")


@dataclass(frozen=True)
class Song:
    """A piece with the window that is the clip."""

    facts: Facts
    parts: list[Part]
    grid: Grid
    first_s: float  # of the window in the piece
    end_s: float  # of the piece's last bar line: after it, the last chord rings on
    line: list[tuple[float, float, int]]  # of the melody: start, end, pitch
    chords: list[Chord]  # of each bar

    def melody_frames(self, duration_s: float, n: int) -> np.ndarray:
        """[n] pitch class of the melody, a tone held through short rests; 12 where it rests. uint8."""
        result = np.full(n, 12, np.uint8)
        rate = n / duration_s
        for start, end, pitch in self.line:
            a, b = (round((t - self.first_s) * rate) for t in (start, end + 0.3))
            if b > 0 and a < n:
                result[max(0, a) : b] = pitch % OCTAVE
        return result

    def chord_frames(self, duration_s: float, n: int) -> tuple[np.ndarray, np.ndarray]:
        """[n] bits of the chord's pitch classes, int16, and its class: root, + 12 for minor, 24 for none. uint8."""
        bits, classes = np.zeros(n, np.int16), np.full(n, 24, np.uint8)
        if self.facts.tonic is None:
            return bits, classes
        time = self.first_s + (np.arange(n) + 0.5) * duration_s / n
        bars = (time / self.grid.bar_s).astype(int)
        inside = bars < len(self.chords)
        for bar in np.unique(bars[inside]):
            chord = self.chords[bar]
            bits[bars == bar] = chord.bits
            classes[bars == bar] = chord.root + (OCTAVE if chord.is_minor else 0)
        return bits, classes

    def beat_frames(self, duration_s: float, n: int, n_phases: int, n_beats: int, unknown: int) -> np.ndarray:
        """[2, n] uint8: phase within a beat, beat of the bar; `unknown` after the end."""
        time = self.first_s + (np.arange(n) + 0.5) * duration_s / n
        beat = time / self.grid.beat_s
        rows = np.stack([(beat % 1 * n_phases), beat % self.grid.groove.beats]).astype(np.uint8)
        rows[:, time > self.end_s] = unknown
        return np.minimum(rows, np.array([[n_phases - 1], [n_beats - 1]], np.uint8)) if unknown < n_beats else rows

    def drum_frames(self, duration_s: float, n: int) -> np.ndarray:
        """[n] uint8: 0 nothing is struck, 1 kick, 2 snare or clap, 3 hat, 4 cymbal, 5 anything else."""
        result = np.zeros(n, np.uint8)
        kinds = {
            DRUMS["k"]: 1,
            DRUMS["s"]: 2,
            DRUMS["r"]: 2,
            DRUMS["g"]: 2,
            DRUMS["h"]: 3,
            DRUMS["o"]: 3,
            DRUMS["p"]: 3,
        }
        kinds |= {DRUMS["d"]: 4, DRUMS["c"]: 4}
        for part in self.parts:
            if part.bank != DRUM_BANK:
                continue
            for note in part.notes:
                frame = int((note.start_s - self.first_s) * n / duration_s)
                kind = kinds.get(note.pitch, 5)
                if 0 <= frame < n and (result[frame] == 0 or kind < result[frame]):
                    result[frame] = kind
        return result


def song(split: str, number: int, duration_s: float) -> Song:
    """Piece `number` of a split: always the same, whatever was made before it."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([_STREAM, SPLITS.index(split), number])))
    groove_name = str(rng.choice(list(GROOVES)))
    groove = GROOVES[groove_name]
    return compose(groove_name, groove, _arrangement(groove, rng), duration_s, rng)


def compose(
    name: str, groove: Groove, arrangement: str, duration_s: float, rng: np.random.Generator, bpm: float | None = None,
    lead: str | None = None, window: str | None = None,
) -> Song:  # fmt: skip
    """A piece in a groove; what is not given is drawn. lead: of INSTRUMENTS; window: of WINDOWS.

    A tempo that is given is kept; one that is drawn is played so that its beats are whole frames: each beat's codes are then
    like those of the beat before, and a model has some 45 periods to learn in place of a continuum.
    """
    given = bpm is not None
    bpm = float(round(_bpm(groove, rng) if bpm is None else bpm, 1))
    played_bpm = bpm if given else beat_on_frames(bpm)
    grid = Grid(groove, played_bpm, groove.swing * rng.uniform(0.85, 1.1))
    window = window or str(rng.choice(list(WINDOWS), p=list(WINDOWS.values())))
    tonic, numerals, mode = _key(groove, rng)
    n_bars, first_s = _window(window, grid, duration_s, rng)
    first_s = on_frame(first_s)
    chords = progression(numerals, tonic)
    home = progression("i" if mode in ("minor", "dorian") else "I", tonic)[0]
    intro = int(rng.choice([0, 0, 1, 2])) if arrangement == "ensemble" and n_bars > 6 else 0
    cycle = len(chords)
    bars = [
        Bar(i, chords[(i - intro) % cycle], "AB"[((i - intro) // 8) % 2], i >= intro, False) for i in range(n_bars - 1)
    ]
    bars.append(Bar(n_bars - 1, home if arrangement != "drums alone" else chords[0], "A", True, True))
    end_s = (n_bars - 1) * grid.bar_s
    dynamics = str(rng.choice(["soft", "medium", "loud"], p=[0.25, 0.5, 0.25]))
    level = {"soft": _SOFT, "medium": 0.88, "loud": _HARD}[dynamics]
    density = str(rng.choice(["sparse", "medium", "busy"], p=[0.25, 0.5, 0.25]))
    motion = float(np.clip(groove.motion + {"sparse": -0.25, "medium": 0.0, "busy": 0.25}[density], 0.08, 1.0))
    players = _Players(groove, grid, bars, level, rng)
    register, line = None, []
    if arrangement == "drums alone":
        lead = None
    else:
        lead = lead or _lead(groove, arrangement, rng)
        register = str(rng.choice(["low", "middle", "high"], p=[0.25, 0.5, 0.25]))
        line = players.lead(lead, arrangement, register, tonic, mode, motion)
        if arrangement == "duo":
            players.accompany(lead)
        elif arrangement != "solo":
            players.band(lead, arrangement)
    with_drums = arrangement in ("ensemble", "drums alone") and (bool(groove.drums) or arrangement == "drums alone")
    if with_drums:
        players.drums()
    facts = Facts(
        name, groove.genre, groove.metre, bpm, None if lead is None else tonic, None if lead is None else mode,
        arrangement if with_drums or arrangement not in ("ensemble",) else "no drums", lead,
        tuple(dict.fromkeys(part.name for part in players.parts if part.bank != DRUM_BANK)), with_drums, register,
        density, dynamics, first_s == 0.0, end_s + _HEARD_S < first_s + duration_s,
    )  # fmt: skip
    return Song(facts, players.parts, grid, first_s, end_s, line, [bar.chord for bar in bars])


class _Players:
    """Writes the parts, one after another."""

    def __init__(self, groove: Groove, grid: Grid, bars: list[Bar], level: float, rng: np.random.Generator) -> None:
        self.groove, self.grid, self.bars, self.level, self.rng = groove, grid, bars, level, rng
        self.parts: list[Part] = []

    def lead(self, name: str, arrangement: str, register: str, tonic: int, mode: str, motion: float) -> list:
        instrument, rng = INSTRUMENTS[name], self.rng
        part = self._part(name, "melody", 1.0)
        span = instrument.high - instrument.low
        centre = instrument.low + span * {"low": 0.3, "middle": 0.5, "high": 0.7}[register]
        alone = arrangement == "solo"
        bars = self.bars
        if not alone and arrangement != "duo":
            bars = [bar for bar in bars if bar.tutti]
        double = int(rng.choice([0, 0, 0, 4, 12])) if instrument.chords else 0
        line = composer.melody(
            part, self.grid, bars, tonic, mode, centre, motion, self.level * (1.0 if alone else 1.08), rng, double or None
        )  # fmt: skip
        if alone and instrument.chords and rng.random() < 0.85:
            pattern = str(rng.choice(self.groove.chords))
            below = max(instrument.low + 8, centre - 17)
            composer.chords(part, self.grid, self.bars, pattern, 0.72 * self.level, below, with_root=True)
        return line

    def accompany(self, lead: str) -> None:
        """One other player."""
        name = self._other(self.groove.comping, lead)
        part = self._part(name, "chords", 0.85)
        pattern = str(self.rng.choice(self.groove.chords))
        composer.chords(part, self.grid, self.bars, pattern, 0.85 * self.level, 58, with_root=True)

    def band(self, lead: str, arrangement: str) -> None:
        groove, rng = self.groove, self.rng
        part = self._part(self._other(groove.comping, lead), "chords", 0.82)
        composer.chords(part, self.grid, self.bars, str(rng.choice(groove.chords)), 0.82 * self.level, 60)
        part = self._part(str(rng.choice(groove.basses)), "bass", 0.95)
        composer.bass(part, self.grid, self.bars, str(rng.choice(groove.bass)), 0.95 * self.level, rng)
        if groove.pads and rng.random() < 0.45:
            part = self._part(self._other(groove.pads, lead), "pad", 0.7)
            composer.pad(part, self.grid, self.bars, self.level)

    def drums(self) -> None:
        kit = str(self.rng.choice(self.groove.kits))
        part = Part(kit, "drums", KITS[kit], DRUM_BANK, _KIT_LEVEL, 64, _REVERB // 2)
        composer.drums(part, self.grid, self.bars, self.level, self.rng)
        self.parts.append(part)

    def _part(self, name: str, role: str, level: float) -> Part:
        instrument = INSTRUMENTS[name]
        program = int(self.rng.choice(instrument.programs))
        volume = min(127, round(instrument.level * level**0.5))
        self.parts.append(Part(name, role, program, 0, volume, 64, _REVERB))
        return self.parts[-1]

    def _other(self, names: tuple[str, ...], lead: str) -> str:
        others = [name for name in names if name != lead] or list(names)
        return str(self.rng.choice(others))


def _arrangement(groove: Groove, rng: np.random.Generator) -> str:
    chances = dict(ARRANGEMENTS)
    if not groove.drums:
        chances["drums alone"] = 0.0
    total = sum(chances.values())
    return str(rng.choice(list(chances), p=[chance / total for chance in chances.values()]))


def _lead(groove: Groove, arrangement: str, rng: np.random.Generator) -> str:
    """Most often what usually plays it; alone, often any instrument at all."""
    anyone = 0.5 if arrangement in ("solo", "duo") else 0.12
    if rng.random() < anyone:
        return str(
            rng.choice([name for name, instrument in INSTRUMENTS.items() if instrument.family != "bass"] + ["bass"])
        )
    return str(rng.choice(groove.leads))


def _bpm(groove: Groove, rng: np.random.Generator) -> float:
    """Within the groove's range, now and then beyond it."""
    low, high = groove.bpm
    stretch = 0.12 if rng.random() < 0.3 else 0.0
    return float(np.clip(np.exp(rng.uniform(np.log(low * (1 - stretch)), np.log(high * (1 + stretch)))), 50, 190))


def _key(groove: Groove, rng: np.random.Generator) -> tuple[int, str, str]:
    """Tonic, numerals, and the mode that they are in."""
    numerals = str(rng.choice(groove.progressions))
    modes = groove.modes
    first = numerals.split()[0]
    minor = first.rstrip("5679") == "i"
    fitting = [mode for mode in modes if (mode in ("minor", "dorian")) == minor]
    mode = str(rng.choice(fitting)) if fitting else ("minor" if minor else "major")
    return int(rng.integers(OCTAVE)), numerals, mode


def _window(kind: str, grid: Grid, duration_s: float, rng: np.random.Generator) -> tuple[int, float]:
    """Bars of the piece, and where the window begins, most often on a bar line."""
    bar_s = grid.bar_s
    if kind == "beginning":
        return int(np.ceil(duration_s / bar_s)) + 5, 0.0
    if kind == "middle":
        first = float(rng.integers(2, 12)) if rng.random() < 0.9 else float(rng.uniform(2, 12))
        return int(np.ceil(first + duration_s / bar_s)) + 5, first * bar_s
    last_s = rng.uniform(0.35, 0.72) * duration_s  # of the last bar line in the window
    if rng.random() < 0.4:  # a short piece, whole
        return max(3, round(last_s / bar_s)) + 1, 0.0
    before = max(1, round(last_s / bar_s))
    n_bars = before + int(rng.integers(2, 10)) + 1
    return n_bars, max(0.0, (n_bars - 1 - before) * bar_s)


def genre_index(genre: str) -> int:
    return GENRES.index(genre)
