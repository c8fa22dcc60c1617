"""Notes of one chord label: `A:min7`, as the chord models' data has it, or `Am7`, as players write it.

    label   = "N" | "NC" | "N.C." | "X"                      no chord
            | root [":"] [quality] ["(" degrees ")"] ["/" bass]
    root    = A to G with any run of "b" and "#"
    quality = a name of PUBLISHED or PLAYED, then alterations: b5 #5 b9 #9 #11 b13 add9 no3 sus4 ...
    bass    = a note (`F/C`) or an interval above the root (`C/b7`); its note joins the chord

Behind a colon names and degrees mean what they mean in the data: `C:6` has no fifth and no third, `C:7(b5)` keeps its
fifth, `C:7(*5)` loses it. Without one they mean what players mean: `C6` is a major sixth chord, `C7b5` has one fifth.
Source: Harte et al., "Symbolic representation of musical chords", ISMIR 2005; sets of `sakemin/cog-musicgen-chord`.
"""

import re
import unicodedata

from ..errors import InputError

NOTES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
STEPS = (0, 2, 4, 5, 7, 9, 11)  # semitones of the degrees 1 to 7
NO_CHORD = re.compile("N|X|(?i:NC|N[.]C[.]?)")
_MAX_DEGREE = 14
_MAX_LENGTH = 64  # characters of a label

# Semitones above the root.
PUBLISHED = {
    "maj": (0, 4, 7), "min": (0, 3, 7), "dim": (0, 3, 6), "aug": (0, 4, 8), "sus2": (0, 2, 7), "sus4": (0, 5, 7),
    "5": (0, 7), "4": (0, 5), "1": (0,), "6": (0, 9), "maj6": (0, 4, 7, 9), "min6": (0, 3, 7, 9),
    "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "min7": (0, 3, 7, 10), "minmaj7": (0, 3, 7, 11),
    "dim7": (0, 3, 6, 9), "hdim7": (0, 3, 6, 10), "9": (0, 2, 4, 7, 10), "maj9": (0, 2, 4, 7, 11),
    "min9": (0, 2, 3, 7, 10), "11": (0, 2, 4, 5, 7, 10), "min11": (0, 2, 3, 5, 7, 10),
    "13": (0, 4, 7, 9, 10), "maj13": (0, 4, 7, 9, 11), "min13": (0, 3, 7, 9, 10),
}  # fmt: skip
# What players write besides: another name of a published quality, or semitones of its own.
_SPELLINGS = {
    "maj": ("", "M", "ma", "Maj"), "7": ("dom7", "dom"), "min": ("m", "mi", "-"), "dim": ("°", "o"), "aug": ("+",), "sus4": ("sus",),
    "maj6": ("6",), "min6": ("m6", "mi6", "-6"), "maj7": ("M7", "ma7", "Maj7"), "min7": ("m7", "mi7", "-7"),
    "minmaj7": ("mM7", "mmaj7", "mMaj7", "-maj7", "-M7", "m(maj7)", "min(maj7)", "m(M7)"), "dim7": ("°7", "o7"),
    "hdim7": ("ø", "ø7", "hdim"), "maj9": ("M9", "ma9", "Maj9"), "min9": ("m9", "mi9", "-9"), "min11": ("m11", "mi11", "-11"),
    "maj13": ("M13", "ma13", "Maj13"), "min13": ("m13", "mi13", "-13"),
}  # fmt: skip
PLAYED = {
    **{name: semitones for name, semitones in PUBLISHED.items() if name not in ("1", "4")},
    **{spelling: PUBLISHED[name] for name, spellings in _SPELLINGS.items() for spelling in spellings},
    **dict.fromkeys(("aug7", "+7", "7+"), (0, 4, 8, 10)), **dict.fromkeys(("69", "6/9"), (0, 2, 4, 7, 9)),
    **dict.fromkeys(("m69", "m6/9", "min69"), (0, 2, 3, 7, 9)), "2": (0, 2, 4, 7), "4": (0, 5, 7),
    **dict.fromkeys(("+M7", "+maj7", "augmaj7"), (0, 4, 8, 11)), **dict.fromkeys(("7alt", "alt"), (0, 3, 4, 8, 10)),
}  # fmt: skip
_KNOWN = (
    "maj, min (m), dim, aug (+), sus2, sus4, 5, 6, m6, 7, maj7, m7, mM7, dim7, m7b5, 7alt, 9, maj9, m9, 11, m11, 13, maj13, m13, "
    "with b5 #5 b9 #9 #11 b13 add9 no3 no5"
)

