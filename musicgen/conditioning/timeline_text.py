"""The text of a timeline: `0: calm flute | 0:20: drums enter @ 0.7 | -8: slow ending`.

    timeline = entry { ("|" or a new line) entry }           empty entries are skipped
    entry    = [time ":"] text ["@" weight]                  the first entry alone may leave out its time: 0 then
    time     = ["-"] (seconds ["s"] or minutes ":" seconds)  20, 12.5, 20s, 1:05; -8 is 8 s before the end
    weight   = a number from 0 to 2                          1 where it is left out

A digit right behind the first colon belongs to the time: `1:30: strings` begins at 1 min 30 s, `1: 30 strings` at 1 s.
An `@` always begins a weight. Colons, bars and at signs may be full-width ones.
"""

import re
from dataclasses import dataclass

from ..config import PARAMETERS, check_text
from ..errors import InputError

MAX_STRENGTH = 2.0
MAX_ENTRIES = 256
MAX_CHARACTERS = 65_536
_SHOWN = 60  # characters of an entry in a message

_BETWEEN = re.compile(r"[|｜\r\n]")
_TIME = re.compile(
    r"\s*(?P<sign>[-−]?)\s*(?P<time>[0-9]+(?:\.[0-9]+)?(?:[:：][0-9]+(?:\.[0-9]+)?)*)\s*s?\s*(?P<colon>[:：]?)"
)
_AT = re.compile(r"[@＠]")


@dataclass(frozen=True)
class Line:
    """One entry as it was written."""

    start_s: float  # from the beginning, or back from the end
    text: str
    strength: float = 1.0
    before_end: bool = False
    kept: str = ""  # tempo and key of entries before, which the text ends with


def parse_timeline(text: str) -> list[Line]:
    """The entries in the order of their writing. InputError names the entry and the word that is wrong."""
    check_text("lines", text)
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"'lines' is {len(text)} characters long; at most {MAX_CHARACTERS} are allowed. Shorten it.")
    entries = [entry.strip() for entry in _BETWEEN.split(text)]
    entries = [entry for entry in entries if entry]
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"'lines' has {len(entries)} entries; at most {MAX_ENTRIES} are allowed. Leave some out.")
    if not entries:
        return [Line(0.0, "")]
    lines = [_line(number, entry) for number, entry in enumerate(entries, 1)]
    seen: dict[tuple[float, bool], int] = {}
    for number, line in enumerate(lines, 1):
        earlier = seen.setdefault((line.start_s, line.before_end), number)
        if earlier != number:
            raise _fault(number, entries[number - 1], f"its time is that of entry {earlier}, too. Give each its own")
    return lines


def _line(number: int, entry: str) -> Line:
    written = _TIME.match(entry)
    is_text = written is None or not (written["colon"] or ":" in _plain(written["time"]) or written["sign"])
    if number == 1 and is_text:
        return Line(0.0, *_weighted(number, entry, entry))
    if written is None:
        raise _fault(number, entry, f"it has no time. Begin it with one, as in '40: {_short(entry)}'")
    if not written["colon"]:
        raise _fault(
            number, entry, f"a colon is missing behind the time {_short(written[0].strip())!r}. {_hint(entry, written)}"
        )
    start_s, before_end = _seconds(number, entry, _plain(written["time"])), bool(written["sign"])
    if before_end and start_s == 0:
        raise _fault(
            number, entry, f"nothing follows the end, {written['sign'] + written['time']!r}. Give seconds before it"
        )
    return Line(start_s, *_weighted(number, entry, entry[written.end() :]), before_end)


def _plain(time: str) -> str:
    """A time with plain colons."""
    return time.replace("：", ":")


def _hint(entry: str, written: re.Match) -> str:
    """How an entry is written whose time has no colon behind it."""
    rest = _short(entry[written.end() :].strip())
    sign, (first, _, second) = written["sign"], _plain(written["time"]).partition(":")
    if not second:
        return f"Write '{sign}{first}: {rest}'"
    return f"Write '{sign}{first}:{second}: {rest}' for {first} min {second} s, or '{sign}{first}: {second} {rest}' for {first} s"


def _seconds(number: int, entry: str, time: str) -> float:
    """Seconds of a time such as 20, 12.5 or 1:05.5."""
    minutes, *others = time.split(":")
    limit_s = PARAMETERS["duration_s"].high
    if len(others) > 1:
        raise _fault(
            number,
            entry,
            f"the time {time!r} has too many colons. Times are seconds (90) or minutes and seconds (1:30)",
        )
    if others:
        whole = others[0].partition(".")[0]
        if "." in minutes or len(whole) != 2 or float(others[0]) >= 60:
            raise _fault(
                number,
                entry,
                f"the time {time!r} is none. Minutes and seconds are written as in 1:05, seconds from 00 to 59",
            )
        start_s = 60 * float(minutes) + float(others[0])
    else:
        start_s = float(minutes)
    if start_s > limit_s:
        raise _fault(number, entry, f"the time {time!r} is later than the longest piece, {limit_s:g} s")
    return start_s


def _weighted(number: int, entry: str, rest: str) -> tuple[str, float]:
    """The text and its weight."""
    text, *weights = _AT.split(rest)
    if not weights:
        return text.strip(), 1.0
    if len(weights) > 1:
        raise _fault(number, entry, "it has more than one '@', which begins the weight. Leave one")
    word = weights[0].strip()
    if not re.fullmatch(r"[0-9]*\.?[0-9]+|[0-9]+\.", word) or float(word) > MAX_STRENGTH:
        raise _fault(
            number, entry,
            f"behind '@' stands a weight, a number from 0 (not followed) to {MAX_STRENGTH:g}; got {_short(word)!r}",
        )  # fmt: skip
    return text.strip(), float(word)


def _fault(number: int, entry: str, what: str) -> InputError:
    return InputError(f"'lines', entry {number}, {_short(entry)!r}: {what}.")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
