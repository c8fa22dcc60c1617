"""A piece as notes: keys, progressions, bass lines, melodies and grooves, drawn from a seed."""

from dataclasses import dataclass, field

import numpy as np

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
SHAPES = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
}
# Semitones above the tonic and quality of the degrees, and which may follow each.
DEGREES = {
    "major": {"I": (0, "maj"), "ii": (2, "min"), "iii": (4, "min"), "IV": (5, "maj"), "V": (7, "maj"), "vi": (9, "min")},
    "minor": {"i": (0, "min"), "III": (3, "maj"), "iv": (5, "min"), "v": (7, "min"), "V": (7, "maj"), "VI": (8, "maj"), "VII": (10, "maj")},
}  # fmt: skip
FOLLOWING = {
    "I": "IV V vi ii iii IV V", "ii": "V V IV", "iii": "vi IV", "IV": "V I ii I V", "V": "I vi IV I i VI i", "vi": "IV ii V iii",
    "i": "iv VI VII v V III", "III": "VII VI iv", "iv": "V i VII v", "v": "i VI iv", "VI": "VII iv III V i", "VII": "i III VI",
}  # fmt: skip
FORMS = ("AABB", "ABAB", "AABA", "ABBA")
# Beat of the bar -> what sounds: k kick, s snare, h hat, r ride. Halves are off the beat; a swung one is moved later.
GROOVES = {
    4: {
        "rock": {0: "kh", 0.5: "h", 1: "sh", 1.5: "h", 2: "kh", 2.5: "kh", 3: "sh", 3.5: "h"},
        "ballad": {0: "kh", 1: "h", 2: "sh", 3: "h", 3.5: "k"},
        "house": {0: "k", 0.5: "h", 1: "ks", 1.5: "h", 2: "k", 2.5: "h", 3: "ks", 3.5: "h"},
        "funk": {0: "kh", 0.5: "h", 0.75: "k", 1: "sh", 1.5: "h", 1.75: "s", 2: "h", 2.5: "kh", 3: "sh", 3.5: "h"},
        "shuffle": {0: "kr", 1: "sr", 1.5: "r", 2: "kr", 3: "sr", 3.5: "r"},
        "none": {},
    },
    6: {  # in eighths
        "slow six": {0: "kh", 1: "h", 2: "h", 3: "sh", 4: "h", 5: "h"},
        "jig": {0: "kr", 2: "r", 3: "sr", 5: "r"},
        "shanty": {0: "k", 2: "h", 3: "s", 5: "h"},
        "none": {},
    },
    3: {
        "waltz": {0: "kr", 1: "h", 2: "h"},
        "jazz waltz": {0: "kr", 1: "r", 1.5: "r", 2: "sr"},
        "slow three": {0: "kh", 0.5: "h", 1: "h", 1.5: "h", 2: "sh", 2.5: "h"},
        "none": {},
    },
}
SWUNG = ("shuffle", "jazz waltz")


@dataclass(frozen=True)
class Chord:
    """A chord over an interval in seconds; root 0 is C."""

    start_s: float
    end_s: float
    root: int
    quality: str

    @property
    def label(self) -> str:
        """In the grammar of chord texts, without sevenths: `C`, `A:min`."""
        return NAMES[self.root] + (":min" if self.quality.startswith("min") else "")

    @property
    def full_label(self) -> str:
        return NAMES[self.root] + ("" if self.quality == "maj" else f":{self.quality}")


@dataclass(frozen=True)
class Note:
    start_s: float
    end_s: float
    pitch: int  # MIDI
    velocity: float = 1.0


@dataclass(frozen=True)
class Hit:
    time_s: float
    drum: str  # k, s, h, r, c
    velocity: float = 1.0


@dataclass
class Score:
    """A piece and what is true of it."""

    bpm: float
    meter: int
    tonic: int
    mode: str
    groove: str
    beats_s: np.ndarray
    downbeats_s: np.ndarray
    end_s: float
    chords: list[Chord] = field(default_factory=list)
    sections: list[tuple[float, float, str]] = field(default_factory=list)
    comping: list[Note] = field(default_factory=list)
    bass: list[Note] = field(default_factory=list)
    melody: list[Note] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{NAMES[self.tonic]} {self.mode}"


