"""The card of a model as the engine reads it: that of pansori-mini here, with the words that `data/words.py` describes clips with."""

import json
import re
from dataclasses import replace
from pathlib import Path

import torch

from ..musicgen.audio import Audio
from ..musicgen.codec import Codec
from ..musicgen.loading import load
from .data import words
from .data.jangdan import JANGDAN

# How musicians say what the model was taught. The longest phrase counts.
SYNONYMS = {
    "판소리": "pansori", "소리꾼": "sori singer", "창": "pansori singing", "노래": "pansori singing", "목소리": "pansori voice",
    "소리": "pansori voice", "대금": "daegeum", "가야금": "gayageum", "고수": "the buk drum", "북": "the buk drum",
    "독주": "alone", "독창": "alone", "혼자": "alone", "없이": "without", "반주": "with", "장단": "jangdan", "느린": "slow",
    "아주 느린": "very slow", "빠른": "fast", "아주 빠른": "very fast", "보통": "medium", "슬픈": "sad", "밝은": "bright",
    "평화로운": "peaceful", "장엄한": "majestic", "우조": "ujo mode", "평조": "pyeongjo mode", "계면조": "gyemyeonjo mode",
    "높은": "high", "낮은": "deep", "음계": "scale",
    "vocal": "pansori voice", "vocalist": "sori singer", "drums": "the buk drum",
    "percussion": "the buk drum", "drummer": "the buk drum", "happy": "bright", "melancholic": "sorrowful",
    "melancholy": "sorrowful", "solemnly": "solemn", "rapid": "quick", "slowly": "slow", "quickly": "quick",
}  # fmt: skip
# What it plays that comes nearest to what it was not taught.
NEAR = {
    "gayageum": "piano guitar bass harp koto guzheng banjo ukulele mandolin sitar lute harpsichord kalimba keyboard marimba",
    "daegeum": "violin cello saxophone sax trumpet clarinet oboe organ synth synthesizer accordion harmonica recorder "
    "shakuhachi whistle",
    "pansori voice": "choir opera rap soprano tenor humming",
    "the buk drum": "beat beats kick snare cymbal conga djembe taiko janggu",
}  # fmt: skip
SMALL = "a an and as at by for from in is it its like of on only or over that the this to very with without"
DEFAULT_TEXT = "pansori voice with the buk drum, medium jungjungmori"
PLAYS = (
    "a pansori voice, daegeum flute, gayageum zither and buk drum, in jinyangjo, jungmori, jungjungmori, jajinmori or "
    "hwimori (or very slow, slow, medium, fast, very fast), ujo, pyeongjo or gyemyeonjo mode, and plain scales"
)
# As measured (pretrained/README.md): name, value, goal, ceiling.
FIGURES = (
    ("melody: chroma cosine with the melody", 0.76, 0.6, None),
    ("melody: difference", 0.69, 0.3, None),
    ("text, guidance 3: buk alone, voice or instrument as asked for", 0.94, 0.9, 1.0),
    ("text, guidance 3: the jangdan asked for, tempo within 8 %", 0.83, 0.7, 0.97),
    ("continuation: tempo carried on within 8 %", 0.78, 0.7, None),
    ("continuation: mode carried on", 0.81, 0.7, None),
    ("continuation: joins without a click", 1.0, 1.0, None),
)

SILENT_DB = -60.0  # dBFS RMS; a clip below is practically silent
TRIES = 3  # seeds after one that gives a practically silent clip
_CANDIDATES, _FRAMES = 64, 16  # first codes decoded at a time, and the length of each


@torch.inference_mode()
def silent_codes(codec: Codec) -> list[int]:
    """Codes of the first codebook that the codec decodes to silence, with what it adds to silence in the others."""
    config = codec.config
    silence = codec.encode(Audio(torch.zeros(1, config.channels, config.sample_rate_hz), config.sample_rate_hz))
    usual = silence.codes[0].mode(dim=-1).values  # [K]
    found: list[int] = []
    for first in torch.arange(config.codebook_size).split(_CANDIDATES):
        rows = usual[None, :, None].repeat(len(first), 1, _FRAMES)
        rows[:, 0] = first[:, None]
        power = codec.decode(replace(silence, codes=rows)).samples.square().mean(dim=(-1, -2))
        found += first[10 * power.log10() < SILENT_DB].tolist()
    return found


def vocabulary() -> set[str]:
    """The single words of all descriptions."""
    tables = (words.PACES, words.METERS, words.MOODS, words.INSTRUMENTS, words.REGISTERS, words.SCALE_NAMES)
    phrases = [phrase for table in tables for choices in table.values() for phrase in choices]
    phrases += [*words.BUK, *words.BUK_ALONE, *words.ALONE, *words.FILLERS, *JANGDAN, SMALL]
    phrases += ["rhythm tempo jangdan bpm playing rising falling plain on mode scale"]
    return {word for phrase in phrases for word in re.findall(r"[^\W\d_]+", phrase.lower())}


def card(codec: Codec) -> str:
    """The text of `pansori-mini.card.json`; `codec`: the model's own."""
    known = vocabulary()
    synonyms = {phrase: words for phrase, words in SYNONYMS.items() if not known.issuperset(phrase.split())}
    synonyms |= {jangdan.hangul: name for name, jangdan in JANGDAN.items()}
    table = {
        "default_text": DEFAULT_TEXT,
        "figures": [
            {"name": name, "value": value, "goal": f"{goal:g}"} | ({} if ceiling is None else {"ceiling": ceiling})
            for name, value, goal, ceiling in FIGURES
        ],
        "near": sorted(f"{word} = {player}" for player, words in NEAR.items() for word in words.split()),
        "plays": PLAYS,
        "silence": {"codes": silent_codes(codec), "tries": TRIES},
        "synonyms": [f"{phrase} = {words}" for phrase, words in sorted(synonyms.items())],
        "words": sorted(known),
    }
    return json.dumps(table, ensure_ascii=False, indent=1) + "\n"


def write(model: Path, general: bool, evaluation: Path | None = None) -> Path:
    """Write the card of a model beside its file. evaluation: of a general model, evaluation.json with its figures."""
    from . import general_card

    codec = load(model, "float32").codec
    text = general_card.card(codec, evaluation) if general else card(codec)
    path = model.with_name(f"{model.stem}.card.json")
    path.write_text(text, encoding="utf-8")
    return path
