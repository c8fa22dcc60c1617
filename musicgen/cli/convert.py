"""python -m musicgen convert: one safetensors file of a checkpoint, with fine-tunes merged into it; or an adapter of a fine-tune."""

import argparse
import functools
import sys
from pathlib import Path

from ..checkpoints import Checkpoint, merge, open_checkpoint, open_fine_tune
from ..checkpoints.tools.convert import PRECISIONS, convert, convert_diffusion
from ..checkpoints.tools.extract import RANK, extract
from ..diffusion.checkpoint import open_diffusion
from ..errors import InputError
from ..store import ModelStore
from ..store.sniff import kind_of
from ..store.text_encoders import find_text_encoder
from .console import Progress
from .options import add_models, add_weights, model_store, parse_weights


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
    add_weights(parser, "merge into the model")
    parser.add_argument(
        "--base", metavar="DIR_OR_NAME",
        help="make a LoRA of SRC, a whole fine-tune of this model; DST is then a .safetensors file, or a folder as PEFT has it",
    )  # fmt: skip
    parser.add_argument(
        "--rank", type=int, default=None, metavar="N", help=f"of that LoRA ({RANK}): more is larger, and loses less"
    )
    add_models(parser, models)


def run(arguments: argparse.Namespace) -> None:
    """Write the file, and print its path."""
    store = model_store(arguments)
    source = store.find(arguments.source, "weights")
    if kind_of(source) == "diffusion":
        with Progress() as on_progress:
            on_step = functools.partial(on_progress, "converting")
            convert_diffusion(open_diffusion(source), arguments.target, arguments.precision, on_step)
        print(arguments.target)
        return
    if arguments.base is not None:
        _extract(arguments, store, source)
        return
    if arguments.rank is not None:
        raise InputError(
            "'--rank' belongs to a LoRA that is made of a fine-tune. Give the fine-tune's base by '--base' too."
        )
    checkpoint = store.open(source)
    text_encoder = None
    if not arguments.no_text_encoder:
        text_encoder = find_text_encoder(checkpoint, [arguments.models / "text_encoders"])
    for name, strength in parse_weights(arguments):
        path = store.find(name, "weights")
        checkpoint, text_encoder = merge(checkpoint, text_encoder, open_fine_tune(path, checkpoint), strength)
    with Progress() as on_progress:
        on_step = functools.partial(on_progress, "converting")
        convert(checkpoint, arguments.target, arguments.precision, text_encoder, on_step)
    print(arguments.target)
    if text_encoder is None:
        left_out = "as asked" if arguments.no_text_encoder else "because it was not found on this machine"
        print(f"without the text encoder {checkpoint.config.text.name}, {left_out}")


def _extract(arguments: argparse.Namespace, store: ModelStore, source: Path) -> None:
    """Write the adapter, and print its path; what it loses goes to standard error."""
    if arguments.weights or arguments.precision or arguments.no_text_encoder:
        raise InputError(
            "'--base' makes a LoRA of SRC alone. Leave '--weights', '--precision' and '--no-text-encoder' away."
        )
    base = open_checkpoint(store.find(arguments.base), codec_required=False)
    tuned = open_fine_tune(source, base)
    if not isinstance(tuned, Checkpoint):
        raise InputError(f"{source} is a LoRA already. Give a whole fine-tune.")
    with Progress() as on_progress:
        on_step = functools.partial(on_progress, "extracting")
        rank = RANK if arguments.rank is None else arguments.rank
        extracted = extract(tuned, base, arguments.target, rank, on_step)
    print(extracted, file=sys.stderr)
    print(arguments.target)
