"""Queue an API-format workflow on a running ComfyUI, follow it, download what it saved.

    python -m clients.comfyui workflows/api/text_to_music.json --set MusicGenText.text="calm piano" --out results

Uses nothing of the pack, and of ComfyUI only its HTTP and websocket interface. For programs, `run` does it all.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import sys
import tempfile
import uuid
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import aiohttp

Prompt = dict[str, dict[str, Any]]
OnEvent = Callable[[str, dict[str, Any]], None]

DEFAULT_SERVER = "127.0.0.1:8188"
CONNECT_TIMEOUT_S = 10.0


class ClientError(Exception):
    """Base of what can go wrong. `exit_code` is the command's."""

    exit_code = 1


class WorkflowError(ClientError):  # The workflow file, or a change to it, makes no sense.
    exit_code = 2


class ServerError(ClientError):  # No ComfyUI there, or it went away.
    exit_code = 3


class RejectedError(ClientError):  # ComfyUI refused the workflow.
    exit_code = 4


class NodeError(ClientError):  # A node failed.
    exit_code = 5


class InterruptedRunError(ClientError):  # Someone pressed Cancel on the server.
    exit_code = 6


@dataclass
class Result:
    """What a finished prompt did."""

    prompt_id: str
    outputs: dict[str, dict[str, list]] = field(default_factory=dict)  # node id -> what it showed
    executed: list[str] = field(default_factory=list)  # ids of nodes that ran, in order
    cached: list[str] = field(default_factory=list)  # ids of nodes whose results were there already

    @property
    def saved(self) -> list[dict[str, str]]:
        """Files in the output folder, or the previews where no node saves one: {"filename", "subfolder", "type"}."""
        groups = (group for output in self.outputs.values() for group in output.values() if isinstance(group, list))
        files = [item for group in groups for item in group if isinstance(item, dict) and "filename" in item]
        return [file for file in files if file.get("type") == "output"] or files


def load_workflow(path: str | os.PathLike) -> Prompt:
    """Read an API-format workflow. WorkflowError if it is not one."""
    prompt = _read_json(path)
    if isinstance(prompt, dict) and isinstance(prompt.get("nodes"), list):
        raise WorkflowError(f"{path} is in graph format. Export it with File > Export (API), or see workflows/api.")
    if not isinstance(prompt, dict) or not prompt or not all(_is_node(node) for node in prompt.values()):
        raise WorkflowError(f"{path} is not a workflow in API format: it must map node ids to class_type and inputs.")
    return prompt


def _read_json(path: str | os.PathLike) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkflowError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise WorkflowError(f"{path} is not JSON: {error}") from error


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def find_node(prompt: Prompt, name: str) -> str:
    """Id of the node called `name`: its id, class or title. WorkflowError unless it is exactly one."""
    if name in prompt:
        return name
    found = [id for id, node in prompt.items() if name in (node["class_type"], node.get("_meta", {}).get("title"))]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{id} ({node['class_type']})" for id, node in prompt.items())
    what = f"{len(found)} nodes are called {name!r}, name one by its id" if found else f"no node is called {name!r}"
    raise WorkflowError(f"{what}. The workflow has: {known}")


def with_input(prompt: Prompt, target: str, value: Any) -> Prompt:
    """A copy of `prompt` with NODE.INPUT set to `value`."""
    name, dot, input_name = target.rpartition(".")
    if not dot or not name or not input_name:
        raise WorkflowError(f"{target!r} must be NODE.INPUT, for example MusicGenSampler.seed")
    id = find_node(prompt, name)
    node = {**prompt[id], "inputs": {**prompt[id]["inputs"], input_name: value}}
    return {**prompt, id: node}


def parse_value(text: str) -> Any:
    """A number, true, false, null or a quoted string as JSON has them; all else is plain text."""
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        return text if isinstance(value, (list, dict)) else value
    return text


