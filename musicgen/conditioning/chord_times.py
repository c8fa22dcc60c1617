"""Chords at times of their own, as they are heard in a song: a line a chord, or the report of Hear Music."""

import bisect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InputError
from .chord_labels import pitch_classes
from .chords import Chord, row_of

_MAX_CHORDS, _LONGEST_S = 20_000, 36_000.0
_EXAMPLE = "a line a chord, such as '0.00 2.13 A:min' (its start and end in seconds and its name)"


@dataclass(frozen=True)
class TimedChords:
    """Chords in order of time, none of them overlapping. Between and behind them is no chord."""

    spans: tuple[Chord, ...]
    period_s: float | None = None  # after which they are begun anew; None: they are not

    def __post_init__(self) -> None:
        if not self.spans:
            raise InputError(f"'chord_list' holds no chord. Write {_EXAMPLE}.")
        last_s = 0.0
        for number, chord in enumerate(self.spans, 1):
            if (
                not (math.isfinite(chord.start_s) and math.isfinite(chord.end_s))
                or not 0 <= chord.start_s < chord.end_s <= _LONGEST_S
            ):
                raise InputError(
                    f"'chord_list', chord {number} ({chord.label[:40]!r}): it must last from one time to a later one, in seconds, got "
                    f"{chord.start_s:g} to {chord.end_s:g}."
                )
            if chord.start_s < last_s - 1e-3:
                raise InputError(
                    f"'chord_list', chord {number} ({chord.label[:40]!r}) begins at {chord.start_s:g} s, before the one ahead ends "
                    f"({last_s:g} s). Write chords in order."
                )
            last_s = chord.end_s
            try:
                pitch_classes(chord.label)
            except InputError as error:
                raise InputError(f"'chord_list', chord {number}, {chord.label[:40]!r}: {error}") from error

    @classmethod
    def parse(cls, text: str) -> "TimedChords":
        """Lines of start, end and name between tabs or blanks (.lab files), or the report of Hear Music (JSON). InputError names the line."""
        words = text.strip()
        if words.startswith("{"):
            try:
                chords = [
                    Chord(float(c["start_s"]), float(c["end_s"]), str(c["label"])) for c in json.loads(words)["chords"]
                ]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"'chord_list' is no report of Hear Music: its chords cannot be read. Wire its 'report', or write {_EXAMPLE}."
                ) from error
            return cls(tuple(chords[:_MAX_CHORDS]))
        lines = [line for line in words.splitlines() if line.strip()]
        if len(lines) > _MAX_CHORDS:
            raise InputError(f"'chord_list' has {len(lines)} lines, at most {_MAX_CHORDS} are allowed.")
        return cls(tuple(_chord(number, line) for number, line in enumerate(lines, 1)))

    @classmethod
    def heard(cls, spans: Sequence) -> "TimedChords":
        """Of `Heard.chords`: objects with start_s, end_s and label."""
        return cls(tuple(Chord(span.start_s, span.end_s, span.label) for span in spans))

    @property
    def duration_s(self) -> float:
        """Until the last one's end."""
        return self.spans[-1].end_s

    def chords(self) -> list[Chord]:
        return list(self.spans)

    def rows(self, start_s: float, n_rows: int, rate_hz: float) -> Tensor:
        """Rows [n_rows, 12] of 0 and 1 from `start_s` of the piece on; a chord begins at the row nearest to its time."""
        first = round(start_s * rate_hz)
        if self.period_s is not None:
            n = max(1, round(self.period_s * rate_hz))
            return replace(self, period_s=None).rows(0.0, n, rate_hz)[(first + torch.arange(n_rows)) % n]
        rows = torch.zeros(n_rows, 12)
        begin = max(0, bisect.bisect_right([chord.end_s for chord in self.spans], (first - 1) / rate_hz))
        for chord in self.spans[begin:]:
            start, end = round(chord.start_s * rate_hz) - first, round(chord.end_s * rate_hz) - first
            if start >= n_rows:
                break
            rows[max(start, 0) : max(end, 0)] = row_of(chord.label)
        return rows

    @property
    def description(self) -> str:
        """A sentence on how long they last and what follows."""
        n = len(self.spans)
        follows = (
            "has no chord behind them" if self.period_s is None else f"begins them anew after {self.period_s:.6g} s"
        )
        return f"{n} chord{'s' if n > 1 else ''} at their own times: {self.duration_s:.2f} s. Longer music {follows}."


def _chord(number: int, line: str) -> Chord:
    parts = line.split(None, 2)
    try:
        if len(parts) != 3:
            raise ValueError
        return Chord(float(parts[0]), float(parts[1]), parts[2].strip())
    except ValueError as error:
        raise InputError(
            f"'chord_list', line {number} ({line.strip()[:60]!r}) is no chord at its time. Write {_EXAMPLE}."
        ) from error
