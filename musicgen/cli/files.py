"""Commands on files of weights: convert, inspect, evaluate."""

import argparse
import functools
import subprocess
import sys
from pathlib import Path

from ..checkpoints.tools.convert import PRECISIONS, convert, convert_diffusion, find_text_encoder
from ..checkpoints.tools.inspect import describe
from ..diffusion.checkpoint import open_diffusion
from ..errors import InputError
from ..store import ModelStore
from ..store.sniff import kind_of
from .console import Progress

_ROOT = Path(__file__).resolve().parents[2]


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


def add_evaluate(parser: argparse.ArgumentParser, models: Path) -> None:
    """The arguments of `evaluate`."""
    parser.set_defaults(run=_evaluate)
    parser.add_argument("model", metavar="FILE_OR_FOLDER", help="of a checkpoint, or a name below --models")
    parser.add_argument("--models", type=Path, default=models, metavar="DIR", help="models folder (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), metavar="DIR", help="for report and pictures")
    parser.add_argument("--prompts", type=int, default=64, metavar="N", help="of each kind (%(default)s)")
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="to look for collapse (%(default)s)")


def _store(arguments: argparse.Namespace) -> ModelStore:
    return ModelStore([arguments.models / "musicgen"], allow_paths=True)


def _convert(arguments: argparse.Namespace) -> None:
    store = _store(arguments)
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


def _inspect(arguments: argparse.Namespace) -> None:
    store = _store(arguments)
    path = store.find(arguments.path)
    print(path)
    for what, value in describe(path, store.dirs):
        print(f"  {what:<15} {value}")


def _evaluate(arguments: argparse.Namespace) -> int:
    """Handed over to the recipe, which has the synthesizer that asks and the critic that listens: the engine has neither."""
    path = _store(arguments).find(arguments.model)
    if not (_ROOT / "training" / "__main__.py").is_file():
        raise InputError(f"'evaluate' needs the folder {_ROOT / 'training'}, which this copy of the project lacks")
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
    command += ["--text-encoders", str((arguments.models / "text_encoders").absolute())]
    return subprocess.run(command, cwd=_ROOT, check=False).returncode
