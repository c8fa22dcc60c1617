"""Dispatch of the command line: python -m musicgen COMMAND."""

import argparse
import logging
import sys
from collections.abc import Sequence

from ..errors import MusicGenError
from . import analyze, batch, convert, doctor, evaluate, generate, inspect, predict, remix, stems, train
from .console import print_everywhere
from .folders import models_dir

# Name -> module with add(parser, models), which sets `run`, and the line of the help.
COMMANDS = {
    "generate": (generate, "make music from a text, or continue a clip"),
    "predict": (predict, "the 15 fields of the Replicate model; one audio file"),
    "batch": (batch, "a clip for each row of a table: overnight, on several machines, or over running ComfyUIs"),
    "convert": (convert, "make one safetensors file of a checkpoint: loads faster, holds no pickle"),
    "inspect": (inspect, "say what a file or folder of weights is"),
    "evaluate": (evaluate, "measure a model: codec, melody, text, continuation, collapse"),
    "analyze": (analyze, "hear tempo, bars, key, chords and sections of a sound file"),
    "stems": (stems, "take a song apart: voices, drums, bass, other instruments and the rest"),
    "remix": (remix, "new music under the voice of a song, on its chords and beats"),
    "train": (train, "a fine-tune of a model on a folder of music, with the proof that it is heard"),
    "doctor": (doctor, "what is installed here, and what stops or slows music"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command -> exit status: 0 done, 1 a reported error or a missed goal, 2 wrong usage, 130 stopped."""
    print_everywhere()
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s")
    try:
        status = arguments.run(arguments)
    except MusicGenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return status or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m musicgen", description="Make music with MusicGen.")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (command, description) in COMMANDS.items():
        command.add(commands.add_parser(name, help=description), models_dir())
    return parser
