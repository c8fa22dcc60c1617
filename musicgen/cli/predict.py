"""python -m musicgen predict: the fields of the Replicate model as options."""

import argparse
import json
import sys
from pathlib import Path

from ..config import PRECISIONS
from ..errors import InputError
from ..replicate.predict import DEFAULT_MODEL, FIELDS, predict, schema
from ..store.published import DIFFUSION_MODEL
from .console import Progress, check_folder


def add(parser: argparse.ArgumentParser, models_dir: Path) -> None:
    """Give `parser` an option a field, under its own name (with - or _), and where models are."""
    parser.set_defaults(run=_run)
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of input and output, and stop")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="DIR_OR_NAME", help="the default model (%(default)s)")
    parser.add_argument("--models", type=Path, default=models_dir, metavar="DIR", help="models folder (%(default)s)")
    parser.add_argument(
        "--diffusion", default=DIFFUSION_MODEL, metavar="FILE_OR_NAME",
        help="the model that --multi-band-diffusion decodes with (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the audio file; default: the next free musicgen-N")
    add_fields(parser)


def add_fields(parser: argparse.ArgumentParser) -> None:
    """The 15 fields as options."""
    group = parser.add_argument_group("fields")
    for name, field in FIELDS.items():
        options = {"dest": name, "default": argparse.SUPPRESS, "help": f"{field.description} ({field.default})"}
        if field.type == "boolean":
            options |= {"nargs": "?", "const": "true", "choices": ("true", "false")}
        else:
            options |= {"metavar": field.type.upper(), "choices": field.choices}
        group.add_argument(*dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")), **options)


def given_fields(arguments: argparse.Namespace) -> dict:
    """The fields that were given, in their own types. InputError for a text that is no number."""
    given = {name: getattr(arguments, name) for name in FIELDS if hasattr(arguments, name)}
    return {name: _value(name, text) for name, text in given.items()}


def _value(name: str, text: str) -> object:
    kind = FIELDS[name].type
    if kind == "boolean":
        return text == "true"
    if kind == "string":
        return text
    try:
        return int(text) if kind == "integer" else float(text)
    except ValueError:
        noun = "a whole number" if kind == "integer" else "a number"
        raise InputError(f"'{name}' must be {noun}, got {text!r}") from None


def _run(arguments: argparse.Namespace) -> None:
    if arguments.schema:
        print(json.dumps(schema(), indent=2))
        return
    if arguments.out:
        check_folder(arguments.out)
    with Progress() as on_progress:
        made = predict(
            model=arguments.model,
            models_dir=arguments.models,
            out=arguments.out,
            precision=arguments.precision,
            device=arguments.device,
            diffusion=arguments.diffusion,
            on_progress=on_progress,
            **given_fields(arguments),
        )
    print(f"seed: {made.seed}", file=sys.stderr)
    print(made.file)
