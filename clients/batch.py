"""Rows of `python -m musicgen batch` on running ComfyUIs: the graph of the fields, or a workflow whose inputs the rows change."""

import asyncio
import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .comfyui import ClientError, Prompt, Server, ServerError, WorkflowError, find_node, load_workflow, parse_value
from .comfyui import with_input as changed
from .predict import graph

if __package__ == "clients":  # started from the pack's own folder
    from musicgen.batch.rows import NAME, Reading
    from musicgen.batch.table import TableRow, check_columns
    from musicgen.batch.workers import Files, WorkerAwayError, failure
    from musicgen.errors import InputError
    from musicgen.replicate.contracts import PansoriRequest
    from musicgen.store.published import DIFFUSION_MODEL
else:
    from ..musicgen.batch.rows import NAME, Reading
    from ..musicgen.batch.table import TableRow, check_columns
    from ..musicgen.batch.workers import Files, WorkerAwayError, failure
    from ..musicgen.errors import InputError
    from ..musicgen.replicate.contracts import PansoriRequest
    from ..musicgen.store.published import DIFFUSION_MODEL

logger = logging.getLogger(__name__)

_SEEDS = ("seed", "noise_seed")
_UPLOADED = ("LoadAudio", "audio")
_ANSWER_S = 15.0  # that a server which is up takes to say so, at work too
_CANCEL_S = 10.0  # that servers have to take their prompts back


class WorkflowRecipe:
    """Columns are NODE.INPUTs of a workflow in API format, and `name`."""

    def __init__(self, path: Path, folder: Path) -> None:
        """folder: where relative paths of clips begin. InputError for a file that is no such workflow."""
        self._title, self._folder = path.stem, folder
        self._targets: dict[str, tuple[str, str]] = {}  # column -> (node's id, input)
        try:
            self._prompt = load_workflow(path)
        except ClientError as error:
            raise InputError(str(error)) from error

    def check(self, columns: Sequence[str]) -> None:
        """An input that the workflow leaves out, or has wired, is no column: ComfyUI would ignore a misspelt one."""
        targets = {column: self._target(column) for column in columns if column != NAME}
        self._targets = {column: target for column, target in targets.items() if target}
        check_columns(columns, [*self._targets, *self._known(), NAME] if len(self._targets) < len(targets) else columns)
        columns_of = {}
        for column, target in self._targets.items():
            other = columns_of.setdefault(target, column)
            if other != column:
                raise InputError(f"the columns {other!r} and {column!r} are the same input. Leave one.")

    def _target(self, column: str) -> tuple[str, str] | None:
        node, _, name = column.rpartition(".")
        with contextlib.suppress(WorkflowError):
            id = find_node(self._prompt, node)
            if name in self._prompt[id]["inputs"] and not isinstance(self._prompt[id]["inputs"][name], list):
                return id, name
        return None

    def _known(self) -> list[str]:
        """The columns that the workflow offers: by the node's class, or by its id where several have that class."""
        classes = [node["class_type"] for node in self._prompt.values()]
        return [
            f"{node['class_type'] if classes.count(node['class_type']) == 1 else id}.{name}"
            for id, node in self._prompt.items()
            for name, value in node["inputs"].items()
            if not isinstance(value, list)
        ]

    def read(self, row: TableRow) -> Reading:
        prompt, identity, uploads, seeds, words = self._prompt, self._prompt, {}, [], []
        for column, (id, name) in self._targets.items():
            cell = row.cells.get(column)
            value = parse_value(cell) if row.is_text and cell is not None else cell
            if isinstance(value, (list, dict)):
                raise InputError(f"'{column}' must be a number, a text, true or false, got {json.dumps(value)[:80]}")
            if name in _SEEDS and value in (None, -1):
                seeds.append(f"{id}.{name}")
                identity = changed(identity, seeds[-1], None)
            elif value is not None:
                prompt, identity = (changed(each, f"{id}.{name}", value) for each in (prompt, identity))
                words += [value] if isinstance(value, str) else []
            clip = self._folder / str(value)
            if (prompt[id]["class_type"], name) == _UPLOADED and value is not None and clip.is_file():
                uploads[f"{id}.{name}"] = str(clip.absolute())
                identity = changed(identity, f"{id}.{name}", hashlib.sha256(clip.read_bytes()).hexdigest())

        def task(seed: int) -> dict[str, Any]:
            filled = prompt
            for target in seeds:
                filled = changed(filled, target, seed)
            return {"workflow": filled, "uploads": uploads}

        given = None if seeds else _seed_of(prompt)
        return Reading({"workflow": identity}, {}, given, max(words, key=len, default=self._title), "", task)


