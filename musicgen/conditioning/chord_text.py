"""The text of a progression: `C G,G:7 A:min`, or `Am7 | F/C | G %`.

Without bar lines a blank or a new line ends a bar and commas divide it. With bar lines anywhere, bar lines and new lines
end bars, and blanks or commas divide them. The chords of a bar have equal shares of it.

    %           the bar before once more; also right behind a bar's last chord, `G%`
    / or .      the chord before once more, for a share of a bar between bar lines: `C / / G`
    x3 or (x3)  behind bars: they are played three times; "they" reach back to the line's beginning, or to the last x
    |: ... :|   twice, or as often as an x behind it says
    // ...      a comment to the line's end; so is # at the beginning of a word, [Verse] and `Verse 1:`
    -           between blanks, without bar lines: nothing

Labels: `chord_labels`. Full-width letters and signs count as plain ones.
"""

import re

from ..config import check_text
from ..errors import InputError
from .chord_labels import pitch_classes, plain

Bars = list[tuple[str, ...]]

MAX_CHARACTERS = 16_384
MAX_BARS = 8192  # played, repeats included
MAX_IN_BAR = 32
MAX_TIMES = 64
_EXAMPLE = "'C G A:min F' or 'Am7 | F/C | G | %'"
_SHOWN = 40  # characters of a word in a message

_SIGNS = str.maketrans({"×": "x", "、": ",", "𝄆": "|:", "𝄇": ":|", "𝄀": "|", "𝄁": "||", "𝄎": "%"})
_COMMENT = re.compile(r"//.*|(?<!\S)#.*|\[[^][]*\]")
_SECTION = re.compile(
    r"^\s*(?:intro|verse|(?:pre-?)?chorus|refrain|bridge|interlude|solo|outro|ending|전주|간주|후주|후렴|\d\s*절|절|브리지)\s*\d*\s*:(?=\s|$)", re.IGNORECASE
)  # fmt: skip
_BETWEEN = ("-", "->", "→", "=>", ">")  # signs between chords, which stand alone
_RUN_ON = re.compile(r"[A-G][^\s,;·→>.-]*(?:[-;·→>.]+[A-G][^\s,;·→>.-]*)+[-;·→>.]*")
_LINE = re.compile(r"(:?\|{1,2}:?)")
_TIMES = re.compile(r"x([0-9]+)|\(x([0-9]+)\)|\(?([0-9]+)x\)?")
_GERMAN = re.compile(r"([CDEFGABH])(is|es|s)(?![a-z](?<!m))")


def parse_bars(text: str, name: str = "chords") -> Bars:
    """Labels of each bar as it is played, repeats written out. InputError names the input, the bar as written, and the word."""
    check_text(name, text)
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"'{name}' is {len(text)} characters long; at most {MAX_CHARACTERS} are allowed. Shorten it.")
    lines = [_SECTION.sub(" ", _COMMENT.sub(" ", line)) for line in plain(text).translate(_SIGNS).splitlines()]
    score = _Score(name)
    has_bar_lines = any("|" in line for line in lines)
    for line in lines:
        line = ",".join(part.strip() for part in line.split(","))
        if has_bar_lines:
            score.read_chart_line(line)
        else:
            score.read_words(line)
    if score.opened is not None:
        raise score.fault("|:", "no ':|' ends this repeat. Write one, or take the '|:' away")
    if not score.bars:
        raise InputError(f"'{name}' is empty. Write chords such as {_EXAMPLE}, or N for no chord.")
    return score.bars


