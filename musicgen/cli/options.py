"""Options that several commands share."""

import argparse
from pathlib import Path

from ..config import PRECISIONS
from ..store import ModelStore


def add_models(parser: argparse.ArgumentParser, models: Path) -> None:
    """--models."""
    parser.add_argument("--models", type=Path, default=models, metavar="DIR", help="models folder (%(default)s)")


def add_model(parser: argparse.ArgumentParser, default: str) -> None:
    """--model."""
    parser.add_argument(
        "--model", default=default, metavar="DIR_OR_NAME", help="checkpoint, or a name below --models (%(default)s)"
    )


def add_execution(parser: argparse.ArgumentParser) -> None:
    """--precision and --device."""
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the language model (%(default)s)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")


def model_store(arguments: argparse.Namespace) -> ModelStore:
    """The models of --models, and any path."""
    return ModelStore([arguments.models / "musicgen"], allow_paths=True)
