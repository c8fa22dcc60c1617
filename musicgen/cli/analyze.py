"""python -m musicgen analyze: what is heard in a sound file."""

import argparse
from pathlib import Path

from .. import audio
from ..analysis import hearing
from ..outputs import atomic_file, check_output


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `analyze`."""
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", help="sound file of 2 seconds to 20 minutes")
    parser.add_argument("--bpm", type=float, default=0.0, metavar="N", help="expected tempo (heard)")
    parser.add_argument("--meter", type=int, default=0, metavar="N", help="beats in a bar (3/4, 4/4 or 6/8, as heard)")
    parser.add_argument("--vocabulary", choices=hearing.VOCABULARIES, default="triads", help="of chords (%(default)s)")
    parser.add_argument(
        "--beat-model", type=Path, metavar="FILE", help="checkpoint of beat-this, instead of the built-in tracker"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--midi", metavar="OUT.mid", help="write melody, chords and drums")


def run(arguments: argparse.Namespace) -> None:
    """Print what is heard, a line a fact, with confidences from 0 to 1 in brackets."""
    target = check_output(arguments.midi, ("mid", "midi")) if arguments.midi else None
    clip = audio.read(arguments.file)
    heard = hearing.hear(clip, arguments.bpm, arguments.meter, arguments.vocabulary, arguments.beat_model)
    if target is not None:
        content = hearing.midi_bytes(heard)
        with atomic_file(target) as file:
            file.write(content)
    print(heard.as_json() if arguments.json else "\n".join(f"{name:<10} {value}" for name, value in _facts(heard)))


def _facts(heard: hearing.Heard) -> list[tuple[str, str]]:
    bars = ", ".join(f"{time_s:.2f}" for time_s in heard.downbeats_s)
    sections = ", ".join(f"{section.label} {section.start_s:.2f} s" for section in heard.sections)
    return [
        ("tempo", f"{heard.bpm:.2f} bpm ({heard.bpm_confidence:.2f})" if heard.bpm else "no pulse"),
        ("meter", f"{heard.meter_text} ({heard.meter_confidence:.2f})" if heard.meter else "not heard"),
        ("downbeats", f"{bars} s ({heard.downbeats_confidence:.2f})" if bars else "not heard"),
        ("key", f"{heard.key} ({heard.key_confidence:.2f})" if heard.key else "not heard"),
        ("chords", f"{heard.chord_text} ({heard.chords_confidence:.2f})"),
        ("sections", sections),
        ("melody", f"{len(heard.melody)} notes"),
        ("drums", f"{len(heard.drums)} onsets"),
        *(("notice", notice) for notice in heard.notices),
    ]
