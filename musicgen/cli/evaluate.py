"""python -m musicgen evaluate: measure a model with the recipe in training/."""

import argparse
import subprocess
import sys
from pathlib import Path

from ..errors import InputError
from .folders import PACK
from .options import add_models, model_store


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `evaluate`."""
    parser.set_defaults(run=run)
    parser.add_argument("model", metavar="FILE_OR_FOLDER", help="of a checkpoint, or a name below --models")
    add_models(parser, models)
    parser.add_argument("--out", type=Path, default=Path("evaluation"), metavar="DIR", help="for report and pictures")
    parser.add_argument("--prompts", type=int, default=64, metavar="N", help="of each kind (%(default)s)")
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="to look for collapse (%(default)s)")
    parser.add_argument(
        "--long", action="store_true", help="measure instead how far long pieces drift, minute by minute"
    )
    parser.add_argument("--pieces", type=int, default=4, metavar="N", help="long pieces (%(default)s)")
    parser.add_argument("--minutes", type=int, default=5, metavar="N", help="of each long piece (%(default)s)")
    parser.add_argument(
        "--anchor", type=float, metavar="S", help="seconds that the second run is anchored by (a fifth of the window)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the recipe's evaluation in a process of its own: synthesizer and critic are no part of the engine."""
    path = model_store(arguments).find(arguments.model)
    if not (PACK / "training" / "__main__.py").is_file():
        raise InputError(f"'evaluate' needs the folder {PACK / 'training'}, which this copy of the project lacks")
    command = [
        sys.executable,
        "-m",
        "training",
        "evaluate",
        str(path.absolute()),
        "--out",
        str(arguments.out.absolute()),
    ]
    command += ["--prompts", str(arguments.prompts), "--seeds", str(arguments.seeds)]
    if arguments.long:
        command += ["--long", "--pieces", str(arguments.pieces), "--minutes", str(arguments.minutes)]
        command += [] if arguments.anchor is None else ["--anchor", str(arguments.anchor)]
    command += ["--text-encoders", str((arguments.models / "text_encoders").absolute())]
    return subprocess.run(command, cwd=PACK, check=False).returncode
