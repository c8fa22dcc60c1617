"""Pieces of known tempo, meter, key and chords: what hearing is measured on.

song(seed) composes and plays one. No part of the engine writes them, and none of their timbres is a template of the recogniser.
"""

from .music import Chord, Hit, Note, Score, compose
from .players import RATE_HZ, play

__all__ = ["RATE_HZ", "Chord", "Hit", "Note", "Score", "compose", "play", "song"]


def song(seed: int, compound: bool = False):
    """(score, samples [L] float32 at RATE_HZ) of a seed: the same piece every time. compound: in 6/8."""
    score = compose(seed, compound)
    return score, play(score, seed)


def drums(seed: int, length_s: float | None = None):
    """(score, samples) of the drums of a seed's piece alone, cut to a length; of every second pair of seeds, and without drums, a metronome, low on the downbeats."""
    score = compose(seed)
    score.chords, score.comping, score.bass, score.melody = [], [], [], []
    if score.groove == "none" or seed % 4 < 2:
        downbeats = set(score.downbeats_s)
        score.hits = [Hit(time, drum) for time in score.beats_s for drum in ("sk" if time in downbeats else "s")]
    samples = play(score, seed)
    if length_s:
        samples = samples[: round(length_s * RATE_HZ)]
        score.beats_s, score.downbeats_s = (times[times < length_s] for times in (score.beats_s, score.downbeats_s))
    return score, samples
