"""Harmony as it is measured: told chords are heard where they are played, a key is kept by its tones."""

import itertools
import math

import torch
from comfyui_musicgen.training.evaluate.general import asked, chord_following, heard

RATE_HZ = 32_000


def tone(hz, seconds, level=0.1):
    return level * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * RATE_HZ)) / RATE_HZ)


def test_told_chords_are_heard_where_they_are_played():
    piece = asked.piece(asked.Asked("", genre="pop", drums=False), 200, 8.0)
    wanted, each = chord_following._triads(piece), round(piece.grid.bar_s / 0.05)
    assert len(wanted) == 160 and len(set(wanted)) > 1 and len(set(wanted[: each - 1])) == 1
    seconds = [(chord, piece.grid.bar_s) for chord in piece.chords[: math.ceil(8.0 / piece.grid.bar_s)]]
    samples = torch.cat([sum(tone(261.63 * 2 ** (t / 12), s) for t in chord.tones[:3]) for chord, s in seconds])
    heard_there = chord_following._heard(samples[: 8 * RATE_HZ])
    assert chord_following._mean_share([wanted], [heard_there]) > 0.8
    assert chord_following._mean_share([wanted[40:] + wanted[:40]], [heard_there]) < 0.5
    assert set(chord_following._heard(torch.zeros(8 * RATE_HZ))) == {""}


def test_the_key_of_a_text_is_that_of_its_piece_and_heard_there():
    pieces = list(itertools.islice(chord_following._in_keys(), 6))
    assert {piece.facts.mode for piece in pieces} <= {"major", "minor"}
    right = []
    for piece in pieces:
        seconds = [(chord, piece.grid.bar_s) for chord in piece.chords[: math.ceil(8.0 / piece.grid.bar_s)]]
        samples = torch.cat([sum(tone(261.63 * 2 ** (t / 12), s) for t in chord.tones[:3]) for chord, s in seconds])
        right.append(chord_following.heard_key(samples[: 8 * RATE_HZ]) == (piece.facts.tonic, piece.facts.mode))
    assert sum(right) >= 4, "by chance 1 of 24"
    assert chord_following.heard_key(torch.zeros(8 * RATE_HZ)) is None


def test_a_key_is_kept_by_its_tones_and_by_no_transposition():
    first, same, other = (
        torch.cat([tone(261.63 * 2 ** ((step + by) / 12), 0.3) for step in steps])
        for steps, by in (((0, 4, 7, 0, 5, 9, 7, 11, 2, 0), 0), ((9, 0, 4, 5, 7, 2, 11, 0, 7, 0), 0), ((0, 4, 7, 0, 5, 9, 7, 11, 2, 0), 3))
    )  # fmt: skip
    tones = heard.tones_of(first, RATE_HZ)
    assert heard.transposed(heard.tones_of(same, RATE_HZ), tones) == 0
    assert heard.transposed(heard.tones_of(other, RATE_HZ), tones) == 3
