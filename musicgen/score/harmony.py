"""Chords of a score from the notes that sound, where it has no chord symbols."""

import itertools
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction

from ..errors import InputError
from .route import MAX_BARS
from .score import NAMES, Note, Score, Symbol

# Semitones above the root, and what a chord costs that is rarer, as a share of the notes.
_QUALITIES = {
    "": ((0, 4, 7), 0.0), ":min": ((0, 3, 7), 0.0), ":7": ((0, 4, 7, 10), 0.06), ":min7": ((0, 3, 7, 10), 0.06),
    ":maj7": ((0, 4, 7, 11), 0.06), ":dim": ((0, 3, 6), 0.05), ":hdim7": ((0, 3, 6, 10), 0.08), ":sus4": ((0, 5, 7), 0.08),
}  # fmt: skip
_SHAPES = [
    (f"{NAMES[root]}{quality}", root, frozenset((root + step) % 12 for step in steps), cost)
    for root in range(12)
    for quality, (steps, cost) in _QUALITIES.items()
]
_CHANGE = 0.12  # what another chord in the middle of a bar costs, as a share of the bar's notes
_BASS = 0.15  # what the root in the bass is worth
_LEAST = 0.02  # of the bar, the sounding time below which there is no chord
NO_CHORD = "N"
_MOST_SOUNDING = 500_000  # notes, counted once in each bar


def with_heard_chords(score: Score) -> Score:
    """The score with a chord symbol where the chord of its sounding notes changes, by bars and their halves.

    A chord is the one whose notes sound longest, less the time of all other notes; its root in the bass speaks for it. A bar is
    halved where two chords fit better by an eighth of its notes. Drums do not count.
    """
    notes = sorted(note for part in score.parts if not part.is_drums for note in part.notes)
    edges = [*score.bar_starts(), score.length]
    symbols: list[Symbol] = []
    spans = [(start, end) for start, end in itertools.pairwise(edges) if end > start]
    if len(spans) > MAX_BARS:
        raise InputError(
            f"The score has {len(spans)} bars, and the chords of at most {MAX_BARS} are heard. Take its written chords."
        )
    inside = _by_span(notes, spans)
    for (start, end), sounding in zip(spans, inside):
        middle = start + (end - start) / 2
        whole, fit = _chord(sounding, start, end)
        first, fit_first = _chord(sounding, start, middle)
        second, fit_second = _chord(sounding, middle, end)
        halves = first != second and fit_first + fit_second > fit + _CHANGE * float(end - start)
        for place, label in ((start, first), (middle, second)) if halves else ((start, whole),):
            if not symbols or symbols[-1].label != label:
                symbols.append(Symbol(place, label))
    return replace(score, symbols=tuple(symbols))


def _by_span(notes: list[Note], spans: list[tuple[Fraction, Fraction]]) -> list[list[Note]]:
    """The notes that sound in each of the spans, which follow one another."""
    inside: list[list[Note]] = []
    held: list[Note] = []
    number = n_sounding = 0
    for start, end in spans:
        held = [note for note in held if note.end > start]
        while number < len(notes) and notes[number].start < end:
            if notes[number].end > start:
                held.append(notes[number])
            number += 1
        n_sounding += len(held)
        if n_sounding > _MOST_SOUNDING:
            raise InputError(
                "Too many notes of the score sound at once for chords to be heard. Take its written chords."
            )
        inside.append(list(held))
    return inside


def _chord(notes: list[Note], start: Fraction, end: Fraction) -> tuple[str, float]:
    """(label, quarter notes that speak for it) of the span."""
    lengths: dict[int, float] = defaultdict(float)
    lowest: tuple[int, float] | None = None
    for note in notes:
        length = float(min(note.end, end) - max(note.start, start))
        if length > 0:
            lengths[note.pitch % 12] += length
            lowest = min(lowest or (note.pitch, length), (note.pitch, length))
    total = sum(lengths.values())
    if total <= _LEAST * float(end - start) or len(lengths) < 2:
        return NO_CHORD, 0.0

    def fit(shape: tuple[str, int, frozenset[int], float]) -> float:
        _, root, members, cost = shape
        inside = sum(length for pitch, length in lengths.items() if pitch in members)
        missing = sum(pitch not in lengths for pitch in members) / len(members)
        in_bass = _BASS * total if lowest is not None and lowest[0] % 12 == root else 0.0
        return 2 * inside - total - (cost + 0.3 * missing) * total + in_bass

    best = max(_SHAPES, key=fit)
    return best[0], fit(best) * float(end - start) / total
