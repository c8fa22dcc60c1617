"""The chord symbols of a score as the text of a progression (`chord_text`)."""

import math
from fractions import Fraction

from ..errors import InputError
from ..score import Score
from ..units import FASTEST_BPM, SLOWEST_BPM
from .chord_labels import pitch_classes
from .chord_text import MAX_BARS, MAX_CHARACTERS, MAX_IN_BAR

_NO_CHORD = "N"
_SHOWN = 3  # symbols in a notice


def chord_text(score: Score) -> tuple[str, tuple[str, ...]]:
    """(text, notices) of a score: bars of its first meter by blanks, equal shares of a bar by commas; no text without symbols.

    A symbol that is no chord is left out, and the chord before it goes on; so is what lies beyond the longest text. `notices` says so,
    and where one tempo and meter cannot hold the score.
    """
    symbols, unknown = [], []
    for symbol in score.symbols:
        label = symbol.label.replace(" ", "")
        try:
            pitch_classes(label)
        except InputError:
            unknown.append(symbol.label)
            continue
        symbols.append((symbol.start, label))
    notices = list(_tempo_notices(score))
    if unknown:
        shown = ", ".join(map(repr, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
        notices.append(f"{len(unknown)} chord symbols are not read, and the chord before them goes on: {shown}.")
    if not symbols:
        return "", tuple(notices)
    bar = Fraction(4 * score.meter.beats, score.meter.unit)
    n_bars = math.ceil(score.length / bar)
    words, label, number, length = [], _NO_CHORD, 0, 0
    moved = False
    for index in range(n_bars):
        changes = [(Fraction(0), label)]
        while number < len(symbols) and symbols[number][0] < (index + 1) * bar:
            place, label = symbols[number]
            changes.append(((place - index * bar) / bar, label))
            number += 1
        word, exact = _bar(changes)
        moved = moved or not exact
        length += len(word) + 1
        if index >= MAX_BARS or length > MAX_CHARACTERS:
            notices.append(f"The chords are cut after {index} bars: no more are read at once.")
            break
        words.append(word)
    if moved:
        notices.append(f"Chords that change at no {MAX_IN_BAR}th of a bar are moved to the next one.")
    return " ".join(words), tuple(notices)


def _bar(changes: list[tuple[Fraction, str]]) -> tuple[str, bool]:
    """Labels of a bar by commas, and whether they lie where they should. changes: (share of the bar, label)."""
    for n in range(1, MAX_IN_BAR + 1):
        if all((share * n).denominator == 1 for share, _ in changes):
            return _slots(changes, n), True
    return _slots(
        [(Fraction(round(share * MAX_IN_BAR), MAX_IN_BAR), label) for share, label in changes], MAX_IN_BAR
    ), False


def _slots(changes: list[tuple[Fraction, str]], n: int) -> str:
    slots = [changes[0][1]] * n
    for share, label in changes:
        slots[int(share * n) :] = [label] * (n - int(share * n))
    return ",".join(slots)


def _tempo_notices(score: Score) -> list[str]:
    notices = []
    if len(score.tempos) > 1:
        notices.append(
            "The score changes its tempo: its melody keeps each tempo, 'bpm' and the chords have their mean."
        )
    if len(score.meters) > 1:
        notices.append(f"The score changes its meter: the chords are written in bars of its first, {score.meter}.")
    if not SLOWEST_BPM <= score.bpm <= FASTEST_BPM:
        notices.append(
            f"Its tempo of {score.bpm:g} beats a minute is not one of {SLOWEST_BPM:g} to {FASTEST_BPM:g}: other nodes refuse it. Give 'bpm'."
        )
    return notices
