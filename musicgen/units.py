"""A musician's units: meters, tempos, and lengths in bars and beats."""

import re
from dataclasses import dataclass

from .config import PARAMETERS
from .errors import InputError

SLOWEST_BPM, FASTEST_BPM = 20.0, 400.0
EXAMPLE = "'8 bars @ 92 in 4/4', '32 beats @ 120', '1:30' (minutes and seconds) or '12.5 s'"
_UNITS = (1, 2, 4, 8, 16, 32)
_MAX_BEATS = 32
_MAX_CHARACTERS = 200
_NUMBER = r"(\d{1,6}(?:[.,]\d{1,6})?)"
_COUNTED = re.compile(
    rf"{_NUMBER}\s*(?:(bars?|measures?|마디|小節|小节)|beats?|박자?|拍)\s*(.*)", re.IGNORECASE | re.DOTALL
)
_TEMPO = re.compile(rf"(?:@|at\b)\s*{_NUMBER}\s*(?:bpm\b)?", re.IGNORECASE)
_METER = re.compile(r"\bin\s+(\d{1,3}\s*/\s*\d{1,3})", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d{1,2}):)?(\d{1,4}):(\d{1,2}(?:[.,]\d{1,6})?)")
_SECONDS = re.compile(rf"{_NUMBER}\s*(?:s|sec|seconds?|초|秒)?", re.IGNORECASE)


@dataclass(frozen=True)
class Meter:
    """Beats in a bar, and the note that a beat is: 6/8 has six beats of an eighth."""

    beats: int
    unit: int = 4

    @classmethod
    def parse(cls, text: str, name: str = "meter") -> "Meter":
        """`4/4`, `6/8`; `3` is 3/4. InputError for anything else, under the name of the input."""
        found = re.fullmatch(r"\s*(\d{1,3})\s*(?:/\s*(\d{1,3})\s*)?", text) if isinstance(text, str) else None
        beats, unit = (int(found[1]), int(found[2] or 4)) if found else (0, 0)
        if not 1 <= beats <= _MAX_BEATS or unit not in _UNITS:
            raise InputError(
                f"'{name}' must be beats and their unit, such as 4/4, 3/4 or 6/8 (1 to {_MAX_BEATS} beats of "
                f"{', '.join(map(str, _UNITS))}), got {text!r}"
            )
        return cls(beats, unit)

    def __str__(self) -> str:
        return f"{self.beats}/{self.unit}"


@dataclass(frozen=True)
class Length:
    """A length, and the tempo and meter that it was told in; None where it was told in seconds."""

    duration_s: float
    bpm: float | None = None
    meter: Meter | None = None

    @classmethod
    def parse(cls, text: str, name: str = "length") -> "Length":
        """`8 bars @ 92 in 4/4`, `32 beats @ 120`, `1:30`, `12.5 s`, `12.5`. InputError names what is wrong.

        A beat is the meter's unit, as in the chords: 6/8 at 120 has bars of 3 s. Without a meter a bar has four beats.
        """
        if not isinstance(text, str) or not text.strip() or len(text) > _MAX_CHARACTERS:
            raise InputError(f"'{name}' must be a length such as {EXAMPLE}, got {_shown(text)}.")
        words = text.strip()
        if found := _COUNTED.fullmatch(words):
            length = cls._counted(words, name, _number(found[1]), bool(found[2]), found[3])
        elif found := _CLOCK.fullmatch(words):
            hours, minutes, seconds = int(found[1] or 0), int(found[2]), _number(found[3])
            if seconds >= 60 or (found[1] and minutes >= 60):
                raise InputError(f"'{name}' has more than 59 seconds or minutes behind a colon: {_shown(text)}.")
            length = cls(3600 * hours + 60 * minutes + seconds)
        elif found := _SECONDS.fullmatch(words):
            length = cls(_number(found[1]))
        else:
            raise InputError(f"'{name}' must be a length such as {EXAMPLE}, got {_shown(text)}.")
        allowed = PARAMETERS["duration_s"]
        if not allowed.low <= length.duration_s <= allowed.high:
            raise InputError(
                f"'{name}' is {length.duration_s:g} s ({_shown(text)}), and music can be {allowed.low:g} to "
                f"{allowed.high:g} s long. Give another length."
            )
        return length

    @classmethod
    def _counted(cls, text: str, name: str, count: float, bars: bool, rest: str) -> "Length":
        tempo, meter = _TEMPO.search(rest), _METER.search(rest)
        left = _METER.sub("", _TEMPO.sub("", rest, count=1), count=1).strip(" ,;")
        if not tempo:
            raise InputError(
                f"'{name}' names no tempo: {_shown(text)}. Write one behind an @, in beats a minute, as in {EXAMPLE}."
            )
        if left:
            raise InputError(f"'{name}' has {_shown(left)}, which says nothing here. Write a length such as {EXAMPLE}.")
        bpm, of = check_bpm(_number(tempo[1])), Meter.parse(meter[1]) if meter else Meter(4)
        beats = count * of.beats if bars else count
        return cls(beats * 60 / bpm, bpm, of)


def check_bpm(bpm: float) -> float:
    """`bpm` if it is a tempo; else InputError."""
    is_number = isinstance(bpm, (int, float)) and not isinstance(bpm, bool)
    if not is_number or not SLOWEST_BPM <= bpm <= FASTEST_BPM:
        raise InputError(f"'bpm' must be a number from {SLOWEST_BPM:g} to {FASTEST_BPM:g} beats a minute, got {bpm!r}")
    return float(bpm)


def told(text: str, bpm: float | None = None, meter: Meter | None = None) -> str:
    """`text` with meter and tempo behind it, in the words of musicgen-chord: `pop, 4/4, bpm : 92.5`.

    Source: sakemin/cog-musicgen-chord, predict.py. A tempo alone, without any text, has no words.
    """
    parts = [text] if text else []
    if meter is not None:
        parts.append(str(meter))
    if bpm is not None:
        parts.append(f"bpm : {float(bpm)}" if parts else str(float(bpm)))
    return ", ".join(parts)


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."
