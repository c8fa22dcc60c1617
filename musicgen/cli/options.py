"""Options that several commands share."""

import argparse
import re
from pathlib import Path

from ..config import PRECISIONS
from ..errors import InputError
from ..store import ModelStore


def add_models(parser: argparse.ArgumentParser, models: Path) -> None:
    """--models."""
    parser.add_argument("--models", type=Path, default=models, metavar="DIR", help="models folder (%(default)s)")


def add_model(parser: argparse.ArgumentParser, default: str) -> None:
    """--model."""
    parser.add_argument(
        "--model", default=default, metavar="DIR_OR_NAME", help="checkpoint, or a name below --models (%(default)s)"
    )


def add_weights(parser: argparse.ArgumentParser, what: str) -> None:
    """--weights, any number of times, each with a strength of its own."""
    parser.add_argument(
        "--weights", action="append", default=[], metavar="FILE_OR_NAME[:STRENGTH]",
        help=f"{what}: a LoRA or a whole fine-tune, and how strongly (1), such as '--weights style.safetensors:0.7'; once more "
        "for another one",
    )  # fmt: skip


def parse_weights(arguments: argparse.Namespace) -> list[tuple[str, float]]:
    """(name, strength) of each --weights, in their order. No name ends in a colon and a number: those of models have no colon."""
    pairs = []
    for given in arguments.weights:
        name, colon, strength = given.rpartition(":")
        try:
            pairs.append((name, float(strength)) if colon else (given, 1.0))
        except ValueError as error:
            if not re.search(r"[/\\]", strength):  # of an address, or of a path behind its drive
                raise InputError(
                    f"'--weights {given[:200]}' takes a number as the strength behind the colon, such as {name[:100]}:0.7."
                ) from error
            pairs.append((given, 1.0))
    return pairs


def add_execution(parser: argparse.ArgumentParser) -> None:
    """--precision and --device."""
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the language model (%(default)s)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")


def model_store(arguments: argparse.Namespace) -> ModelStore:
    """The models of --models, and any path."""
    return ModelStore([arguments.models / "musicgen"], allow_paths=True)
