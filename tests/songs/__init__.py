"""Pieces of known tempo, meter, key and chords: what hearing is measured on.

song(seed) composes and plays one. No part of the engine writes them, and none of their timbres is a template of the recogniser.
"""

from .music import Chord, Hit, Note, Score, compose
from .players import RATE_HZ, play

__all__ = ["RATE_HZ", "Chord", "Hit", "Note", "Score", "compose", "play", "song"]


def song(seed: int):
    """(score, samples [L] float32 at RATE_HZ) of a seed: the same piece every time."""
    score = compose(seed)
    return score, play(score, seed)