_ROOT = re.compile(r"(?P<letter>[A-G])(?P<accidentals>[b#]*)(?P<rest>.*)", re.DOTALL)
_NOTE = re.compile(r"([A-G])([b#]*)")
_DEGREE = re.compile(r"(?P<accidentals>[b#]*)(?P<number>[0-9]{1,2})")
_ALTERATION = re.compile(r"(?P<verb>add|no|omit|sus)?(?P<accidentals>[b#]*)(?P<number>[0-9]{1,2})|sus")
_BARE = re.compile(r"(?=[a-z#])" + _ALTERATION.pattern)  # outside brackets: with a word or an accidental
_BASS = re.compile(r"/(?![^(]*\))")  # outside brackets
_BY_LENGTH = sorted(PLAYED, key=len, reverse=True)
_SIGNS = str.maketrans(
    {"♯": "#", "♭": "b", "♮": "", "−": "-", "–": "-", "△": "Δ", "▵": "Δ", "∆": "Δ", "^": "Δ", "Ø": "ø", "∅": "ø", "º": "°", "\u200b": " ", "\ufeff": " "}
)  # fmt: skip
# Ways of players to those of PLAYED: Δ9, C7-9 and C7+9, words in capitals or in full.
_WAYS = (
    (re.compile("Δ(?=9|11|13)"), "maj"), (re.compile("Δ7?"), "maj7"),
    (re.compile("(?<=[0-9])[+](?=5|9|11|13)"), "#"), (re.compile("(?<=[0-9])-(?=5|9|11|13)"), "b"),
    (re.compile("MAJ|[Mm]ajor"), "maj"), (re.compile("MIN|[Mm]inor"), "min"), (re.compile("DIM"), "dim"), (re.compile("AUG"), "aug"),
    (re.compile("SUS"), "sus"), (re.compile("ADD"), "add"), (re.compile("ALT"), "alt"),
)  # fmt: skip
_ROMAN = re.compile(r"[b#]?(?:[1-7]|(?:[IVX]+|[ivx]+)(?=$|[^A-Za-z]|m|M|dim|sus))")


def plain(text: str) -> str:
    """`text` with full-width letters and signs, superscripts, accidentals and triangles as their plain ones."""
    return unicodedata.normalize("NFKC", text).translate(_SIGNS)


def pitch_classes(label: str) -> frozenset[int]:
    """Notes of a label, 0 = C to 11 = B; none for no chord. InputError says what is wrong with it and what is allowed."""
    label = plain(label)
    if NO_CHORD.fullmatch(label):
        return frozenset()
    if len(label) > _MAX_LENGTH:
        raise InputError(f"a chord has at most {_MAX_LENGTH} characters, this one {len(label)}")
    match = _ROOT.fullmatch(label)
    if match is None:
        raise InputError(_root_fault(label))
    root = NOTES[match["letter"]] + _shift(match["accidentals"])
    quality, bass = match["rest"], None
    if (quality.startswith(":") or not quality.endswith("6/9")) and (slash := _BASS.search(quality)):
        quality, bass = quality[: slash.start()], quality[slash.end() :]
    semitones = _published(quality[1:]) if quality.startswith(":") else _played(_in_known_words(quality))
    notes = {(root + semitone) % 12 for semitone in semitones}
    if bass is not None:
        notes.add(_bass(bass, root))
    return frozenset(notes)


def notes_of(label: str) -> frozenset[int]:
    """`pitch_classes`, none for what is no chord."""
    try:
        return pitch_classes(label.replace(" ", ""))
    except InputError:
        return frozenset()


def degree(text: str) -> int | None:
    """Semitones of an interval above its root, mod 12: b7 -> 10, 9 -> 2. None for what is no interval."""
    match = _DEGREE.fullmatch(text)
    if match is None or not 1 <= int(match["number"]) <= _MAX_DEGREE:
        return None
    return (STEPS[(int(match["number"]) - 1) % 7] + _shift(match["accidentals"])) % 12


def _shift(accidentals: str) -> int:
    return accidentals.count("#") - accidentals.count("b")


def _published(quality: str) -> set[int]:
    """Semitones of what stands behind a colon."""
    name, bracket, listed = quality.partition("(")
    if not quality:
        raise InputError("no quality stands behind ':'. Leave the colon out, or write one, as in 'C:min'")
    if bracket:
        listed = _listed(quality, listed)
        semitones = set(_semitones(name)) if name else set()
        for item in listed:
            interval = _interval(item.removeprefix("*"))
            (semitones.discard if item.startswith("*") else semitones.add)(interval)
        return semitones
    return set(_semitones(name))


