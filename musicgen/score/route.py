"""The order in which bars are played: repeats, endings, D.C., D.S., Fine and Coda."""

import bisect
from collections.abc import Sequence
from dataclasses import replace

from ..errors import InputError
from .bars import CODA, CODA_SIGN, DA_CAPO, DAL_SEGNO, FINE, SEGNO, TO_CODA, Bar, Mark, split_at_marks

MAX_BARS = 20_000  # played, repeats included
_MOST_NOTICES = 8
_IN_ORDER = "the bars follow in their order"


def route_of(bars: list[Bar]) -> tuple[list[Bar], list[int], list[str]]:
    """(bars, cut at marks within them; numbers of these from 0 as they are played; what cannot be followed, with its bar).

    Each D.C. and D.S. is taken once, on the last pass of a repeat around it. Behind it repeats are played once, with their last
    ending, until Fine, or To Coda leads to the coda. InputError for more than 20,000 bars.
    """
    bars, numbers = split_at_marks(_with_told_codas(bars))
    route = _Route(bars, numbers)
    route.play()
    notices = list(dict.fromkeys(route.notices))
    more = len(notices) - _MOST_NOTICES
    return bars, route.order, notices[:_MOST_NOTICES] + ([f"{more} more jumps cannot be followed."] if more > 0 else [])


def _with_told_codas(bars: list[Bar]) -> list[Bar]:
    """Bars whose coda signs are told apart: of two and more without any To Coda, the first is To Coda; others are the coda.

    A sign that is To Coda is followed at the end of its bar.
    """
    signs = [i for i, bar in enumerate(bars) if bar.marked(CODA_SIGN)]
    leads = len(signs) > 1 and not any(bar.marked(TO_CODA) for bar in bars)
    named = any(bar.marked(CODA) for bar in bars)

    def told(i: int, mark: Mark) -> Mark:
        if mark.kind != CODA_SIGN:
            return mark
        return replace(mark, kind=TO_CODA if named or (leads and i == signs[0]) else CODA)

    return [
        replace(bar, marks=[told(i, mark) for mark in bar.marks]) if i in signs else bar for i, bar in enumerate(bars)
    ]


