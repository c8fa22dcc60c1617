"""Chords: templates against the pitches of each beat, and the likeliest sequence of them."""

import math
from dataclasses import dataclass

import numpy as np

from .paths import likeliest_path
from .spectrum import LOWEST, N_PITCHES, fold

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
QUALITIES = {"": (0, 4, 7), ":min": (0, 3, 7)}
SEVENTHS = {":7": (0, 4, 7, 10), ":maj7": (0, 4, 7, 11), ":min7": (0, 3, 7, 10)}
NONE = "N"
_HARMONICS, _FALL = 6, 0.6  # of a template's tones; each weaker by this factor
_SHARPNESS = 24.0  # log likelihood of a cosine of 1 against one of 0
_BASS = 0.12  # what the share of the root among the low notes adds to a cosine
_CHANGE = 0.15  # probability that the chord changes from one beat to the next
_ROUNDS, _CHANGES = 3, (0.05, 0.6)  # in which it is learned of a piece, and its bounds
_SILENT = 0.02  # mean log level of the pitches, below which a beat has no chord


@dataclass(frozen=True)
class ChordSpan:
    """A chord from one time to another."""

    start_s: float
    end_s: float
    label: str  # `C`, `A:min`, `G:7`; `N` = no chord
    confidence: float  # mean probability of the label among all


@dataclass(frozen=True)
class BeatChords:
    """The chord of each interval between edges, n intervals."""

    labels: list[str]  # n
    probability: np.ndarray  # [n], of the label
    change: np.ndarray  # [n], probability that the chord is another than in the interval before; 0 for the first
    chroma: np.ndarray  # [n, 12]


def hear_chords(levels: np.ndarray, vocabulary: str = "triads", adapts: bool = False) -> BeatChords:
    """Chords of pitches [n, N_PITCHES] in 0..1, a row for each beat.

    vocabulary: triads (major, minor, none) or sevenths (7, maj7 and min7 too). adapts: the probability of a change is learned of
    the piece, for chorales change their chord each beat and songs each bar (Viterbi training, three rounds). Cosine of chroma and template, Viterbi with a
    constant probability of change; probabilities by forward and backward passes.
    Source: Sheh and Ellis 2003; Bello and Pickens 2005.
    """
    pitch = LOWEST + np.arange(N_PITCHES)
    chroma = fold(levels, np.exp(-0.5 * ((pitch - 62) / 14) ** 2))
    chroma = np.maximum(chroma - np.percentile(chroma, 25, axis=1, keepdims=True), 0)
    bass = fold(levels, np.exp(-0.5 * ((pitch - 40) / 7) ** 2))
    labels, templates = _templates(QUALITIES | (SEVENTHS if vocabulary == "sevenths" else {}))
    norm = np.linalg.norm(chroma, axis=1, keepdims=True)
    cosine = chroma @ templates.T / np.maximum(norm, 1e-9)
    share = bass / np.maximum(bass.sum(axis=1, keepdims=True), 1e-9)
    roots = np.array([NAMES.index(label.partition(":")[0]) for label in labels[:-1]])
    cosine[:, :-1] += _BASS * share[:, roots]
    cosine[levels.mean(axis=1) < _SILENT] = np.eye(len(labels))[-1]
    emission = _SHARPNESS * cosine
    chance = _CHANGE
    path = likeliest_path(emission, _transition(emission.shape[1], chance))
    for _ in range(_ROUNDS if adapts and len(path) > 1 else 0):
        chance = float(np.clip(np.mean(np.diff(path) != 0), *_CHANGES))
        path = likeliest_path(emission, _transition(emission.shape[1], chance))
    posterior = _posterior(emission, chance)
    before = np.concatenate([posterior[:1], posterior[:-1]])
    change = 1 - (posterior * before).sum(axis=1)
    change[:1] = 0
    return BeatChords([labels[state] for state in path], posterior[np.arange(len(path)), path], change, chroma)


def spans(chords: BeatChords, edges_s: np.ndarray) -> tuple[ChordSpan, ...]:
    """Equal neighbours joined. edges_s: [n + 1] times around the n chords."""
    found, first = [], 0
    for number in range(1, len(chords.labels) + 1):
        if number == len(chords.labels) or chords.labels[number] != chords.labels[first]:
            confidence = float(chords.probability[first:number].mean())
            found.append(ChordSpan(float(edges_s[first]), float(edges_s[number]), chords.labels[first], confidence))
            first = number
    return tuple(found)


def bar_text(labels: list[str]) -> str:
    """One bar of the grammar, from the chord of each beat: equal parts by comma, as few as tell it."""
    n_beats = len(labels)
    for parts in range(1, n_beats + 1):
        size = n_beats // parts
        if n_beats % parts == 0 and all(len(set(labels[at : at + size])) == 1 for at in range(0, n_beats, size)):
            return ",".join(labels[::size])
    return ",".join(labels)


def _templates(qualities: dict[str, tuple[int, ...]]) -> tuple[list[str], np.ndarray]:
    """Labels, N last, and their unit vectors [n, 12]: chord tones with their harmonics."""
    labels, rows = [], []
    for root in range(12):
        for quality, steps in qualities.items():
            row = np.zeros(12)
            for step in steps:
                for harmonic in range(1, _HARMONICS + 1):
                    row[(root + step + round(12 * math.log2(harmonic))) % 12] += _FALL ** (harmonic - 1)
            labels.append(NAMES[root] + quality)
            rows.append(row / np.linalg.norm(row))
    return [*labels, NONE], np.stack([*rows, np.full(12, 12**-0.5)])


def _transition(n: int, chance: float) -> np.ndarray:
    matrix = np.full((n, n), chance / (n - 1))
    np.fill_diagonal(matrix, 1 - chance)
    return np.log(matrix)


def _posterior(emission: np.ndarray, chance: float) -> np.ndarray:
    """Probability of each state [n, states], given all rows."""
    matrix = np.exp(_transition(emission.shape[1], chance))
    likelihood = np.exp(emission - emission.max(axis=1, keepdims=True))
    forward = np.empty_like(likelihood)
    forward[0] = likelihood[0] / likelihood[0].sum()
    for number in range(1, len(likelihood)):
        row = likelihood[number] * (forward[number - 1] @ matrix)
        forward[number] = row / row.sum()
    backward = np.ones(emission.shape[1])
    posterior = forward.copy()
    for number in range(len(likelihood) - 2, -1, -1):
        backward = matrix @ (likelihood[number + 1] * backward)
        backward /= backward.sum()
        posterior[number] = forward[number] * backward
    return posterior / posterior.sum(axis=1, keepdims=True)
