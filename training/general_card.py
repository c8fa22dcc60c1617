"""The card of a model of general music: the words of `data/songwords.py` and of pansori, what it plays, and its figures."""

import json
import re
from pathlib import Path

from ..musicgen.codec import Codec
from ..musicgen.errors import InputError
from . import card as pansori
from .data import songwords
from .data.instruments import DRUM_WORDS, INSTRUMENTS
from .data.jangdan import JANGDAN
from .data.words import PACES as PANSORI_PACES
from .evaluate.general.cli import KIND

TEMPO_BPM = (50, 190)
DEFAULT_TEXT = "happy pop song, piano with drums, 110 bpm"
# How musicians say what the model was taught. No phrase in hangul may be a part of a word that it was taught.
SYNONYMS = {
    "판소리": "pansori", "소리꾼": "sori singer", "대금": "daegeum", "가야금": "gayageum", "고수": "the buk drum",
    "우조": "ujo mode", "평조": "pyeongjo mode", "계면조": "gyemyeonjo mode", "장엄한": "majestic", "타악기": "drums",
    "keyboard": "electric piano", "keys": "electric piano", "guitars": "guitar", "pianos": "piano", "violins": "strings",
    "cellos": "cello", "trumpets": "brass", "flutes": "flute", "drummer": "drums", "synths": "synthesizer",
    "saxophones": "saxophone", "percussive": "drums", "melancholy": "melancholic", "joyous": "joyful", "upbeat": "energetic",
    "uptempo": "fast", "slowly": "slow", "quickly": "fast", "quick": "fast", "rapid": "fast", "loudly": "loud", "quietly": "quiet",
    "hiphop": "hip hop", "lofi": "lo-fi", "chillout": "lo-fi", "chill": "lo-fi", "rap": "hip hop",
    "soul": "gospel", "hymnal": "hymn", "cinema": "cinematic",
    "orchestral": "cinematic strings", "orchestra": "string section", "folky": "folk", "bluesy": "blues", "jazzy": "jazz",
}  # fmt: skip
# Of a long piece's beginning that each window sees: with it 60 s keep tempo and key in 0.54 of their parts, without in 0.30.
ANCHOR_S = 2.0
# Nothing. With 0.3 s or more of a band before a change to one player alone, drums went on in 7 of 12 pieces, with one frame in none; but with
# that frame the player was heard in 1 or 2 of 12, without it in 3 or 4.
CHANGE_S = 0.0
# Of 24 pieces with the tonic's triad for 2 s of every 4 s, 0.88 have the tonic of their text, and 0.75 after 4 s; with it for the first 2 s
# alone 0.60 and 0.40, always 0.96 and 0.92, but on one chord; without 0.04.
# Of solos whose text names a key, the instrument is heard in 0.55 of 96 with the chord, in 0.69 of 192 with its tones one after another,
# and in 0.67 of both without a key; of 65 pieces of several players the key is heard in 0.83 with the chord and 0.71 with its tones.
KEY_S = 2.0
TRIES = 8  # seeds for a clip with a fault: of 65 that were asked to end, 4 do not with 3 seeds, and 1 with 8
GAP_S = 1.8  # of 870 clips of 10 s without an end 0.6 % have a longer silence (of 307 of pansori 4 %)
TEMPO_OFF, TEMPO_TRIES = 0.01, 4  # beside half a frame a beat, which no model of codes can keep better
OF_PANSORI = ("folk music",)  # kept from the descriptions of general music, taught by those of pansori
# What it plays that comes nearest to what it was not taught.
NEAR = {
    "acoustic guitar": "ukulele mandolin lute bouzouki oud",
    "harp": "lyre kora zither autoharp",
    "koto": "guzheng shamisen pipa biwa",
    "violin": "viola erhu",
    "trombone": "tuba euphonium",
    "trumpet": "cornet flugelhorn bugle",
    "oboe": "bassoon shawm duduk",
    "flute": "piccolo fife shakuhachi ney",
    "pan flute": "ocarina whistle quena",
    "accordion": "bandoneon concertina bagpipes harmonium melodica",
    "harpsichord": "clavichord spinet clavinet",
    "music box": "celesta glockenspiel kalimba bells",
    "vibraphone": "handpan hang",
    "xylophone": "balafon",
    "steel drums": "steelpan",
    "synth lead": "theremin chiptune",
    "choir": "opera soprano tenor vocal vocals singing humming",
    "house": "trance dubstep garage breakbeat",
    "hip hop": "trap drill rnb grime",
    "rock": "punk grunge indie",
    "metal": "hardcore thrash",
    "country": "bluegrass americana",
    "samba": "batucada",
    "salsa": "mambo rumba merengue bachata cumbia",
    "reggae": "ska dub",
    "ambient": "drone meditation",
    "drums": "congas bongos djembe taiko timpani",
}