def _semitones(name: str) -> set[int]:
    """Semitones of a quality behind a colon: published names first, then the ways of players."""
    return set(PUBLISHED[name]) if name in PUBLISHED else _played(name)


def _in_known_words(quality: str) -> str:
    for pattern, word in _WAYS:
        quality = pattern.sub(word, quality)
    return quality


def _played(quality: str) -> set[int]:
    """Semitones of a quality as players write it: a name, then alterations. The longest name is read behind which these make sense."""
    fault: InputError | None = None
    for name in _BY_LENGTH:
        if quality.startswith(name):
            try:
                return _altered(set(PLAYED[name]), quality, quality[len(name) :])
            except InputError as error:
                fault = fault or error
    assert fault is not None  # the empty name is one
    raise fault


def _altered(semitones: set[int], quality: str, rest: str) -> set[int]:
    """`semitones` after the alterations that stand in `rest`."""
    while rest:
        if rest.startswith("("):
            inside, closed, after = rest[1:].partition(")")
            items = _listed(rest, inside + closed)
        else:
            found = _BARE.match(rest)
            if found is None:
                raise InputError(f"{rest!r} of the quality {quality!r} is not known. Known are {_KNOWN}")
            items, after = [found[0]], rest[found.end() :]
        for item in items:
            _alter(semitones, item)
        rest = after
    return semitones


def _listed(quality: str, listed: str) -> list[str]:
    """Items of a list in brackets, given from behind its opening one."""
    inside, closed, after = listed.partition(")")
    items = [item.strip() for item in inside.split(",")]
    if not closed or after or not all(items):
        raise InputError(f"the brackets of {quality!r} must hold intervals and be closed, as in 'C:7(b9)'")
    return items


def _interval(text: str) -> int:
    interval = degree(text)
    if interval is None:
        raise InputError(
            f"{text!r} is no interval. Write a degree from 1 to {_MAX_DEGREE} with b or #, such as b7, #11"
        )
    return interval


def _alter(semitones: set[int], item: str) -> None:
    """Add, replace or take away what an alteration names, in place."""
    found = _ALTERATION.fullmatch(item)
    if found is None:
        raise InputError(f"the alteration {item!r} is not known. Known are {_KNOWN}")
    number, interval = (
        found["number"],
        5 if found["number"] is None else _interval(found["accidentals"] + found["number"]),
    )
    if item == "sus" or found["verb"] == "sus":
        semitones -= {3, 4}
    elif found["verb"] in ("no", "omit"):
        semitones -= {3, 4} if number == "3" else {interval}
        return
    elif number == "5" and found["accidentals"] and found["verb"] is None:
        semitones -= {7}
    semitones.add(interval)


def _bass(bass: str, root: int) -> int:
    """Pitch class of a bass: a note, or an interval above the root."""
    if note := _NOTE.fullmatch(bass):
        return (NOTES[note[1]] + _shift(note[2])) % 12
    interval = degree(bass)
    if interval is not None:
        return (root + interval) % 12
    if not bass:
        raise InputError("no bass stands behind '/'. Write a note or an interval, as in 'F/C' or 'C/b7'")
    upper = bass[:1].upper() + bass[1:]
    hint = f". Notes are written in upper case: {upper!r}" if _NOTE.fullmatch(upper) else ""
    raise InputError(f"the bass {bass!r} is no note (A to G with b or #) and no interval (such as b7, 5){hint}")


def _root_fault(label: str) -> str:
    """What is wrong with a label that begins with no root."""
    if not label:
        return "it is empty. Write a chord, or N for none"
    if label[0] in "Hh":
        return "a chord begins with its root, A to G with b or #; H is written 'B', and a German B 'Bb'"
    if _ROMAN.match(label):
        return f"{label!r} is a degree, whose key is not known. Write the chord by its root, A to G: the fourth degree of C is 'F'"
    if label[0] in "NX":
        return f"{label[0]!r} means no chord and stands alone. A chord begins with its root, A to G"
    upper = label[0].upper() + label[1:]
    if label[0].islower() and _ROOT.match(upper):
        return f"roots are written in upper case: {upper!r} (minor is 'm', as in 'Am')"
    return f"{label[0]!r} is no root. A chord begins with one from A to G with b or #, as in 'C', 'F#m7', 'Bb:maj7'"
