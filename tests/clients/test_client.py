"""clients/comfyui.py: what needs no server here, and the command against a real one."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from aiohttp import web
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.audio import Audio, read, write
from comfyui_musicgen.tests.comfyui import comfy_server

ROOT = Path(__file__).resolve().parents[2]
API, GRAPH = ROOT / "workflows" / "api", ROOT / "workflows" / "Text to music.json"
QUICK = ["--set", "MusicGenLoader.model=toy", "--set", "MusicGenSampler.duration_s=0.6"]
NOBODY = "127.0.0.1:9"  # the port of the discard service

PROMPT = {
    "1": {"class_type": "A", "inputs": {"x": 1}, "_meta": {"title": "First"}},
    "2": {"class_type": "B", "inputs": {"y": ["1", 0]}},
    "3": {"class_type": "B", "inputs": {}},
}


def test_inputs_are_set_by_id_class_or_title_in_a_copy():
    for name in ("1", "A", "First"):
        changed = client.with_input(PROMPT, f"{name}.x", 2)
        assert changed["1"]["inputs"]["x"] == 2
    assert PROMPT["1"]["inputs"]["x"] == 1


@pytest.mark.parametrize(
    ("target", "said"), [("B.y", "2 nodes"), ("C.y", "no node"), ("A", "NODE.INPUT"), (".x", "NODE.INPUT")]
)
def test_unclear_targets_are_explained(target, said):
    with pytest.raises(client.WorkflowError, match=said):
        client.with_input(PROMPT, target, 0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("0.5", 0.5),
        ("true", True),
        ('"8"', "8"),
        ("calm piano", "calm piano"),
        ("[1, 2]", "[1, 2]"),
        ("", ""),
    ],
)
def test_values_are_read_like_json_or_as_text(text, value):
    assert client.parse_value(text) == value


def test_uploads_are_split_where_a_file_is(tmp_path, monkeypatch):
    """`--upload` could not take a path with "="."""
    monkeypatch.chdir(tmp_path)
    for name in ("a=b.wav", "plain.wav"):
        (tmp_path / name).write_bytes(b"")
    folder = tmp_path / "x=y"
    folder.mkdir()
    (folder / "c.wav").write_bytes(b"")
    readings = {
        "plain.wav": (None, "plain.wav"),
        "a=b.wav": (None, "a=b.wav"),
        "LoadAudio.audio=a=b.wav": ("LoadAudio.audio", "a=b.wav"),
        f"LoadAudio.audio={folder}/c.wav": ("LoadAudio.audio", f"{folder}/c.wav"),
        f"My=title.audio={folder}/c.wav": ("My=title.audio", f"{folder}/c.wav"),
        f"{folder}/c.wav": (None, f"{folder}/c.wav"),
        "LoadAudio.audio=gone.wav": ("LoadAudio.audio", "gone.wav"),
        "gone.wav": (None, "gone.wav"),
    }
    assert {text: client.parse_upload(text) for text in readings} == readings


@pytest.fixture
def fake():
    """Runs `use(server)` against a server with the files of its answers to /view, and a node A with the input x."""

    def call(use, files=()):
        async def view(request):
            return web.Response(body=contents[request.query["subfolder"]])

        async def object_info(request):
            known = {"A": {"input": {"required": {"x": ["INT"]}, "optional": {"y": ["INT"]}}}}
            name = request.match_info["name"]
            return web.json_response({name: known[name]} if name in known else {})

        async def served():
            app = web.Application()
            app.router.add_get("/view", view)
            app.router.add_get("/object_info/{name}", object_info)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                async with client.Server(f"127.0.0.1:{runner.addresses[0][1]}") as server:
                    return await use(server)
            finally:
                await runner.cleanup()

        contents = dict(files)
        return asyncio.run(served())

    return call


def test_a_failure_that_only_the_history_tells_is_one():
    """hiddenswitch/ComfyUI's queue may lose the message of a failure: the run ended as if it had saved nothing."""

    async def follow():
        async def history(request):
            return web.json_response(
                {"it": {"outputs": {}, "status": {"status_str": "error", "messages": ["no music"]}}}
            )

        async def socket(request):
            page = web.WebSocketResponse()
            await page.prepare(request)
            await page.send_json({"type": "executing", "data": {"node": None, "prompt_id": "it"}})
            await page.receive()
            return page

        async def prompt(request):
            return web.json_response({"prompt_id": "it", "node_errors": {}})

        app = web.Application()
        app.add_routes([web.get("/history/it", history), web.get("/ws", socket), web.post("/prompt", prompt)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with client.Server(f"127.0.0.1:{runner.addresses[0][1]}") as server:
                await server.run(PROMPT)
        finally:
            await runner.cleanup()

    with pytest.raises(client.NodeError, match="no music"):
        asyncio.run(follow())


def test_no_result_replaces_another_or_an_older_file(fake, tmp_path):
    """Two savers with one file name in two folders were one local file; so were those of an earlier run."""
    (tmp_path / "take.wav").write_bytes(b"older")
    saved = [{"filename": "take.wav", "subfolder": folder, "type": "output"} for folder in ("dry", "wet")]
    for run in range(2):
        paths = fake(lambda server: server.download(saved, tmp_path), {"dry": b"dry", "wet": b"wet"})
        assert [path.read_bytes() for path in paths] == [b"dry", b"wet"]
        assert [path.name for path in paths] == [f"take-{2 * run + n}.wav" for n in (2, 3)]
    assert (tmp_path / "take.wav").read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("name", ["a\0b.wav", "..", "/", "x" * 300, "\ud800"])
def test_names_that_cannot_be_are_explained(fake, tmp_path, name):
    saved = [{"filename": name, "subfolder": "", "type": "output"}]
    try:
        (path,) = fake(lambda server: server.download(saved, tmp_path / "out"), {"": b"data"})
    except client.ClientError as error:
        assert "cannot write" in str(error) or "No answer" in str(error)
    else:
        assert path.resolve().parent == tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] in (["out"], [])


def test_inputs_that_a_node_does_not_have_are_refused(fake):
    """`--set Node.inptu=...` was accepted, and ignored by ComfyUI."""
    for name in ("x", "y"):
        fake(lambda server, name=name: server.check_input(PROMPT, f"First.{name}"))
    with pytest.raises(client.WorkflowError, match=r"A has no input 'z'. It has: x, y"):
        fake(lambda server: server.check_input(PROMPT, "First.z"))
    fake(lambda server: server.check_input(PROMPT, "2.z"))  # a node that this server does not know is refused later


@pytest.mark.parametrize("out", ["file", "file/below", "a\0b"])
def test_an_output_folder_that_is_none_is_found_before_the_run(tmp_path, capsys, out):
    (tmp_path / "file").write_bytes(b"mine")
    assert client.main([str(API / "text_to_music.json"), "--server", NOBODY, "--out", str(tmp_path / out)]) == 2
    assert "--out" in capsys.readouterr().err
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_console_of_few_characters_gets_every_line(monkeypatch, tmp_path):
    paths = [tmp_path / "판소리.wav", tmp_path / "second.wav"]

    async def done(*_):
        return None, paths

    monkeypatch.setattr(client, "run", done)
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    assert client.main([str(API / "text_to_music.json")]) == 0
    console.flush()
    lines = console.buffer.getvalue().decode("ascii").splitlines()
    assert len(lines) == 2 and lines[1] == str(paths[1])


def command(*arguments):
    return [sys.executable, str(ROOT / "clients" / "comfyui.py"), *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=180)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{", "not JSON"),
        ('{"nodes": []}', "graph format"),
        ("[]", "API format"),
        ("{}", "API format"),
    ],
)
def test_files_that_are_no_workflow_are_explained(tmp_path, content, said):
    path = tmp_path / "w.json"
    if content is not None:
        path.write_text(content)
    done = run(path, "--server", NOBODY)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_absent_server_is_explained(tmp_path):
    done = run(API / "text_to_music.json", "--server", NOBODY, "--out", tmp_path)
    assert done.returncode == 3 and f"http://{NOBODY}" in done.stderr and "Traceback" not in done.stderr