class _Score:
    """Bars while they are read."""

    def __init__(self, name: str) -> None:
        self._name = name  # of the input
        self.bars: Bars = []
        self.opened: int | None = None  # index of the first bar behind a |: that is not closed
        self._number = 0  # of the bar that was read last, as written
        self._section = 0  # index of the first bar that an x repeats
        self._doubled = 0  # bars that a ':|' just before has added

    def fault(self, word: str, what: str, bar: int | None = None) -> InputError:
        word = word if len(word) <= _SHOWN else word[:_SHOWN] + "..."
        return InputError(f"'{self._name}', bar {self._number if bar is None else bar}, {word!r}: {what}.")

    def read_words(self, line: str) -> None:
        """A line without bar lines: a word is a bar, a sign, or both."""
        self._section, self._doubled = len(self.bars), 0
        for word in line.split():
            if word not in _BETWEEN and not self._read_times(word):
                self._read_bar(_divided(word), word)

    def read_chart_line(self, line: str) -> None:
        """A line of a chart: bars between bar lines."""
        self._section, self._doubled = len(self.bars), 0
        parts = _LINE.split(line)
        for i in range(0, len(parts), 2):
            before, after = parts[i - 1] if i else "", parts[i + 1] if i + 1 < len(parts) else ""
            if parts[i].strip():
                self._read_cell(parts[i].strip())
            elif before and after and ":" not in before + after:
                raise self.fault(
                    f"{before} {after}", "the bar is empty. Write a chord, '%' for the bar before, or 'N' for no chord",
                    self._number + 1,
                )  # fmt: skip
            self._read_sign(after)

    def _read_cell(self, cell: str) -> None:
        chords: list[str] = []
        words = [word for part in cell.split() for word in _divided(part)]
        if words and self._read_times(words[0]):
            words = words[1:]
        times = words.pop() if words and _TIMES.fullmatch(words[-1]) else None
        for word in words:
            if word in ("/", "."):
                if not chords and not self.bars:
                    raise self.fault(word, "it holds the chord before, but there is none before it", self._number + 1)
                word = chords[-1] if chords else self.bars[-1][-1]
            chords.append(word)
        if chords:
            self._read_bar(chords, cell)
        if times:
            self._read_times(times)

    def _read_sign(self, sign: str) -> None:
        """A bar line; its repeat sign."""
        if sign.startswith(":"):
            if self.opened is not None:
                self._section, self.opened = self.opened, None
            self._doubled = self._repeat(sign, 2)
        if sign.endswith(":"):
            if self.opened is not None:
                raise self.fault(sign, "a repeat begins within a repeat. Write ':|' first")
            self.opened, self._section, self._doubled = len(self.bars), len(self.bars), 0

    def _read_bar(self, words: list[str], written: str) -> None:
        """One bar, checked."""
        self._number += 1
        if self._doubled:
            self._section, self._doubled = len(self.bars), 0
        if words == ["%"]:
            if not self.bars:
                raise self.fault("%", "'%' repeats the bar before, but there is none before it")
            return self._add(self.bars[-1])
        again = words[-1].endswith("%")
        words[-1] = words[-1].removesuffix("%")
        if again and not words[-1]:
            words.pop()
        if len(words) > MAX_IN_BAR:
            raise self.fault(written, f"it has {len(words)} chords; a bar holds at most {MAX_IN_BAR}")
        for word in words:
            if not word:
                raise self.fault(written, "a chord is empty. Write one on each side of a comma")
            try:
                pitch_classes(word)
            except InputError as error:
                raise self.fault(word, _advice(word) or str(error)) from error
        for _ in range(1 + again):
            self._add(tuple(words))

    def _add(self, bar: tuple[str, ...]) -> None:
        if len(self.bars) >= MAX_BARS:
            raise InputError(f"'{self._name}' has more than {MAX_BARS} bars, repeats included. Leave some out.")
        self.bars.append(bar)

    def _read_times(self, word: str) -> bool:
        """Whether `word` is a repeat such as x3, which is then done."""
        found = _TIMES.fullmatch(word)
        if found is None:
            return False
        times = int(next(filter(None, found.groups()))[:9])
        if not 1 <= times <= MAX_TIMES:
            raise self.fault(word, f"bars are played from 1 to {MAX_TIMES} times", max(self._number, 1))
        if self._doubled:  # by the ':|' before, which this replaces
            del self.bars[len(self.bars) - self._doubled :]
        self._repeat(word, times)
        self._doubled = 0
        return True

    def _repeat(self, sign: str, times: int) -> int:
        """Play the bars of the section `times` times; how many bars that adds."""
        section = self.bars[self._section :]
        if not section:
            raise self.fault(sign, "it repeats bars, but there are none before it", max(self._number, 1))
        added = len(section) * (times - 1)
        if len(self.bars) + added > MAX_BARS:
            raise self.fault(sign, f"it makes more than {MAX_BARS} bars", max(self._number, 1))
        self.bars += section * (times - 1)
        if not sign.startswith(":"):
            self._section = len(self.bars)
        return added


def _advice(word: str) -> str:
    """What to write in place of a word that is no chord, where it is known what was meant."""
    if _RUN_ON.fullmatch(word):
        return "chords stand apart by blanks, as in 'C Am F G'"
    if word in _BETWEEN:
        return "it says nothing between bar lines. Put a blank between chords, and '/' where the chord before holds"
    if found := _GERMAN.match(word):
        name = ("B" if found[1] == "H" else found[1]) + ("#" if found[2] == "is" else "b")
        return f"{found[0]!r} is written {name!r}"
    if re.fullmatch(r"\d[.)]", word):
        return "endings are not read. Write the bars out"
    return ""


def _divided(word: str) -> list[str]:
    """Parts of a word between its commas, but for those in brackets."""
    parts, depth = [""], 0
    for character in word:
        depth = max(0, depth + (character == "(") - (character == ")"))
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts
