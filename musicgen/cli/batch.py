"""python -m musicgen batch: a clip for each row of a table."""

import argparse
import contextlib
import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..batch.dispatch import Outcome, dispatch
from ..batch.fields import FieldRecipe
from ..batch.manifest import FILE, Manifest
from ..batch.rows import Job, Recipe, read_jobs
from ..batch.workers import Lane, engine_lanes
from ..errors import InputError
from ..store.published import DEFAULT, DIFFUSION_MODEL
from .console import RowProgress
from .folders import PACK
from .options import add_execution, add_model, add_models, model_store

DESCRIPTION = f"""\
Makes a clip for each row of a table, into a folder with {FILE}: seed, checksum, fields and versions of each.

Columns are the fields of 'predict' (prompt, duration, seed, ...: predict --schema), 'model', and 'name' of the file. With
--workflow they are NODE.INPUT, such as MusicGenText.text, and 'name'; a file named in LoadAudio.audio is uploaded. An empty cell
is the default. An empty seed, or -1, becomes one derived from the row: the same table gives the same music. Equal rows
are different takes. Relative paths of clips begin at the table's folder. Rows are counted as a spreadsheet counts
them, the header being row 1. All rows are checked before anything is made.

Once more, the command makes only what is missing or damaged. Ctrl-C keeps what is done."""

EPILOG = """\
Exit codes: 0 every row is there, 1 some rows failed (each is named with its reason) or the table is wrong, 2 wrong usage,
130 Ctrl-C."""


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `batch`."""
    parser.set_defaults(run=run)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("rows", type=Path, metavar="ROWS", help="the table: CSV, or JSON Lines (.jsonl)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the clips; made if absent")
    parser.add_argument("--encoding", metavar="NAME", help="of a CSV that is not UTF-8: cp949, cp1252, ...")
    parser.add_argument("--check", action="store_true", help="check all rows, say what there is to make, and stop")
    add_model(parser, DEFAULT)
    add_models(parser, models)
    parser.add_argument(
        "--diffusion", default=DIFFUSION_MODEL, metavar="FILE_OR_NAME",
        help="the model that rows with multi_band_diffusion decode with (%(default)s)",
    )  # fmt: skip
    add_execution(parser)
    parser.add_argument(
        "--threads", type=_count, metavar="N",
        help="of each worker on a CPU; the last bits of the sound depend on it (all cores; on Ray, the worker's)",
    )  # fmt: skip
    several = parser.add_argument_group("several workers")
    several.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS",
        help="make the rows on Ray: on this machine, or on the cluster at ADDRESS (auto, or HOST:6379), whose machines "
        "find --models, and clips of the rows, at the same paths",
    )  # fmt: skip
    several.add_argument(
        "--workers", type=_count, metavar="N",
        help="how many on Ray; each loads the model (one a GPU; without GPUs one for two cores)",
    )  # fmt: skip
    several.add_argument(
        "--server", nargs="+", action="extend", default=[], metavar="HOST:PORT",
        help="queue the rows on running ComfyUIs, one at a time on each; with --ray, by workers there",
    )  # fmt: skip
    several.add_argument(
        "--workflow", type=Path, metavar="FILE",
        help="the rows change inputs of this workflow in API format (with --server, or on the ComfyUI of this machine)",
    )  # fmt: skip


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Print the path of each file; progress and summary go to standard error."""
    _check_options(arguments)
    jobs = read_jobs(arguments.rows, _recipe(arguments), arguments.encoding)
    jobs = _grouped(jobs)
    with Manifest.open(arguments.out) as manifest:
        manifest.check_free(jobs)
        missing = []
        for job in jobs:
            files = manifest.done(job)
            for file in files or []:
                print(file)
            missing += [] if files else [job]
        if arguments.check or not missing:
            _say(f"{len(jobs)} rows: {len(jobs) - len(missing)} are there, {len(missing)} to be made")
            return 0
        return _make(arguments, manifest, missing, len(jobs))


def _check_options(arguments: argparse.Namespace) -> None:
    """InputError for options that contradict one another."""
    on_server = bool(arguments.server or arguments.workflow)
    if arguments.workers and arguments.ray is None:
        raise InputError("'--workers' is for --ray. Without it the rows are made one after another.")
    if arguments.workers and on_server:
        raise InputError("'--workers' is for rows that are made here: with --server there is one worker a server.")
    if on_server and (arguments.threads or arguments.device != "auto"):
        raise InputError("'--threads' and '--device' are the server's own: ComfyUI is started with them.")
    if arguments.workflow and (arguments.model != DEFAULT or arguments.precision != "auto"):
        raise InputError(
            "'--model' and '--precision' are the workflow's own. Change them by a column: MusicGenLoader.model"
        )


def _recipe(arguments: argparse.Namespace) -> Recipe:
    if arguments.workflow:
        return _clients().WorkflowRecipe(arguments.workflow, arguments.rows.parent)
    store = None if arguments.server else model_store(arguments)
    return FieldRecipe(
        arguments.model, arguments.precision, arguments.diffusion, arguments.rows.parent.absolute(), store
    )


def _grouped(jobs: Sequence[Job]) -> list[Job]:
    """The jobs of one model after another's, so that each model is loaded once."""
    first = {job.group: number for number, job in reversed(list(enumerate(jobs)))}
    return sorted(jobs, key=lambda job: first[job.group])


def _clients() -> ModuleType:
    """clients/batch.py, which stands on the engine as ComfyUI's nodes do: loaded by name where a server is asked for."""
    if not (PACK / "clients" / "batch.py").is_file():
        raise InputError(f"'--server' needs the folder {PACK / 'clients'}, which this copy of the project lacks")
    prefix = (__package__ or "").removesuffix("musicgen.cli")
    return importlib.import_module(f"{prefix}clients.batch")


@contextlib.contextmanager
def _lanes(arguments: argparse.Namespace, progress: "RowProgress") -> Iterator[Sequence[Lane]]:
    """The workers that the options ask for."""
    servers = arguments.server or (["127.0.0.1:8188"] if arguments.workflow else [])
    models = str(arguments.models.absolute())
    if arguments.ray is not None:
        from ..batch import on_ray

        made = (
            on_ray.server_lanes(arguments.ray, servers)
            if servers
            else on_ray.engine_lanes(
                arguments.ray, arguments.workers, arguments.threads, models=models, device=arguments.device
            )
        )
    elif servers:
        made = _clients().server_lanes(servers)
    else:
        made = engine_lanes(
            models=models, device=arguments.device, threads=arguments.threads, on_progress=progress.stage
        )
    with made as lanes:
        yield lanes


def _make(arguments: argparse.Namespace, manifest: Manifest, jobs: Sequence[Job], n_rows: int) -> int:
    begun, failed, n_made = time.monotonic(), [], 0
    try:
        with RowProgress(n_rows, n_rows - len(jobs)) as progress, _lanes(arguments, progress) as lanes:
            for outcome in dispatch(jobs, lanes):
                if outcome.error is None:
                    for file in _save(manifest, outcome):
                        progress.print(file)
                    n_made += 1
                else:
                    failed.append(outcome)
                progress.row(len(failed))
    except KeyboardInterrupt:
        n_left = len(jobs) - n_made
        _say(f"stopped: {n_rows - n_left} of {n_rows} rows are in {arguments.out}; the same command makes the others")
        return 130
    took_s = time.monotonic() - begun
    _say(
        f"{n_rows} rows: {n_made} made in {took_s:.1f} s ({60 * n_made / took_s:.1f} a minute), "
        f"{n_rows - len(jobs)} were there, {len(failed)} failed"
    )
    for outcome in sorted(failed, key=lambda outcome: outcome.job.row):
        _say(f"row {outcome.job.row}: {outcome.error}")
    return 1 if failed else 0


def _save(manifest: Manifest, outcome: Outcome) -> list[Path]:
    details: dict[str, Any] = {"made_by": outcome.made_by, "worker": outcome.worker, "took_s": outcome.took_s}
    return manifest.save(outcome.job, outcome.files, **details)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