def parse_upload(text: str) -> tuple[str | None, str]:
    """(NODE.INPUT, file) of [NODE.INPUT=]FILE. Either may contain "=": the first reading whose file exists counts."""
    readings = [(None, text), *((text[:at], text[at + 1 :]) for at, each in enumerate(text) if each == "=")]
    likeliest = readings[1] if len(readings) > 1 else readings[0]
    return next((reading for reading in readings if os.path.isfile(reading[1])), likeliest)


class Server:
    """One ComfyUI. Use as `async with Server(address) as server`."""

    def __init__(self, address: str = DEFAULT_SERVER) -> None:
        self.url = (address if "://" in address else f"http://{address}").rstrip("/")
        self.client_id = uuid.uuid4().hex

    async def __aenter__(self) -> "Server":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(None, sock_connect=CONNECT_TIMEOUT_S))
        return self

    async def __aexit__(self, *_) -> None:
        await self._session.close()

    @contextlib.asynccontextmanager
    async def _request(self, method: str, path: str, expected: int = 200, **options):
        with _server_errors(self.url):
            async with self._session.request(method, self.url + path, **options) as response:
                if response.status >= 400 and response.status != expected:
                    status = f"{response.status} {response.reason}"
                    raise ServerError(f"{response.url.origin()} answered {path} with {status}. Is it a ComfyUI?")
                yield response

    async def call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """JSON of a GET, or of a POST of `body`; None if the reply is empty."""
        async with self._request("POST" if body else "GET", path, json=body) as response:
            return json.loads(await response.text() or "null")

    async def upload(self, path: str | os.PathLike) -> str:
        """Copy a file into ComfyUI's input folder; its name there."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise WorkflowError(f"cannot read {path}: {error.strerror or error}") from error
        form = aiohttp.FormData(quote_fields=False)  # or a space would become %20 in the file's name
        form.add_field("image", content, filename=Path(path).name)  # the field has this name for audio too
        async with self._request("POST", "/upload/image", data=form) as response:
            reply = await response.json()
        return f"{reply['subfolder']}/{reply['name']}" if reply.get("subfolder") else reply["name"]

    async def queue(self, prompt: Prompt, graph: dict[str, Any] | None = None) -> str:
        """Queue a workflow; the prompt's id. `graph`, its graph format, goes into the files that it saves."""
        body: dict[str, Any] = {"prompt": prompt, "client_id": self.client_id}
        if graph is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": graph}}
        async with self._request("POST", "/prompt", expected=400, json=body) as response:
            reply = await response.json()
        if response.status == 400 or reply.get("node_errors"):
            if "prompt_id" in reply:
                await self.cancel(reply["prompt_id"])  # it would run without the branches that are wrong
            raise RejectedError(_describe_rejection(reply))
        return reply["prompt_id"]

    async def check_input(self, prompt: Prompt, target: str) -> None:
        """WorkflowError for a NODE.INPUT that this server's node does not have: ComfyUI would ignore it."""
        with_input(prompt, target, None)
        name, _, input_name = target.rpartition(".")
        type = prompt[find_node(prompt, name)]["class_type"]
        info = (await self.call(f"/object_info/{quote(type, safe='')}")).get(type)  # None: refused when it is queued
        known = [each for group in (info or {}).get("input", {}).values() for each in group]
        if info and input_name.partition(".")[0] not in known:
            raise WorkflowError(f"{type} has no input {input_name!r}. It has: {', '.join(known)}")

    async def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it if it is running."""
        await self.call("/queue", {"delete": [prompt_id]})
        if any(entry[1] == prompt_id for entry in (await self.call("/queue"))["queue_running"]):
            await self.call("/interrupt", {"prompt_id": prompt_id})

    async def run(self, prompt: Prompt, graph: dict[str, Any] | None = None, on_event: OnEvent | None = None) -> Result:
        """Queue a workflow and wait for its end. Being cancelled, or Ctrl-C, cancels it on the server too.

        on_event(type, data) gets each of ComfyUI's messages about it.
        """
        address, me = f"{self.url}/ws", {"clientId": self.client_id}
        with _server_errors(self.url):
            # Listening begins before queueing, or the first messages would be missed.
            async with self._session.ws_connect(address, params=me, heartbeat=60, max_msg_size=0) as socket:
                queued = asyncio.ensure_future(self.queue(prompt, graph))
                try:
                    return await self._follow(
                        socket, await asyncio.shield(queued), on_event or (lambda type, data: None)
                    )
                except asyncio.CancelledError:
                    with contextlib.suppress(ClientError):
                        await self.cancel(await queued)  # Ctrl-C may come before the server's answer
                    raise

    async def _follow(self, socket: AsyncIterable[Any], prompt_id: str, on_event: OnEvent) -> Result:
        result = Result(prompt_id)
        texts = (message.data async for message in socket if message.type is aiohttp.WSMsgType.TEXT)
        async for event in (json.loads(text) async for text in texts):
            type, data = event.get("type"), event.get("data") or {}
            if data.get("prompt_id") != prompt_id:
                continue
            on_event(type, data)
            if type == "execution_cached":
                result.cached = list(data["nodes"])
            elif type == "executing" and data["node"] is not None:
                result.executed.append(data["node"])
            elif type == "execution_error":
                reason = str(data.get("exception_message", "")).strip()
                raise NodeError(f"{data.get('node_type')} (node {data.get('node_id')}) failed: {reason}")
            elif type == "execution_interrupted":
                raise InterruptedRunError("The run was interrupted on the server.")
            elif type == "executing":
                entry = (await self.call(f"/history/{prompt_id}")).get(prompt_id) or {}
                if (status := entry.get("status") or {}).get("status_str") == "error":  # whose message was lost
                    raise NodeError(f"The workflow failed: {status.get('messages') or 'no reason given'}")
                result.outputs = entry.get("outputs") or {}
                return result
        raise ServerError(f"{self.url} went away before the workflow had finished. Is ComfyUI still running?")

    async def download(self, saved: Iterable[dict[str, str]], folder: str | os.PathLike) -> list[Path]:
        """Fetch saved files into `folder`, whole or not at all; their paths. No file that is there is replaced."""
        paths = []
        for item in saved:
            name = PurePosixPath(item["filename"].replace("\\", "/")).name or "file"
            params = {key: str(item.get(key, "")) for key in ("filename", "subfolder", "type")}
            async with self._request("GET", "/view", params=params) as response:
                content = await response.read()
            paths.append(_write_new(Path(folder) / name, content))
        return paths


def _write_new(path: Path, content: bytes) -> Path:
    """Write take.wav, or take-2.wav, take-3.wav, ... if there is one already; its path."""
    temporary, free, number = path.with_name(f".{uuid.uuid4().hex}.part"), path, 2
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        while True:
            with contextlib.suppress(FileExistsError):
                free.touch(exist_ok=False)  # reserves the name
                return temporary.replace(free)
            free, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    except (OSError, ValueError) as error:  # ValueError: a name that is none here
        raise ClientError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()


@contextlib.contextmanager
def _server_errors(url: str):
    try:
        yield
    except (aiohttp.ClientError, ConnectionError, TimeoutError, asyncio.TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise ServerError(f"No answer from ComfyUI at {url} ({reason}). Start it, or give another --server.") from error


def _describe_rejection(reply: dict[str, Any]) -> str:
    """ComfyUI's reply to a workflow that it refuses, as one line a problem."""
    lines = [
        f"  {node['class_type']} (node {id}): {error['message']}: {error['details']}"
        for id, node in (reply.get("node_errors") or {}).items()
        for error in node["errors"]
    ]
    if not lines:
        error = reply.get("error") or {}
        error = {"message": error} if isinstance(error, str) else error
        lines = [f"  {error.get('message', 'no reason given')} {error.get('details', '')}".rstrip()]
    return "\n".join(["ComfyUI refused the workflow:", *dict.fromkeys(lines)])


