"""python -m musicgen predict: the fields of the Replicate models as options."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..replicate.contracts import CONTRACTS, DEFAULT_MODEL, PANSORI, contract
from ..replicate.fields import Field, parse_field
from ..replicate.predict import predict
from ..store.published import DIFFUSION_MODEL
from .console import Progress
from .options import add_execution, add_models

MODEL_HELP = f"checkpoint, or a name below --models ({PANSORI}: {DEFAULT_MODEL}; else the weights of --model-version)"


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `predict`: one a field, under its own name (with - or _), and where models are."""
    parser.set_defaults(run=run)
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of input and output, and stop")
    parser.add_argument("--model", metavar="DIR_OR_NAME", help=MODEL_HELP)
    add_models(parser, models)
    parser.add_argument(
        "--diffusion", default=DIFFUSION_MODEL, metavar="FILE_OR_NAME",
        help="the model that --multi-band-diffusion decodes with (%(default)s)",
    )  # fmt: skip
    add_execution(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="the audio file; default: the next free musicgen-N. A second one stands beside it: FILE-background_synced",
    )  # fmt: skip
    add_fields(parser)


def add_fields(parser: argparse.ArgumentParser) -> None:
    """--version, and the fields of all contracts as options, each once."""
    parser.add_argument(
        "--version", choices=CONTRACTS, default=PANSORI, help="the Replicate model whose fields are taken (%(default)s)"
    )
    owners: dict[str, list[str]] = {}
    for version, each in CONTRACTS.items():
        for name in each.request.fields():
            owners.setdefault(name, []).append(version)
    groups: dict[str, Any] = {}
    for name, versions in owners.items():
        title = "fields of all versions" if len(versions) == len(CONTRACTS) else f"fields of {', '.join(versions)}"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        kinds = {version: CONTRACTS[version].request.fields()[name] for version in versions}
        groups[title].add_argument(
            *dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")),
            dest=name, default=argparse.SUPPRESS, help=_help(kinds), **_form(list(kinds.values())),
        )  # fmt: skip


def _help(kinds: dict[str, Field]) -> str:
    """What a field means, and its default in each version that has another than the first."""
    (_, kind), *others = kinds.items()
    defaults = [f"{version}: {other.default}" for version, other in others if other.default != kind.default]
    return f"{kind.description} ({', '.join([str(kind.default), *defaults])})".replace("%", "%%")


def _form(kinds: list[Field]) -> dict[str, Any]:
    """How an option is read. Choices that differ between versions are left to the contract."""
    if kinds[0].type == "boolean":
        return {"nargs": "?", "const": "true", "choices": ("true", "false")}
    choices = {kind.choices for kind in kinds}
    return {"metavar": kinds[0].type.upper(), "choices": kinds[0].choices if len(choices) == 1 else None}


def parse_fields(arguments: argparse.Namespace) -> dict:
    """Fields on the command line, in their own types.

    InputError for a text that is no number, and for a field that the version lacks.
    """
    fields = contract(arguments.version).request.fields()
    names = dict.fromkeys(name for each in CONTRACTS.values() for name in each.request.fields())
    texts = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    for name in texts:
        if name not in fields:
            raise InputError(
                f"'--version {arguments.version}' has no field {name!r}. Its fields are {', '.join(fields)}."
            )
    return {name: parse_field(fields[name], name, text) for name, text in texts.items()}


def run(arguments: argparse.Namespace) -> None:
    """Print the files' paths; their seed goes to standard error."""
    if arguments.schema:
        print(json.dumps(contract(arguments.version).schema(), indent=2))
        return
    with Progress() as on_progress:
        prediction = predict(
            version=arguments.version,
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
    for file in prediction.files:
        print(file)