def test_command_runs_a_workflow_and_downloads_the_result(comfy, tmp_path):
    done = run(
        API / "text_to_music.json", *QUICK, "--graph", GRAPH, "--server", comfy.address, "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.parent == tmp_path / "out" and list(path.parent.iterdir()) == [path]
    assert read(path).n_samples == 19200
    assert "MusicGenSampler" in done.stderr, "progress goes to stderr"


def test_command_uploads_a_clip(comfy, tmp_path):
    clip = write(Audio(0.2 * torch.rand(1, 1, 16000) - 0.1, 32000), tmp_path / "clip for upload.wav")
    more = ["--set", "MusicGenTrimAudio.end_s=0.4", "--upload", clip, "--server", comfy.address, "--out", tmp_path]
    workflow = comfy_server.with_own_clip(json.loads((API / "continue_a_clip.json").read_text(encoding="utf-8")))
    (tmp_path / "workflow.json").write_text(json.dumps(workflow), encoding="utf-8")
    done = run(tmp_path / "workflow.json", *QUICK, *more)
    assert done.returncode == 0, done.stderr
    assert read(done.stdout.strip()).n_samples == 19200
    assert (comfy.base / "input" / "clip for upload.wav").is_file()


def test_two_saves_of_one_name_are_two_files(comfy, tmp_path):
    """tests/data/reports: gokayfem/ComfyUI_VLM_nodes#118, WASasquatch/was-node-suite-comfyui#222."""
    older = tmp_path / "take_00001_.wav"
    older.write_bytes(b"older")
    folders = [f"{kind}-{tmp_path.name}/take" for kind in ("dry", "wet")]
    prefixes = [word for id, folder in enumerate(folders, 1) for word in ("--set", f"{id}.filename_prefix={folder}")]
    workflow = ROOT / "tests" / "data" / "reports" / "two_saves.json"
    done = run(workflow, *prefixes, "--server", comfy.address, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(read(path).duration_s for path in done.stdout.split()) == [1, 2]
    assert older.read_bytes() == b"older"


def test_a_misspelt_input_is_refused_by_name(comfy, tmp_path):
    arguments = ["--set", "MusicGenSampler.duratoin_s=2", "--server", comfy.address, "--out", tmp_path]
    done = run(API / "text_to_music.json", *QUICK, *arguments)
    assert done.returncode == 2 and "no input 'duratoin_s'" in done.stderr and "duration_s" in done.stderr


def test_refusal_and_failure_have_codes_of_their_own(comfy, tmp_path):
    server = ["--server", comfy.address, "--out", tmp_path]
    refused = run(API / "text_to_music.json", "--set", "MusicGenLoader.model=gone", *server)
    assert refused.returncode == 4 and "no model 'gone'" in refused.stderr
    failed = run(API / "text_to_music.json", *QUICK, "--set", "MusicGenSaveAudio.filename_prefix=../x", *server)
    assert failed.returncode == 5 and "'filename_prefix'" in failed.stderr and "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


def start(*arguments):
    """The command with a Ctrl-C that works, also where these tests run in the background, which ignores it."""
    heed = None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, preexec_fn=heed)


def start_long_run(comfy, tmp_path):
    """The command, sampling for minutes."""
    arguments = [*QUICK, "--set", "MusicGenSampler.duration_s=600", "--server", comfy.address, "--out", tmp_path]
    process = start(API / "text_to_music.json", *arguments)
    for line in process.stderr:
        if "MusicGenSampler" in line:
            return process
    raise AssertionError("the command ended before it sampled")


NOTHING_QUEUED = {"queue_running": [], "queue_pending": []}


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process")
def test_ctrl_c_interrupts_the_server_s_run_too(comfy, tmp_path):
    process = start_long_run(comfy, tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    comfy.wait_for("/queue", NOTHING_QUEUED)
    assert "Traceback" not in process.stderr.read()


def test_cancel_on_the_server_is_reported(comfy, tmp_path):
    process = start_long_run(comfy, tmp_path)
    comfy.post("/interrupt")
    assert process.wait(20) == client.InterruptedRunError.exit_code
    assert "interrupted on the server" in process.stderr.read()


def test_prompts_waiting_in_the_queue_are_taken_out(comfy, tmp_path):
    running, waiting = start_long_run(comfy, tmp_path), None
    try:
        arguments = [*QUICK, "--server", comfy.address, "--out", tmp_path]
        waiting = start(API / "text_to_music.json", *arguments)
        while not comfy.get("/queue")["queue_pending"]:
            assert waiting.poll() is None
            time.sleep(0.1)
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(20) == 130
        queue = comfy.get("/queue")
        assert len(queue["queue_running"]) == 1 and not queue["queue_pending"]
    finally:
        for process in filter(None, (running, waiting)):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(20)
    comfy.wait_for("/queue", NOTHING_QUEUED)


def test_server_that_goes_away_is_reported():
    async def follow():
        app = web.Application()
        app.router.add_get("/ws", hang_up)
        app.router.add_post("/prompt", accept)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with client.Server(f"127.0.0.1:{runner.addresses[0][1]}") as server:
                await server.run(PROMPT)
        finally:
            await runner.cleanup()

    accepted = asyncio.Event()

    async def accept(request):
        accepted.set()
        return web.json_response({"prompt_id": "p", "node_errors": {}})

    async def hang_up(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await accepted.wait()
        await socket.close()
        return socket

    with pytest.raises(client.ServerError, match="Is ComfyUI still running"):
        asyncio.run(follow())


def test_metadata_reaches_the_file(comfy, tmp_path):
    arguments = [*QUICK, "--set", "MusicGenSaveAudio.format=wav", "--graph", GRAPH, "--server", comfy.address]
    done = run(API / "text_to_music.json", *arguments, "--out", tmp_path)
    name = Path(done.stdout.strip()).name
    beside = comfy.base / "output" / "audio" / f"{name}.json"
    assert json.loads(beside.read_text(encoding="utf-8"))["workflow"] == json.loads(GRAPH.read_text(encoding="utf-8"))


def test_what_is_only_shown_is_no_result_where_something_is_saved():
    """MusicGen Takes shows a file a take, which were downloaded beside the saved one."""
    shown = {"filename": "take_1.flac", "subfolder": "musicgen_takes", "type": "temp"}
    saved = {"filename": "a.flac", "subfolder": "audio", "type": "output"}
    result = client.Result("id", {"5": {"takes": [shown]}, "8": {"audio": [saved]}})
    assert result.saved == [saved]
    assert client.Result("id", {"5": {"takes": [shown]}}).saved == [shown], "previews, where nothing is saved"
