"""python -m musicgen convert: one safetensors file of a checkpoint."""

import argparse
import functools
from pathlib import Path

from ..checkpoints.tools.convert import PRECISIONS, convert, convert_diffusion
from ..diffusion.checkpoint import open_diffusion
from ..store.sniff import kind_of
from ..store.text_encoders import find_text_encoder
from .console import Progress
from .options import add_models, model_store


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `convert`."""
    parser.set_defaults(run=run)
    parser.add_argument("source", metavar="SRC", help="folder or file of a checkpoint, or a name below --models")
    parser.add_argument("target", type=Path, metavar="DST.safetensors")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the matrices of the language model or the diffusion; by itself as they are stored",
    )
    parser.add_argument("--no-text-encoder", action="store_true", help="leave the text encoder out: a smaller file")
    add_models(parser, models)


def run(arguments: argparse.Namespace) -> None:
    """Write the file, and print its path."""
    store = model_store(arguments)
    source = store.find(arguments.source)
    if kind_of(source) == "diffusion":
        with Progress() as on_progress:
            on_step = functools.partial(on_progress, "converting")
            convert_diffusion(open_diffusion(source), arguments.target, arguments.precision, on_step)
        print(arguments.target)
        return
    checkpoint = store.open(source)
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
