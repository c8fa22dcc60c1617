"""python -m musicgen predict: the fields of the Replicate model as options."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..replicate.predict import DEFAULT_MODEL, FIELDS, parse_field, predict, schema
from ..store.published import DIFFUSION_MODEL
from .console import Progress
from .options import add_execution, add_model, add_models


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `predict`: one a field, under its own name (with - or _), and where models are."""
    parser.set_defaults(run=run)
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of input and output, and stop")
    add_model(parser, DEFAULT_MODEL)
    add_models(parser, models)
    parser.add_argument(
        "--diffusion", default=DIFFUSION_MODEL, metavar="FILE_OR_NAME",
        help="the model that --multi-band-diffusion decodes with (%(default)s)",
    )  # fmt: skip
    add_execution(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the audio file; default: the next free musicgen-N")
    add_fields(parser)


def add_fields(parser: argparse.ArgumentParser) -> None:
    """The 15 fields as options."""
    group = parser.add_argument_group("fields")
    for name, field in FIELDS.items():
        options: dict[str, Any] = {
            "dest": name,
            "default": argparse.SUPPRESS,
            "help": f"{field.description} ({field.default})",
        }
        if field.type == "boolean":
            options |= {"nargs": "?", "const": "true", "choices": ("true", "false")}
        else:
            options |= {"metavar": field.type.upper(), "choices": field.choices}
        group.add_argument(*dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")), **options)


def parse_fields(arguments: argparse.Namespace) -> dict:
    """Fields on the command line, in their own types. InputError for a text that is no number."""
    texts = {name: getattr(arguments, name) for name in FIELDS if hasattr(arguments, name)}
    return {name: parse_field(name, text) for name, text in texts.items()}


def run(arguments: argparse.Namespace) -> None:
    """Print the file's path; its seed goes to standard error."""
    if arguments.schema:
        print(json.dumps(schema(), indent=2))
        return
    with Progress() as on_progress:
        prediction = predict(
            model=arguments.model,
            models_dir=arguments.models,
            out=arguments.out,
            precision=arguments.precision,
            device=arguments.device,
            diffusion=arguments.diffusion,
            on_progress=on_progress,
            **parse_fields(arguments),
        )
    print(f"seed: {prediction.seed}", file=sys.stderr)
    print(prediction.file)
