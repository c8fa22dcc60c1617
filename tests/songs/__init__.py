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