class _Route:
    """A player's way while it is walked."""

    def __init__(self, bars: Sequence[Bar], numbers: Sequence[int]) -> None:
        self._bars, self._numbers = bars, numbers
        self.order: list[int] = []
        self.notices: list[str] = []
        self._start, self._turn = 0, 1  # of the repeat
        self._repeats = True  # whether repeats are played: not behind a jump back
        self._jump: tuple[int, Mark] | None = None  # the last one back
        self._coda_met = False
        self._taken: set[tuple[int, str]] = set()
        self._signs = {kind: _signs(bars, kind) for kind in (SEGNO, CODA)}
        self._last_endings = _last_endings(bars)
        self._passes = _passes(bars, self._last_endings)

    def play(self) -> None:
        i = 0
        while i < len(self._bars):
            i = self._next(i)
        self._say_what_is_left()

    def _next(self, i: int) -> int:
        """Play bar `i`, or pass over it; the number of the next one."""
        bars, bar = self._bars, self._bars[i]
        left_endings = bool(self.order) and self.order[-1] == i - 1 and bars[i - 1].endings and not bar.endings
        if (bar.begins_repeat or left_endings) and i != self._start:
            self._start, self._turn = i, 1
        if bar.endings and (self._turn if self._repeats else self._last_endings[i]) not in bar.endings:
            return i + 1
        self.order.append(i)
        if len(self.order) > MAX_BARS:
            raise InputError(f"its repeats make more than {MAX_BARS} bars. Give a part of it.")
        if self._jump and self._jump[1].until != CODA and bar.marked(FINE):
            return self._end()
        if self._jump and self._jump[1].until != FINE and not self._coda_met and (mark := bar.marked(TO_CODA)):
            target = self._find(CODA, mark, i)
            self._coda_met = True
            if target is not None:
                self._repeats = True
                self._start, self._turn = target, 1
                return target
        if self._repeats and bar.times and _again(bars, i, self._turn):
            self._turn += 1
            return self._start
        mark = bar.marked(DA_CAPO, DAL_SEGNO)
        if mark and (i, mark.kind) not in self._taken and not (self._repeats and self._turn < self._passes[i]):
            self._taken.add((i, mark.kind))
            target = 0 if mark.kind == DA_CAPO else self._find(SEGNO, mark, i)
            if target is not None:
                self._say_unfinished()
                self._jump, self._coda_met, self._repeats = (i, mark), False, False
                self._start, self._turn = target, 1
                return target
        if bar.times and not bar.endings:
            self._start, self._turn = i + 1, 1
        return i + 1

    def _end(self) -> int:
        self._jump = None
        return len(self._bars)

    def _find(self, kind: str, mark: Mark, i: int) -> int | None:
        """The sign that an instruction in bar `i` leads to: of its label, else the nearest before (segno) or behind (coda)."""
        places = self._signs[kind].get(mark.label) if mark.label else None
        places = places or self._signs[kind].get(None, [])
        if not places:
            self._say(i, f"'{mark}' has no {kind} to go to, and {_IN_ORDER}")
            return None
        at = bisect.bisect_right(places, i)
        near = at if kind == CODA else at - 1
        return places[min(max(near, 0), len(places) - 1)]

    def _say(self, i: int, what: str) -> None:
        self.notices.append(f"Bar {self._numbers[i]}: {what}.")

    def _say_unfinished(self) -> None:
        """The last jump back said where it ends, and it did not end so."""
        if self._jump is None:
            return
        i, mark = self._jump
        if mark.until == FINE:
            self._say(i, f"'{mark}' met no Fine, and the music was played to its end")
        elif mark.until == CODA and not self._coda_met:
            self._say(i, f"'{mark}' met no To Coda that leads to a coda, and {_IN_ORDER}")

    def _say_what_is_left(self) -> None:
        """Marks that led nowhere."""
        self._say_unfinished()
        played = set(self.order)
        for i, bar in enumerate(self._bars):
            mark = bar.marked(DA_CAPO, DAL_SEGNO)
            if mark and (i, mark.kind) not in self._taken:
                self._say(i, f"'{mark}' is not reached" if i not in played else f"'{mark}' is not followed")
        if not self._taken:
            for i, bar in enumerate(self._bars):
                mark = bar.marked(FINE, TO_CODA)
                if mark and (mark.kind == TO_CODA or i + 1 < len(self._bars)):
                    self._say(i, f"'{mark}' has no D.C. or D.S. behind it, and {_IN_ORDER}")


def _again(bars: Sequence[Bar], i: int, turn: int) -> bool:
    """Whether bar `i`, which ends a repeat, leads back after pass `turn`."""
    bar = bars[i]
    if not bar.endings:
        return turn < bar.times
    following = i + 1
    while following < len(bars) and bars[following].endings and not bars[following].begins_repeat:
        if turn + 1 in bars[following].endings:
            return True
        following += 1
    return turn + 1 in bar.endings


def _signs(bars: Sequence[Bar], kind: str) -> dict[str | None, list[int]]:
    """Numbers of the bars with a sign, by its label, and of all of them under None."""
    found: dict[str | None, list[int]] = {}
    for i, bar in enumerate(bars):
        if mark := bar.marked(kind):
            for label in {None, mark.label}:
                found.setdefault(label, []).append(i)
    return found


def _last_endings(bars: Sequence[Bar]) -> list[int]:
    """For each bar of endings the last pass of their group; 0 for other bars."""
    result = [max(bar.endings, default=0) for bar in bars]

    def follows(i: int) -> bool:
        return bool(bars[i].endings and bars[i - 1].endings and not bars[i].begins_repeat)

    for i in range(1, len(bars)):
        result[i] = max(result[i], result[i - 1]) if follows(i) else result[i]
    for i in range(len(bars) - 1, 0, -1):
        result[i - 1] = max(result[i], result[i - 1]) if follows(i) else result[i - 1]
    return result


def _passes(bars: Sequence[Bar], last_endings: Sequence[int]) -> list[int]:
    """How often each bar is played by the repeat around it; within an ending, the ending's last pass."""
    result, following = [], 1
    for i in range(len(bars) - 1, -1, -1):
        bar = bars[i]
        passes = last_endings[i] or bar.times or following
        result.append(max(bar.endings) if bar.endings else passes)
        following = 1 if bar.begins_repeat else passes
    return result[::-1]