async def run(
    prompt: Prompt,
    server: str = DEFAULT_SERVER,
    out: str | os.PathLike | None = None,
    uploads: Sequence[tuple[str | None, str | os.PathLike]] = (),
    graph: dict[str, Any] | None = None,
    on_event: OnEvent | None = None,
    targets: Iterable[str] = (),
) -> tuple[Result, list[Path]]:
    """Upload, queue, follow, download: the result, and the files below `out` (none if it is None).

    uploads: (NODE.INPUT, file) pairs; None in place of NODE.INPUT means the workflow's only LoadAudio.
    targets: the NODE.INPUTs of the workflow that the server's nodes must have.
    """
    if out is not None:
        try:  # before anything is run
            Path(out).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=out).close()
        except (OSError, ValueError) as error:
            raise WorkflowError(f"no file can be saved in --out {out}: {error}. Give another folder.") from error
    async with Server(server) as comfy:
        for target in (*targets, *(target for target, _ in uploads if target)):
            await comfy.check_input(prompt, target)
        for target, path in uploads:
            prompt = with_input(prompt, target or "LoadAudio.audio", await comfy.upload(path))
        result = await comfy.run(prompt, graph, on_event)
        return result, [] if out is None else await comfy.download(result.saved, out)


class ProgressLine:
    """What is running and how far it is, on one line of the terminal; without a terminal, a line a node."""

    def __init__(self, prompt: Prompt, stream: Any) -> None:
        self._prompt, self._stream, self._node = prompt, stream, ""

    def __call__(self, type: str, data: dict[str, Any]) -> None:
        if type == "executing" and data["node"] is not None:
            self._node = self._prompt.get(data["node"], {}).get("class_type", data["node"])
            self._show(self._node) if self._stream.isatty() else print(self._node, file=self._stream, flush=True)
        elif type == "progress" and self._stream.isatty():
            done, total = data["value"], max(data["max"], 1)
            bar = ("=" * int(30 * done / total)).ljust(30)
            self._show(f"{self._node} [{bar}] {100 * done / total:3.0f} %  {done:g}/{total:g}")
        elif type in ("execution_success", "execution_error", "execution_interrupted") and self._stream.isatty():
            self._show("", end="\r")

    def _show(self, text: str, end: str = "") -> None:
        print(f"\r{text:<78}", end=end, file=self._stream, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="clients.comfyui",
        description="Queue an API-format workflow on a running ComfyUI and download what it saved.",
        epilog="Exit codes: 0 done, 2 workflow or arguments wrong, 3 no server, 4 refused, 5 a node failed, 6 interrupted "
        "on the server, 130 Ctrl-C (interrupts the server's run too).",
    )
    parser.add_argument("workflow", help="JSON in API format, for example workflows/api/text_to_music.json")
    parser.add_argument("--server", default=DEFAULT_SERVER, help="address of ComfyUI (%(default)s)")
    repeated = {"action": "append", "default": []}
    parser.add_argument("--set", **repeated, metavar="NODE.INPUT=VALUE", help="NODE is an id, a class or a title")
    upload = "copy a file to the server and use it there; without NODE.INPUT, in the workflow's only LoadAudio"
    parser.add_argument("--upload", **repeated, metavar="[NODE.INPUT=]FILE", help=upload)
    parser.add_argument("--graph", help="the same workflow in graph format, to be put into the saved files")
    parser.add_argument("--out", default=".", help="folder for the downloaded files (the current one)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Prints the path of each downloaded file on its own line; everything else goes to stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console may lack a file name's characters
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _arguments(argv)
    try:
        prompt, targets = load_workflow(arguments.workflow), []
        for change in arguments.set:
            target, equals, value = change.partition("=")
            if not equals:
                raise WorkflowError(f"--set {change!r} must be NODE.INPUT=VALUE")
            prompt = with_input(prompt, target, parse_value(value))
            targets.append(target)
        graph = _read_json(arguments.graph) if arguments.graph else None
        uploads = [parse_upload(text) for text in arguments.upload]
        progress = ProgressLine(prompt, sys.stderr)
        _, paths = asyncio.run(run(prompt, arguments.server, arguments.out, uploads, graph, progress, targets))
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    for path in paths:
        print(path)
    if not paths:
        print("the workflow ran, but saved no file", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
