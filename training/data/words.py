"""Descriptions: a label in varied English words, with some of the Korean terms.

Each jangdan has its own pace word (very slow, slow, swaying, fast, very fast): every description of one names it, its
beats or its pace, so that a text never fits two of them.
"""

import numpy as np

from .jangdan import JANGDAN
from .pieces import Label

# Exclusive to a jangdan: none of these is part of another's.
PACES = {
    "jinyangjo": ("very slow", "extremely slow", "solemn and very slow"),
    "jungmori": ("slow", "slow walking", "unhurried"),
    "jungjungmori": ("medium", "swaying", "moderate dancing"),
    "jajinmori": ("fast", "quick", "lively and fast"),
    "hwimori": ("very fast", "whirling", "extremely fast"),
}
METERS = {
    "jinyangjo": ("a very slow six beat cycle",),
    "jungmori": ("a twelve beat cycle", "a slow twelve beat rhythm"),
    "jungjungmori": ("a medium triple rhythm", "a swaying triple rhythm"),
    "jajinmori": ("a fast triple rhythm", "a quick triple rhythm"),
    "hwimori": ("a very fast duple rhythm", "a whirling duple rhythm"),
}
MOODS = {
    "ujo": ("majestic", "grand", "ujo mode", "noble"),
    "pyeongjo": ("calm", "peaceful", "pyeongjo mode", "bright"),
    "gyemyeonjo": ("sorrowful", "sad", "gyemyeonjo mode", "grieving"),
}
INSTRUMENTS = {
    "voice": ("pansori voice", "sori singer", "rough voice", "pansori singing", "rough pansori vocals"),
    "daegeum": ("daegeum", "daegeum flute", "bamboo flute", "breathy flute"),
    "gayageum": ("gayageum", "gayageum zither", "plucked zither", "plucked strings"),
}
REGISTERS = {"deep": ("deep", "low"), "high": ("high", "high clear")}
BUK = ("the buk drum", "the buk", "a barrel drum", "drum")
BUK_ALONE = ("buk alone", "buk drum solo", "only the buk drum", "solo barrel drum", "a drum without voice", "drum only")
ALONE = ("alone", "solo", "unaccompanied", "without drum", "no drum")
SCALE_NAMES = {
    "major": ("major scale",),
    "minor": ("minor scale",),
    "pentatonic": ("pentatonic scale", "five tone scale"),
    "chromatic": ("chromatic scale",),
}
# Words that say nothing of the music, and may stand anywhere.
FILLERS = (
    "traditional korean music", "korean", "a recording of", "a song", "live performance", "beautiful", "please",
    "pansori", "in the style of pansori", "with feeling", "good quality", "music", "old", "a short piece", "folk music",
)  # fmt: skip
_FILLER_CHANCE = 0.25
_BPM_CHANCE, _MOOD_CHANCE, _REGISTER_CHANCE = 0.7, 0.6, 0.5


def describe(label: Label, rng: np.random.Generator) -> str:
    """One of the many descriptions of a label, of some 4 to 20 words."""
    if label.jangdan is None:
        parts = [_scale(label, rng)]
    elif label.instrument == "none":
        parts = [_pick(BUK_ALONE, rng), _rhythm(label.jangdan, rng)]
    else:
        parts = [_performance(label, rng), _rhythm(label.jangdan, rng)]
        if label.mode and rng.random() < _MOOD_CHANCE:
            parts.append(_pick(MOODS[label.mode], rng))
    if rng.random() < _BPM_CHANCE:
        parts.append(f"{'at ' if rng.random() < 0.5 else ''}{label.bpm:.0f} bpm")
    if rng.random() < _FILLER_CHANCE:
        parts.insert(rng.integers(len(parts) + 1), _pick(FILLERS, rng))
    if rng.random() < 0.4:
        parts = [parts[i] for i in rng.permutation(len(parts))]
    text = ", ".join(parts)
    return text[0].upper() + text[1:] if rng.random() < 0.3 else text


def _performance(label: Label, rng: np.random.Generator) -> str:
    who = _pick(INSTRUMENTS[label.instrument], rng)
    if label.register and rng.random() < _REGISTER_CHANCE:
        who = f"{_pick(REGISTERS[label.register], rng)} {who}"
    if rng.random() < 0.4 and not who.endswith(("singing", "vocals", "strings")):
        who = f"a {who}"
    if label.buk:
        return f"{who} {_pick(('with', 'over', 'and'), rng)} {_pick(BUK, rng)}"
    return f"{who} {_pick(ALONE, rng)}"


def _rhythm(jangdan: str, rng: np.random.Generator) -> str:
    pace, meter = _pick(PACES[jangdan], rng), _pick(METERS[jangdan], rng)
    hangul = JANGDAN[jangdan].hangul
    return _pick(
        (
            jangdan,
            f"{jangdan} rhythm",
            f"{pace} {jangdan}",
            f"{jangdan} jangdan",
            f"{jangdan}, {meter}",
            f"{pace} pansori",
            pace,
            meter,
            f"{hangul} {jangdan}",
            f"{pace} tempo",
        ),
        rng,
    )


def _scale(label: Label, rng: np.random.Generator) -> str:
    assert label.mode is not None
    scale, who = _pick(SCALE_NAMES[label.mode], rng), _pick(INSTRUMENTS[label.instrument], rng)
    way = "rising" if label.upwards else "falling"
    if label.register and rng.random() < _REGISTER_CHANCE:
        who = f"{_pick(REGISTERS[label.register], rng)} {who}"
    return _pick(
        (f"{who} playing a {scale}", f"a {way} {scale} on {who}", f"plain {scale}, {who}", f"{who}, {way} {scale}"), rng
    )


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]