def _seed_of(prompt: Prompt) -> int:
    """The first seed of a workflow; 0 where it has none."""
    values = (node["inputs"].get(name) for node in prompt.values() for name in _SEEDS)
    return next((value for value in values if isinstance(value, int)), 0)


class ServerWorker:
    """Makes tasks of fields or of a workflow on one ComfyUI."""

    def __init__(self, address: str) -> None:
        self.address = address

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        return asyncio.run(self.answer(task))

    async def answer(self, task: dict[str, Any]) -> dict[str, Any]:
        """As EngineWorker.run. Being cancelled takes the prompt back from the server."""
        begun = time.perf_counter()
        try:
            files, made_by = await self._make(task)
        except Exception as error:  # a row that fails must not stop the others
            return failure(error)
        return {"files": files, "made_by": made_by, "took_s": round(time.perf_counter() - begun, 3)}

    async def _make(self, task: dict[str, Any]) -> tuple[Files, dict[str, Any]]:
        made_by = await about(self.address)
        prompt, uploads = _prompt_of(task)
        try:
            async with Server(self.address) as comfy:
                for target, path in uploads.items():
                    prompt = changed(prompt, target, await comfy.upload(path))
                result = await comfy.run(prompt)
                # In the order of their nodes, which run in another one where some were cached.
                saved = replace(result, outputs=dict(sorted(result.outputs.items()))).saved
                with TemporaryDirectory(prefix="musicgen-") as folder:
                    paths = await comfy.download((file for file in saved if file.get("type") == "output"), folder)
                    files = [(path.suffix.lower(), path.read_bytes()) for path in paths]
        except ServerError as error:
            raise WorkerAwayError(str(error), lost=True) from error
        except ClientError as error:
            raise InputError(str(error)) from error
        if not files:
            raise InputError("the workflow ran, but saved no file: it needs a node such as Save Audio File.")
        return files, made_by


async def about(address: str) -> dict[str, Any]:
    """What a server says of itself. WorkerAwayError where it does not answer."""
    try:
        async with Server(address) as comfy:
            system = (await asyncio.wait_for(comfy.call("/system_stats"), _ANSWER_S))["system"]
    except (ServerError, asyncio.TimeoutError, ValueError, KeyError, TypeError) as error:
        raise WorkerAwayError(str(error) or f"{address} does not answer", lost=False) from error
    names = ("comfyui_version", "pytorch_version", "python_version", "os")
    return {"server": address, **{name: system[name] for name in names if name in system}}


def _prompt_of(task: dict[str, Any]) -> tuple[Prompt, dict[str, str]]:
    """(workflow, {NODE.INPUT: file to upload}) of a task."""
    if "workflow" in task:
        return task["workflow"], task["uploads"]
    request = PansoriRequest.of(task["fields"])
    prompt = graph(request, task["model"], task.get("diffusion", DIFFUSION_MODEL))
    prompt = changed(prompt, "loader.precision", task["precision"])
    return prompt, {"clip.audio": request.input_audio} if request.input_audio is not None else {}


@dataclass(frozen=True)
class ServerLane:
    """A server as the dispatcher sees it."""

    name: str
    worker: ServerWorker
    loop: asyncio.AbstractEventLoop

    def start(self, task: dict[str, Any]) -> "Future[dict[str, Any]]":
        return asyncio.run_coroutine_threadsafe(self.worker.answer(task), self.loop)


@contextlib.contextmanager
def server_lanes(addresses: Sequence[str]) -> Iterator[list[ServerLane]]:
    """A lane a server. What they are at is cancelled at the end of the block. InputError if no server answers."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers", daemon=True)
    thread.start()

    def wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    try:
        addresses = list(dict.fromkeys(addresses))
        wait_for(_check_answering(addresses))
        yield [ServerLane(address, ServerWorker(address), loop) for address in addresses]
    finally:
        wait_for(_cancel_all())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _check_answering(addresses: Sequence[str]) -> None:
    """InputError if none answers. One that does not is named, and asked again later."""
    replies = await asyncio.gather(*map(about, addresses), return_exceptions=True)
    away = [str(reply) for reply in replies if isinstance(reply, WorkerAwayError)]
    if len(away) == len(addresses):
        raise InputError("no server answers:\n  " + "\n  ".join(away))
    for message in away:
        logger.warning("%s It is asked again from time to time.", message)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CANCEL_S)
