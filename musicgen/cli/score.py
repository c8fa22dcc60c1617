"""Options of scores: what is read for `generate`, and the MIDI file beside the music."""

import argparse
import sys
from pathlib import Path

from ..analysis import hearing
from ..analysis.asked import beside, following
from ..audio import Audio
from ..conditioning.chord_labels import notes_of
from ..errors import InputError
from ..outputs import atomic_file
from ..score import CHORDS, MELODY, SUFFIXES, Score, described, midi_bytes, prepared, read_notes, read_score
from ..score.choices import EXAMPLE_NOTES, MAX_TRANSPOSE


def add_score(parser: argparse.ArgumentParser) -> None:
    """Options of a score that is followed, and of the MIDI file."""
    parser.add_argument(
        "--notes",
        metavar="TEXT",
        help=f"notes that are followed, in place of --melody: '{EXAMPLE_NOTES}', or a tune in ABC",
    )
    parser.add_argument(
        "--part",
        default=MELODY,
        metavar="NAME",
        help="of the score, that has the melody: melody, all, a number or a name (%(default)s)",
    )
    parser.add_argument("--tune", type=int, default=0, metavar="N", help="of an ABC file: its X: number; 0 = the first")
    parser.add_argument(
        "--transpose", type=int, default=0, metavar="N", help="semitones by which the score is moved (%(default)s)"
    )
    parser.add_argument(
        "--midi",
        type=Path,
        metavar="OUT.mid",
        help="also write what is heard in the music, beside the score if one is followed",
    )


def read_asked(arguments: argparse.Namespace, bpm: float | None) -> Score | None:
    """The score of --notes, or of --melody if that is a score, at the tempo of --bpm or --duration if they name one."""
    file = arguments.melody if arguments.melody is not None and arguments.melody.suffix.lower() in SUFFIXES else None
    if arguments.notes is not None and arguments.melody is not None:
        raise InputError("'--notes' and '--melody' are both given. Give one of them.")
    if arguments.notes is None and file is None:
        if arguments.part != MELODY or arguments.transpose or arguments.tune:
            raise InputError(
                "'--part', '--tune' and '--transpose' belong to a score. Give '--notes', or a score as '--melody'."
            )
        return None
    if arguments.chords is not None:
        raise InputError("'--chords' and a score are both given, which stand in one place. Give one of them.")
    if file is not None and (arguments.start or arguments.end >= 0) and arguments.clip is None:
        raise InputError("'--start' and '--end' cut recordings, not scores. Leave them out.")
    if abs(arguments.transpose) > MAX_TRANSPOSE:
        raise InputError(
            f"'--transpose' must be from -{MAX_TRANSPOSE} to {MAX_TRANSPOSE} semitones, got {arguments.transpose}"
        )
    score = read_score(file, arguments.tune) if file is not None else read_notes(arguments.notes or "")
    score = prepared(score, arguments.part, arguments.transpose, bpm or 0.0, CHORDS[0])
    print("\n".join((described(score), *score.notices)), file=sys.stderr)
    return score


def save_midi(path: Path, score: Score | None, audio: Audio) -> None:
    """Write what is heard in the music; with a score, what was asked for beside it. Print the path, and how it is followed."""
    if score is None:
        content = hearing.midi_bytes(hearing.hear(audio))
    else:
        print(following(audio, score).report, file=sys.stderr)
        content = midi_bytes(beside(score, audio)[0], notes_of)
    with atomic_file(path) as file:
        file.write(content)
    print(path)