def compose(seed: int, compound: bool = False) -> Score:
    """The piece of a seed, about 30 s long. compound: in 6/8, with `bpm` and beats in eighths."""
    rng = np.random.default_rng([seed, 28 if compound else 25])
    bpm, meter = float(rng.uniform(66, 168)), 4 if rng.random() < 0.7 else 3
    if compound:
        bpm, meter = 3 * float(rng.uniform(44, 92)), 6
    beat_s = 60 / bpm
    n_bars = 4 * max(3, round(30 / (4 * meter * beat_s)))
    start_s = float(rng.uniform(0.05, 0.8))
    beats_s = start_s + beat_s * np.arange(n_bars * meter)
    score = Score(
        bpm, meter, int(rng.integers(12)), "major" if rng.random() < 0.6 else "minor",
        str(rng.choice(list(GROOVES[meter]))), beats_s, beats_s[::meter], start_s + n_bars * meter * beat_s,
    )  # fmt: skip
    form, sevenths = str(rng.choice(FORMS)), float(rng.choice([0, 0, 0.3, 0.6]))
    parts = {name: _progression(rng, score, sevenths, name) for name in "AB"}
    styles = {name: (str(rng.choice(["held", "beats", "arpeggio", "offbeats"])), str(rng.choice(["root", "fifths", "eighths", "walking"]))) for name in "AB"}  # fmt: skip
    last = form[(n_bars // 4 - 1) % 4]
    parts["end"] = _with_cadence(score, parts[last]) if rng.random() < 0.85 else parts[last]
    styles["end"] = styles[last]
    tunes = {name: _tune(rng, score, part) for name, part in parts.items()}
    for number in range(n_bars // 4):
        name = form[number % 4]
        first = 4 * meter * number
        at_s = start_s + first * beat_s
        end_s = at_s + 4 * meter * beat_s
        if score.sections and score.sections[-1][2] == name:
            score.sections[-1] = (score.sections[-1][0], end_s, name)
        else:
            score.sections.append((at_s, end_s, name))
        part = "end" if number == n_bars // 4 - 1 else name
        for begin, length, root, quality in parts[part]:
            chord = Chord(at_s + begin * beat_s, at_s + (begin + length) * beat_s, root, quality)
            score.chords.append(chord)
            _comp(rng, score, chord, styles[part][0], length, beat_s)
            _bass(rng, score, chord, styles[part][1], length, beat_s)
        score.melody += [
            Note(at_s + begin * beat_s, at_s + end * beat_s, pitch, float(rng.uniform(0.7, 1)))
            for begin, end, pitch in tunes[part]
        ]
        _drums(rng, score, at_s, beat_s)
    return score


def _progression(rng, score, sevenths, part):
    """Four bars of (first beat, beats, root, quality)."""
    degrees = DEGREES[score.mode]
    home = "I" if score.mode == "major" else "i"
    name = (
        home
        if rng.random() < (0.8 if part == "A" else 0.3)
        else str(rng.choice([each for each in degrees if each != home]))
    )
    chords = []
    for bar in range(4):
        halves = score.meter == 4 and rng.random() < 0.25
        for begin, length in ((0, 2), (2, 2)) if halves else ((0, score.meter),):
            step, quality = degrees[name]
            if rng.random() < sevenths:
                quality = "min7" if quality == "min" else "7" if name in ("V", "VII") else "maj7"
            chords.append((bar * score.meter + begin, length, (score.tonic + step) % 12, quality))
            allowed = [each for each in FOLLOWING[name].split() if each in degrees]
            name = str(rng.choice(allowed))
    return chords


def _with_cadence(score, chords):
    """The four bars with the tonic in the last."""
    quality = "maj" if score.mode == "major" else "min"
    return [chord for chord in chords if chord[0] < 3 * score.meter] + [
        (3 * score.meter, score.meter, score.tonic, quality)
    ]


def _tune(rng, score, chords):
    """Notes (first beat, last beat, pitch): chord tones on the chords, steps of the scale between, and rests."""
    scale = (0, 2, 4, 5, 7, 9, 11) if score.mode == "major" else (0, 2, 3, 5, 7, 8, 10)
    steps = [pitch for pitch in range(67, 87) if (pitch - score.tonic) % 12 in scale]
    place, notes, beat = int(rng.integers(3, len(steps) - 3)), [], 0.0
    for begin, length, root, quality in chords:
        tones = {(root + step) % 12 for step in SHAPES[quality]}
        while beat < begin + length:
            lasts = float(rng.choice([1, 1, 2, 3] if score.meter == 6 else [0.5, 1, 1, 1.5, 2]))
            if score.meter == 6:
                lasts = min(lasts, 3 - beat % 3)  # within a half of the bar
            lasts = min(lasts, begin + length - beat)
            place = int(np.clip(place + rng.integers(-2, 3), 0, len(steps) - 1))
            if beat == begin or rng.random() < 0.4:
                place = min((i for i, p in enumerate(steps) if p % 12 in tones), key=lambda i: abs(i - place))
            if rng.random() > 0.2:
                notes.append((beat, beat + 0.95 * lasts, steps[place]))
            beat += lasts
    return notes


def _comp(rng, score, chord, style, length, beat_s):
    """The chord in a random position near the last one's."""
    low = int(rng.integers(48, 56))
    pitches = sorted(low + (chord.root + step - low) % 12 for step in SHAPES[chord.quality])
    simple = {
        "held": [(0, length)],
        "beats": [(beat, beat + 0.8) for beat in range(length)],
        "offbeats": [(beat + 0.5, beat + 0.95) for beat in range(length)],
        "arpeggio": [(beat / 2, beat / 2 + 1) for beat in range(2 * length)],
    }
    compound = {
        "held": [(0, length)],
        "beats": [(beat, beat + 2.5) for beat in range(0, length, 3)],
        "offbeats": [(beat + step, beat + step + 0.8) for beat in range(0, length, 3) for step in (1, 2)],
        "arpeggio": [(beat, beat + 2) for beat in range(length)],
    }
    for number, (begin, end) in enumerate((compound if score.meter == 6 else simple)[style]):
        chosen = [pitches[number % len(pitches)]] if style == "arpeggio" else pitches
        end_s = min(chord.start_s + end * beat_s, chord.end_s)
        score.comping += [Note(chord.start_s + begin * beat_s, end_s, p, float(rng.uniform(0.7, 1))) for p in chosen]


def _bass(rng, score, chord, style, length, beat_s):
    root = 33 + (chord.root - 33) % 12
    fifth = root + SHAPES[chord.quality][2]
    third = root + SHAPES[chord.quality][1]
    if score.meter == 6:
        line = {
            "root": [(0, length, root)],
            "fifths": [(beat, beat + 2.8, root if beat % 6 == 0 else fifth) for beat in range(0, length, 3)],
            "eighths": [(beat, beat + 0.9, root) for beat in range(length)],
            "walking": [(beat, beat + 2.8, (root, third)[beat // 3 % 2]) for beat in range(0, length, 3)],
        }[style]
    else:
        line = {
            "root": [(0, length, root)],
            "fifths": [(beat, beat + 0.9, root if beat % 2 == 0 else fifth) for beat in range(length)],
            "eighths": [(beat / 2, beat / 2 + 0.45, root) for beat in range(2 * length)],
            "walking": [
                (b, b + 0.9, (root, third, fifth, int(rng.choice([root + 9, fifth])))[b % 4]) for b in range(length)
            ],
        }[style]
    for begin, end, pitch in line:
        score.bass.append(Note(chord.start_s + begin * beat_s, chord.start_s + end * beat_s, pitch))


def _drums(rng, score, at_s, beat_s):
    """Four bars of the groove, with small variations and a fill at the end."""
    for bar in range(4):
        for beat, drums in GROOVES[score.meter][score.groove].items():
            late = 1 / 6 if beat % 1 == 0.5 and score.groove in SWUNG else 0
            for drum in drums:
                if drum in "hr" and rng.random() < 0.1:
                    continue
                velocity = float(rng.uniform(0.75, 1)) * (0.7 if beat % 1 else 1)
                score.hits.append(Hit(at_s + (bar * score.meter + beat + late) * beat_s, drum, velocity))
    if score.groove != "none" and rng.random() < 0.5:
        last, parts = at_s + (4 * score.meter - 1) * beat_s, 2 if score.meter == 6 else 4
        score.hits += [Hit(last + step * beat_s / parts, "s", 0.6 + 0.1 * step) for step in range(1, parts)]
