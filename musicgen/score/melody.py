"""The melody of a score: which part it is, and its line of one note at a time."""

from collections.abc import Iterable

from ..errors import InputError
from .choices import MELODY
from .score import Note, Part, Score

ALL = "all"  # of the choice of a part
_NAMED = ("melody", "vocal", "voice", "lead", "solo", "sing", "멜로디", "선율", "노래", "가락")
_SHOWN = 12  # parts in a message


def melody_part(score: Score) -> Part:
    """The part that has the melody.

    A part that is named so (melody, vocal, voice, lead, solo). Else, of the parts that sound for at least half as long as the one that
    sounds longest, the one whose upper line is highest in the mean. Drums have none. InputError for a score without notes.
    """
    parts = [part for part in score.parts if part.notes and not part.is_drums]
    if not parts:
        kind = "only drums" if score.parts else "no notes"
        raise InputError(f"The score has {kind}, and a melody needs notes. Give another file or another part.")
    named = [part for part in parts if any(word in part.name.lower() for word in _NAMED)]
    measured = []
    for part in named or parts:
        line = upper_line(part.notes)
        sounding = float(sum(note.length for note in line))
        measured.append((part, sounding, float(sum(note.pitch * note.length for note in line)) / sounding))
    longest = max(sounding for _, sounding, _ in measured)
    return max((each for each in measured if 2 * each[1] >= longest), key=lambda each: each[2])[0]


def melody_of(score: Score) -> tuple[Note, ...]:
    """Notes of the melody, one at a time, of the part that the score names as its melody's. InputError without one."""
    line = upper_line(note for chosen in chosen_parts(score, score.melody_part) for note in chosen.notes)
    if not line:
        raise InputError(f"The part {score.melody_part[:60]!r} of the score has no notes. Choose another part.")
    return line


def chosen_parts(score: Score, part: str) -> list[Part]:
    """The parts that a choice names. InputError, with the parts that there are, for one that names none."""
    name = part.strip()
    if name.lower() in ("", MELODY):
        return [melody_part(score)]
    pitched = [each for each in score.parts if not each.is_drums]
    if name.lower() == ALL and pitched:
        return pitched
    if name.isdigit() and 1 <= int(name[:6]) <= len(score.parts):
        chosen = [score.parts[int(name[:6]) - 1]]
    else:
        chosen = [each for each in score.parts if each.name.lower() == name.lower()]
    if not chosen or chosen[0].is_drums:
        raise InputError(
            f"'part' is {name[:60]!r}, and the score has {_listed(score)}. Give a number, a name, melody or all."
        )
    return chosen[:1]


def _listed(score: Score) -> str:
    names = [
        f"{number} {part.name}" + (" (drums)" if part.is_drums else "") for number, part in enumerate(score.parts, 1)
    ]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "the parts " + ", ".join(names[:_SHOWN]) + more if names else "no parts"


def upper_line(notes: Iterable[Note]) -> tuple[Note, ...]:
    """The highest of the notes that begin together, each cut where the next one begins.

    A lower note that begins under a sounding one is left out.
    """
    line: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.start, -note.pitch)):
        if line and note.start < line[-1].end:
            if note.start == line[-1].start or note.pitch < line[-1].pitch:
                continue
            line[-1] = Note(line[-1].start, note.start - line[-1].start, line[-1].pitch)
        line.append(note)
    return tuple(line)
