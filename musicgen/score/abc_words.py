"""Words of ABC notation: its tokens, keys and lengths."""

import re
from fractions import Fraction

from ..errors import InputError
from .bars import MAX_TIMES

PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SHARPS, _FLATS = "FCGDAEB", "BEADGCF"
_FIFTHS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F#": 6, "C#": 7, "F": -1, "Bb": -2, "Eb": -3, "Ab": -4, "Db": -5, "Gb": -6, "Cb": -7}  # fmt: skip
_FIFTHS |= {"G#": 8, "D#": 9, "A#": 10}  # of minor keys and modes
_MODES = {
    "maj": 0,
    "ion": 0,
    "mix": -1,
    "dor": -2,
    "min": -3,
    "aeo": -3,
    "m": -3,
    "phr": -4,
    "loc": -5,
    "lyd": 1,
    "": 0,
}
TUPLETS = {2: 3, 3: 2, 4: 3, 5: None, 6: 2, 7: None, 8: 3, 9: None}  # notes -> the time of how many; None: by the meter
ACCIDENTALS = {"^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}

_NOTE = r"(?P<accidental>\^\^|\^|__|_|=)?(?P<letter>[A-Ga-g])(?P<octave>[,']*)"
_LENGTH = r"(?P<length>\d*(?:/+\d*)?)"
TOKEN = re.compile(
    rf"""(?P<space>[\s`]+)|(?P<inline>\[[A-Za-z]:[^\]]*\])|(?P<symbol>"[^"]*")|(?P<deco>![^!\s]*!|!(?:[Dd]\.\s?[CcSs]\.|[Dd]a\s[Cc]|[Dd]al\s[Ss]|[Tt]o\s[Cc])[^!\n]{{0,40}}!|\+[a-z][^+\s]*\+|[.~HLMOPSTuv](?=["!~.|HLMOPSTuv^_=A-Ga-gxz\[({{]))
    |(?P<grace>\{{[^}}]*\}})|(?P<tuplet>\((?P<p>[2-9])(?::(?P<q>[2-9]?)(?::(?P<r>\d?))?)?)|(?P<slur>[()])
    |(?P<bar>(?::*\||\[\|)[\]|:]*(?:\[(?=\d))?(?P<ending1>\d[\d,\-]*)?|::+|\[(?P<ending2>\d[\d,\-]*))
    |(?P<note>{_NOTE}{_LENGTH})|(?P<rest>[zx](?P<rest_length>\d*(?:/+\d*)?))|(?P<bars>[ZX](?P<n_bars>\d*))
    |(?P<open>\[)|(?P<close>\](?P<chord_length>\d*(?:/+\d*)?))|(?P<tie>-)|(?P<broken>[<>]+)|(?P<overlay>&)|(?P<spacer>[y*\\$#;?@]\d*)""",
    re.VERBOSE,
)  # fmt: skip
KINDS = (
    "space", "inline", "symbol", "deco", "grace", "tuplet", "slur", "bar", "note", "rest", "bars", "open", "close", "tie", "broken",
    "overlay", "spacer",
)  # fmt: skip
FIELD, FIELD_IN_BODY = re.compile(r"([A-Za-z]):(.*)"), re.compile(r"([IKLMmNPQRrsTUVWw]):(.*)")


def key_of(words: str) -> dict[str, int]:
    """Sharps and flats of a key by letter: `G`, `Am`, `Ddor`, `HP`, `none`, `C exp ^f`. ValueError for what is no key."""
    found = re.match(r"(HP|Hp|none)|([A-G][b#]?)\s*([A-Za-z]*)", words, re.IGNORECASE if words[:1] in "nN" else 0)
    if not found:
        raise ValueError(words)
    mode = (found[3] or "").lower()
    mode = mode if mode in ("", "m") else mode[:3]
    mode = "" if mode in ("cle", "tre", "bas", "alt", "ten") else mode
    key: dict[str, int] = {}
    if found[1]:
        key = {} if found[1].lower() == "none" else {"F": 1, "C": 1}
    elif mode != "exp":
        if mode not in _MODES or not -7 <= _FIFTHS[found[2]] + _MODES[mode] <= 7:
            raise ValueError(words)
        fifths = _FIFTHS[found[2]] + _MODES[mode]
        key = dict.fromkeys(_SHARPS[:fifths], 1) if fifths >= 0 else dict.fromkeys(_FLATS[:-fifths], -1)
    for sign, letter in re.findall(r"(?<!\S)(\^\^|\^|__|_|=)([A-Ga-g])(?!\S)", words):
        key[letter.upper()] = ACCIDENTALS[sign]
    return key


def length_of(text: str) -> Fraction:
    """A factor of the unit note: 2, 3/2, /, //, /4."""
    above, slashes, below = re.match(r"(\d*)(/*)(\d*)", text).groups()  # type: ignore[union-attr]
    divisor = int(below[:4]) if below else 2 ** min(len(slashes), 8)
    if slashes and not divisor:
        raise InputError("a note's length is divided by 0.")
    return Fraction(int(above[:5]) if above else 1, divisor if slashes else 1)


def numbers_of(text: str) -> frozenset[int]:
    """Passes of an ending: 1, 1,3 or 1-3."""
    numbers: set[int] = set()
    for part in text.strip(",-").split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            numbers |= set(range(int(first[:3]), min(int((last or first)[:3]), MAX_TIMES) + 1))
    return frozenset(numbers) or frozenset({1})
