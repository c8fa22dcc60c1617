"""python -m musicgen inspect: what a file or folder of weights is."""

import argparse
from pathlib import Path

from ..checkpoints.tools.inspect import describe
from .options import add_models, model_store


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `inspect`."""
    parser.set_defaults(run=run)
    parser.add_argument("path", metavar="FILE_OR_FOLDER", help="of a checkpoint, or a name below --models")
    add_models(parser, models)


def run(arguments: argparse.Namespace) -> None:
    """Print one line a fact."""
    store = model_store(arguments)
    path = store.find(arguments.path)
    print(path)
    for label, value in describe(path, store.dirs):
        print(f"  {label:<15} {value}")
