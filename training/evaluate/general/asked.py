"""What a model of general music is asked for: texts with what they ask, and pieces of the synthesizer that are just that."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data.grooves import GROOVES
from ...data.harmony import KEY_NAMES
from ...data.instruments import INSTRUMENTS
from ...data.songs import Song, compose
from ...data.songwords import GENRE_WORDS, prompt

# Those whose names users type most, of all families.
NAMES = (
    "piano", "electric piano", "harpsichord", "organ", "accordion", "harmonica", "acoustic guitar", "electric guitar",
    "distorted guitar", "banjo", "sitar", "harp", "bass", "violin", "cello", "strings", "choir", "trumpet", "trombone",
    "saxophone", "clarinet", "flute", "marimba", "music box",
)  # fmt: skip
# Genres whose grooves differ: rock, pop and ballads share theirs, and so do disco and house.
STYLES = (
    "rock", "jazz", "blues", "bossa nova", "funk", "house", "hip hop", "reggae", "waltz", "metal", "salsa", "irish jig",
)  # fmt: skip
_SOLO = ("solo {}", "{} alone", "{} solo, no drums", "a {} alone")
_GENRE = ("{}", "{} with drums", "{} with a beat", "{}, full band")
_NO_DRUMS = ("{}, no drums", "{} without drums", "drumless {}", "{}, no percussion")
_WITH_DRUMS = ("{} with drums", "{} and drums", "{} with a drum kit", "{} with a beat")
_ENDS = ("{}, with an ending", "{} that ends", "short {} piece with an ending", "{}, final chord, with an ending")
_FOREIGN = (  # words that neither the grammar of general music nor that of pansori has
    "theremin", "gamelan", "didgeridoo", "dubstep drop", "yodelling", "vuvuzela", "hurdy gurdy", "bagpipes", "qwertzuiop",
    "a thunderstorm over the sea", "le bal musette", "Zither im Wirtshaus", "скрипка и баян", "津軽三味線", "صوت العود",
    "spaceship engine", "children laughing", "asdf", "?!", "12345",
)  # fmt: skip
# Grooves whose beat librosa finds: in the synthesizer's own salsa or raga it takes three of four sixteenths for a beat.
_STEADY = (
    "rock", "pop", "ballad", "jazz", "blues", "bossa nova", "funk", "disco", "house", "hip hop", "lo-fi", "reggae", "country",
    "waltz", "march", "metal", "synthwave", "tango", "polka",
)  # fmt: skip
_TEMPO_BPM = (55.0, 185.0)
_STREAM = 23  # keeps these draws apart from all clips'


@dataclass(frozen=True)
class Asked:
    """One text and what it asks for; None and False: it says nothing of that."""

    text: str
    lead: str | None = None  # of INSTRUMENTS
    genre: str | None = None
    bpm: float | None = None
    drums: bool | None = None
    alone: bool = False
    ends: bool = False
    kept: bool = False  # names it by a word that was kept from training


def instruments(n: int) -> list[Asked]:
    """n texts for each of NAMES; every other one by the word that was kept from training, where there is one."""
    return [_instrument(name, number) for number in range(n) for name in NAMES]


def genres(n: int) -> list[Asked]:
    """n texts for each of STYLES, without a tempo."""
    return [
        Asked(_GENRE[(i + number) % len(_GENRE)].format(_genre(style, number)), genre=style, drums=True, kept=_kept(style, number))
        for number in range(n) for i, style in enumerate(STYLES)
    ]  # fmt: skip


def tempos(n: int) -> list[Asked]:
    """n texts with drums and a tempo, from slow to fast, each of a groove that is played at that tempo."""
    low, high = np.log(_TEMPO_BPM)
    rng, asked = _generator(1), []
    for number in range(n):
        bpm = round(float(np.exp(low + (high - low) * (number + rng.random()) / n)))
        fitting = [g.genre for g in GROOVES.values() if g.genre in _STEADY and g.bpm[0] <= bpm <= g.bpm[1]]
        genre = str(rng.choice(sorted(set(fitting))))
        asked.append(Asked(f"{GENRE_WORDS[genre][0][0]} with drums, {bpm} bpm", genre=genre, bpm=bpm, drums=True))
    return [asked[i] for i in rng.permutation(n)]


def without_drums(n: int) -> list[Asked]:
    """n texts of genres that usually have drums."""
    return [
        Asked(_NO_DRUMS[i % len(_NO_DRUMS)].format(_genre(STYLES[i % len(STYLES)], 1)), genre=STYLES[i % len(STYLES)], drums=False)
        for i in range(n)
    ]  # fmt: skip


def with_drums(n: int) -> list[Asked]:
    """n texts of instruments that are often alone."""
    names = [name for name in NAMES if name != "bass"]
    chosen = [names[(7 * i) % len(names)] for i in range(n)]
    return [
        Asked(_WITH_DRUMS[i % len(_WITH_DRUMS)].format(name), lead=name, drums=True) for i, name in enumerate(chosen)
    ]


def endings(n: int) -> list[Asked]:
    """n texts that ask for an end, genres and instruments in turn."""
    asked = []
    for i in range(n):
        name = NAMES[(5 * i) % len(NAMES)] if i % 2 else STYLES[(5 * i) % len(STYLES)]
        lead, genre = (name, None) if i % 2 else (None, name)
        asked.append(Asked(_ENDS[i % len(_ENDS)].format(name), lead=lead, genre=genre, ends=True))
    return asked


def long_pieces(n: int) -> list[Asked]:
    """n texts with a tempo and a key."""
    rng, styles = _generator(2), ("rock", "funk", "house", "blues", "pop", "samba", "disco", "country")
    asked = []
    for i in range(n):
        style = styles[i % len(styles)]
        groove = next(groove for groove in GROOVES.values() if groove.genre == style)
        bpm = round(float(np.mean(groove.bpm)))
        key = f"{KEY_NAMES[rng.integers(12)]} {'minor' if set(groove.modes) <= {'minor', 'dorian'} else 'major'}"
        asked.append(Asked(f"{style} with drums, {bpm} bpm, in {key}", genre=style, bpm=bpm, drums=True))
    return asked


def sections(n: int) -> tuple[list[Asked], list[Asked]]:
    """n pairs of texts of one tempo, what comes first and what follows: one player alone and a band, every other pair turned round."""
    pairs = []
    for i in range(n):
        name, style = NAMES[(5 * i) % len(NAMES)], STYLES[(5 * i // 2) % len(STYLES)]
        bpm = round(float(np.mean(next(groove for groove in GROOVES.values() if groove.genre == style).bpm)))
        alone = Asked(f"{_SOLO[i % len(_SOLO)].format(name)}, {bpm} bpm", lead=name, bpm=bpm, drums=False, alone=True)
        band = Asked(
            f"{_GENRE[1 + i % 3].format(GENRE_WORDS[style][0][0])}, {bpm} bpm", genre=style, bpm=bpm, drums=True
        )
        pairs.append((alone, band) if i % 2 == 0 else (band, alone))
    return [first for first, _ in pairs], [second for _, second in pairs]


def meaningless(n: int) -> list[str]:
    """n texts that say nothing a model was taught: a third empty, the rest of foreign words."""
    return ["" if i % 3 == 0 else _FOREIGN[i % len(_FOREIGN)] for i in range(n)]


def piece(asked: Asked, number: int, duration_s: float) -> Song:
    """A piece of the synthesizer that is what was asked for: the `number`-th, of no split."""
    rng = np.random.default_rng([_STREAM, 3, number])
    named = [
        name for name, groove in GROOVES.items()
        if (asked.genre is None or groove.genre == asked.genre) and (groove.drums or not asked.drums)
        and (asked.bpm is None or 0.9 * groove.bpm[0] <= asked.bpm <= 1.1 * groove.bpm[1])
    ]  # fmt: skip
    name = str(rng.choice(named))
    arrangement = "solo" if asked.alone else "no drums" if asked.drums is False else "ensemble"
    window = "ending" if asked.ends else "beginning"
    while True:
        song = compose(name, GROOVES[name], arrangement, duration_s, rng, asked.bpm, asked.lead, window)
        if song.facts.ends or not asked.ends:
            return song


def others(asked: Sequence[Asked], differ: str) -> list[Asked]:
    """For each, another whose `differ` is another: what chance is measured against."""
    n, result = len(asked), []
    for i, one in enumerate(asked):
        moved = (asked[(i + 1 + n // 3 + step) % n] for step in range(n))
        result.append(next((other for other in moved if getattr(other, differ) != getattr(one, differ)), one))
    return result


def _instrument(name: str, number: int) -> Asked:
    words, kept = INSTRUMENTS[name].english, number % 2 == 0 and len(INSTRUMENTS[name].english) > 2
    word = prompt(instrument=name, held_out=True) if kept else words[0]
    form = _SOLO[(number + NAMES.index(name)) % len(_SOLO)]
    return Asked(form.format(word), lead=name, drums=False, alone=True, kept=kept)


def _kept(style: str, number: int) -> bool:
    return number % 2 == 0 and len(GENRE_WORDS[style][0]) > 2


def _genre(style: str, number: int) -> str:
    return prompt(genre=style, held_out=True) if _kept(style, number) else GENRE_WORDS[style][0][0]


def _generator(part: int) -> np.random.Generator:
    return np.random.default_rng([_STREAM, part])
