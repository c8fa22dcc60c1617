"""A score as it is asked for: its melody's part, transposed, at a tempo, with the chords of its notes."""

from dataclasses import replace

from .choices import CHORDS, MELODY
from .harmony import with_heard_chords
from .melody import chosen_parts
from .score import Score


def prepared(score: Score, part: str = MELODY, transpose: int = 0, bpm: float = 0.0, chords: str = CHORDS[0]) -> Score:
    """The score with a melody's part, moved by semitones, at one tempo (0 = its own), with written chords or those of its notes.

    InputError for a part, a transposition or a tempo that it cannot have.
    """
    chosen_parts(score, part)
    score = replace(score, melody_part=part.strip() or MELODY).transposed(transpose)
    score = score.at_tempo(bpm) if bpm else score
    return score if chords == CHORDS[0] else with_heard_chords(score)


def described(score: Score) -> str:
    """A sentence on what was read."""
    parts = [part for part in score.parts if not part.is_drums]
    melody = " + ".join(part.name for part in chosen_parts(score, score.melody_part))
    more = f"; melody: {melody}" if len(parts) > 1 else ""
    n_notes = sum(len(part.notes) for part in parts)
    return (
        f"{n_notes} notes in {len(parts)} part{'s' * (len(parts) > 1)}, {score.meter} at {score.bpm:g} bpm: "
        f"{score.duration_s:.1f} s{more}."
    )
