"""python -m musicgen stems: a song's voices, drums, bass, other instruments and the rest, a file each."""

import argparse
from dataclasses import fields
from pathlib import Path

from .. import audio as audio_files
from ..outputs import check_output
from ..render import find_device, on_device
from ..separation import Stems, load_separator, separate_stems
from .console import Progress
from .options import add_models


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `stems`."""
    parser.set_defaults(run=run)
    add_models(parser, models)
    parser.add_argument("song", type=Path, metavar="SONG", help="sound file, mono or stereo")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="take the song from here, in seconds")
    parser.add_argument("--end", type=float, default=-1.0, metavar="S", help="... to here; -1 = its end")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE",
        help="weights of the kind HTDemucs; else the standard ones, from models/demucs or where Demucs keeps them",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="song.wav makes song-vocals.wav, song-drums.wav, ...: wav, mp3, flac or opus (the song's name, as flac)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Write five files, and print their paths."""
    out = arguments.out or Path(f"{arguments.song.stem}.flac")
    files = {field.name: out.with_name(f"{out.stem}-{field.name}{out.suffix}") for field in fields(Stems)}
    for file in files.values():
        check_output(file, audio_files.FORMATS)
    separator = load_separator([arguments.models / "demucs"], arguments.weights)
    song = audio_files.read(arguments.song, arguments.start, arguments.end)
    with Progress() as on_progress, on_device(find_device(arguments.device), separator) as module:
        stems = separate_stems(song, module, lambda *step: on_progress("separating stems", *step))
    for name, file in files.items():
        audio_files.write(getattr(stems, name), file)
        print(file)
