"""Commands on files of weights: convert, inspect."""

import argparse
import functools
from pathlib import Path

from .checkpoints import open_checkpoint
from .checkpoints.convert import PRECISIONS, convert, convert_diffusion, find_text_encoder
from .checkpoints.describe import describe
from .checkpoints.diffusion import open_diffusion
from .checkpoints.locate import kind_of, resolve
from .console import Progress


def add_convert(parser: argparse.ArgumentParser, models: Path) -> None:
    """The arguments of `convert`."""
    parser.set_defaults(run=_convert)
    parser.add_argument("source", metavar="SRC", help="folder or file of a checkpoint, or a name below --models")
    parser.add_argument("target", type=Path, metavar="DST.safetensors")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the matrices of the language model or the diffusion; by itself as they are stored",
    )
    parser.add_argument("--no-text-encoder", action="store_true", help="leave the text encoder out: a smaller file")
    parser.add_argument("--models", type=Path, default=models, metavar="DIR", help="models folder (%(default)s)")


def add_inspect(parser: argparse.ArgumentParser, models: Path) -> None:
    """The arguments of `inspect`."""
    parser.set_defaults(run=_inspect)
    parser.add_argument("path", metavar="FILE_OR_FOLDER", help="of a checkpoint, or a name below --models")
    parser.add_argument("--models", type=Path, default=models, metavar="DIR", help="models folder (%(default)s)")


def _convert(arguments: argparse.Namespace) -> None:
    dirs = [arguments.models / "musicgen"]
    source = resolve(arguments.source, dirs, allow_paths=True)
    if kind_of(source) == "diffusion":
        with Progress() as on_progress:
            on_step = functools.partial(on_progress, "converting")
            convert_diffusion(open_diffusion(source), arguments.target, arguments.precision, on_step)
        print(arguments.target)
        return
    checkpoint = open_checkpoint(source, codec_dirs=dirs)
    text_encoder = None
    if not arguments.no_text_encoder:
        text_encoder = find_text_encoder(checkpoint, [arguments.models / "text_encoders"])
    with Progress() as on_progress:
        on_step = functools.partial(on_progress, "converting")
        convert(checkpoint, arguments.target, arguments.precision, text_encoder, on_step)
    print(arguments.target)
    if text_encoder is None:
        left_out = "as asked" if arguments.no_text_encoder else "because it was not found on this machine"
        print(f"without the text encoder {checkpoint.config.text.name}, {left_out}")


def _inspect(arguments: argparse.Namespace) -> None:
    dirs = [arguments.models / "musicgen"]
    path = resolve(arguments.path, dirs, allow_paths=True)
    print(path)
    for what, value in describe(path, dirs):
        print(f"  {what:<15} {value}")