def vocabulary() -> set[str]:
    """The single words of all descriptions, general and pansori, in small letters."""
    phrases = [*songwords.phrases(), pansori.SMALL, *(jangdan.hangul for jangdan in JANGDAN.values())]
    return pansori.vocabulary() | {word for phrase in phrases for word in re.findall(r"[^\W\d_]+", phrase.lower())}


def plays() -> str:
    """What the model plays, as a part of a sentence."""
    return (
        f"{', '.join(INSTRUMENTS)} and drums, alone or together; {', '.join(songwords.GENRE_WORDS)}; and pansori (voice, "
        f"daegeum, gayageum, buk); at {TEMPO_BPM[0]} to {TEMPO_BPM[1]} bpm"
    )


def paces() -> list[str]:
    """Phrases that say how fast without a number, general and pansori."""
    slow_to_fast = [phrase for words in (*songwords.PACES, *PANSORI_PACES.values()) for phrase in words]
    return sorted({*slow_to_fast, *songwords.KOREAN_PACES, *JANGDAN, *(jangdan.hangul for jangdan in JANGDAN.values())})


def card(codec: Codec, evaluation: Path | None = None) -> str:
    """The text of NAME.card.json; `codec`: the model's own; evaluation: evaluation.json of `python -m training evaluate`."""
    known = vocabulary()
    synonyms = {phrase: words for phrase, words in SYNONYMS.items() if not known.issuperset(phrase.split())}
    synonyms |= {kept: word for kept, word in songwords.held_out().items() if kept not in OF_PANSORI}
    near = {word: player for player, words in NEAR.items() for word in words.split() if word not in known}
    silent = pansori.silent_codes(codec)
    table = {
        "alone": songwords.alone(),
        "anchor_s": ANCHOR_S,
        "change_s": CHANGE_S,
        "chords": True,
        "default_text": DEFAULT_TEXT,
        "endings": list(songwords.ENDS),
        "figures": _figures(evaluation) if evaluation else [],
        "genres": {name: _languages(words) for name, words in songwords.GENRE_WORDS.items()},
        "instruments": {name: _languages((one.english, one.korean)) for name, one in INSTRUMENTS.items()}
        | {"drums": _languages(DRUM_WORDS)},
        "key_s": KEY_S,
        "kind": KIND,
        "moods": _languages(tuple(sum((pair[i] for pair in songwords.moods()), ()) for i in range(2))),
        "near": sorted(f"{word} = {player}" for word, player in near.items()),
        "paces": paces(),
        "plays": plays(),
        **({"silence": {"codes": silent, "tries": TRIES, "gap_s": GAP_S}} if silent else {}),
        "synonyms": [f"{phrase} = {words}" for phrase, words in sorted(synonyms.items())],
        "tempo": {"off": TEMPO_OFF, "tries": TEMPO_TRIES},
        "tempo_bpm": list(TEMPO_BPM),
        "words": sorted(known),
    }
    return json.dumps(table, ensure_ascii=False, indent=1) + "\n"


def _languages(words: tuple[tuple[str, ...], ...]) -> dict[str, list[str]]:
    return {language: list(each) for language, each in zip(("en", "ko"), words, strict=True)}


def _figures(evaluation: Path) -> list[dict]:
    """[{name, value, goal, chance, ceiling}] of an evaluation. InputError if the file is none."""
    try:
        rows = json.loads(evaluation.read_text("utf-8"))["findings"]
        figures = [{name: row[name] for name in ("name", "value", "goal", "chance", "ceiling")} for row in rows]
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{evaluation} is no evaluation of `python -m training evaluate` ({error!r}). Give its evaluation.json."
        ) from None
    return [{key: value for key, value in row.items() if value not in (None, "")} for row in figures]
