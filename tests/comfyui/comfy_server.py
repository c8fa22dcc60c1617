"""A real ComfyUI for the tests: found, started in a folder of its own, stopped. Not a test; loaded by those that are.

COMFYUI_PATH names the ComfyUI (else ~/comfy/ComfyUI), COMFYUI_PYTHON its interpreter (else the virtual environment
inside it, else ours). What of requirements.txt that environment lacks is put beside it for the time of the tests.
"""

import asyncio
import atexit
import functools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comfyui_musicgen.clients import comfyui as client

ROOT = Path(__file__).resolve().parents[2]
PACK_NAME = "musicgen-pansori"
START_TIMEOUT_S = 300.0  # on a busy machine


@functools.cache
def find() -> tuple[Path, str] | str:
    """(ComfyUI's folder, its Python), or why there is none."""
    root = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
    if not (root / "main.py").is_file():
        return f"no ComfyUI in {root}; set COMFYUI_PATH to test with a real one"
    inside = [root / env / folder for env in (".venv", "venv") for folder in ("bin/python", "Scripts/python.exe")]
    python = os.environ.get("COMFYUI_PYTHON") or next((str(path) for path in inside if path.exists()), sys.executable)
    lacking = _lacking(python, ("torch", "aiohttp", "av", "requests", "yaml", "comfyui_frontend_package"))
    if lacking:
        return f"{python} cannot run ComfyUI: {lacking}"
    return root, python


def _lacking(python: str, modules: Sequence[str]) -> str:
    """Names of the modules that an interpreter does not find, or why it does not start; "" where it finds them all."""
    code = "import importlib.util, sys; print(*[name for name in sys.argv[1:] if not importlib.util.find_spec(name)])"
    try:
        done = subprocess.run([python, "-c", code, *modules], capture_output=True, text=True, timeout=120)
    except OSError as error:
        return str(error)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()[-500:] or "it does not start"


@functools.cache
def beside(python: str) -> list[str]:
    """[a folder of the pack's requirements], which a user's ComfyUI would have installed; [] where nothing is lacking."""
    requirements = ROOT / "requirements.txt"
    if not _lacking(python, re.findall(r"^\w+", requirements.read_text(encoding="utf-8"), re.MULTILINE)):
        return []
    folder = tempfile.mkdtemp(prefix="comfyui-requirements-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Pure Python, all of them, and what they need ComfyUI has.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*command, "-r", str(requirements)], check=True, timeout=300)
    return [folder]


class ComfyUI:
    """One server process. `base` holds its models, input, output, custom_nodes."""

    def __init__(
        self,
        base: Path,
        extra_env: dict[str, str] | None = None,
        extra_arguments: Sequence[str] = (),
        device_arguments: Sequence[str] = ("--cpu",),
    ) -> None:
        found = find()
        if isinstance(found, str):
            pytest.skip(found)
        self.root, self.python = found
        self.base, self.log_file = base, base / "server.log"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        for folder in ("custom_nodes", "models/musicgen", "models/text_encoders", "input", "output", "temp", "user"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        link(ROOT, base / "custom_nodes" / PACK_NAME)
        link(ROOT / "tests" / "data" / "probe_nodes", base / "custom_nodes" / "probe_nodes")
        command = [
            self.python, str(self.root / "main.py"), *device_arguments, "--base-directory", str(base), "--port", str(self.port),
            "--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:", *extra_arguments,
        ]  # fmt: skip
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONPATH", "VIRTUAL_ENV"))}
        env.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(extra_env or {})})
        env["PYTHONPATH"] = os.pathsep.join([*filter(None, [env.get("PYTHONPATH")]), *beside(self.python)])
        self._env = env
        started_s = time.monotonic()
        with open(self.log_file, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, cwd=base, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise
        self._busy = min(1.0, cpu_seconds(self.process.pid) / (time.monotonic() - started_s))

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.fail(f"ComfyUI ended at once:\n{self.log[-4000:]}")
            try:
                self.get("/system_stats")
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        else:
            pytest.fail(f"ComfyUI did not start in {START_TIMEOUT_S:g} s:\n{self.log[-4000:]}")
        if re.search(rf"IMPORT FAILED.*{PACK_NAME}$", self.log, re.MULTILINE):
            pytest.fail(f"ComfyUI could not import the pack:\n{self.log[:4000]}")

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def read(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=30) as response:
            return response.read()

    def get(self, path: str) -> Any:
        return json.loads(self.read(path))

    def post(self, path: str, body: dict | None = None) -> None:
        request = urllib.request.Request(
            f"http://{self.address}{path}", json.dumps(body or {}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30):
            pass

    def run(self, prompt: dict, graph: dict | None = None, on_event: Callable | None = None) -> Any:
        """Queue a workflow and wait for it: the client's Result."""

        async def queued():
            async with client.Server(self.address) as server:
                return await asyncio.wait_for(server.run(prompt, graph, on_event), 120)

        return asyncio.run(queued())

    def client_run(self, prompt: dict, **options) -> Any:
        """clients.comfyui.run on this server: (Result, files)."""
        return asyncio.run(asyncio.wait_for(client.run(prompt, self.address, **options), 120))

    def wait_for(self, path: str, expected: dict[str, Any], timeout_s: float = 10.0) -> None:
        """Ask until the answer holds `expected`; fail with the last answer after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not expected.items() <= (answer := self.get(path)).items():
            assert time.monotonic() < deadline, f"{path} still says {answer}, not {expected}"
            time.sleep(0.1)

    def import_seconds(self) -> float:
        """What ComfyUI says that loading the pack took, less the share of its start that it waited for a processor."""
        return self._busy * float(re.search(rf"([\d.]+) seconds.*: \S*{PACK_NAME}$", self.log, re.MULTILINE)[1])

    def has_module(self, name: str) -> bool:
        command = [self.python, "-c", f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({name!r}))"]
        return subprocess.run(command, env=self._env, timeout=60).returncode == 0

    def path_of(self, saved: dict) -> Path:
        """Where a file of Result.saved lies."""
        return self.base / saved["type"] / saved["subfolder"] / saved["filename"]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process; infinite where the system has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        shutil.copytree(
            source, target, ignore=shutil.ignore_patterns(".git", ".venv*", "models", "demo", "__pycache__")
        )


def with_own_clip(prompt: dict) -> dict:
    """A template's workflow with LoadAudio in place of Example Clip."""
    load = {"class_type": "LoadAudio", "inputs": {"audio": "your clip.wav"}}
    return {id: load if node["class_type"] == "MusicGenExample" else node for id, node in prompt.items()}


def write_toys(folder: Path, names: Sequence[str] = ("toy", "toy-stereo", "toy-melody", "toy-melody-tuned")) -> None:
    """Toy checkpoints: `toy` is mono in audiocraft's format, `toy-stereo` in Hugging Face's."""
    from comfyui_musicgen.tests.toy import write_toy

    options = {
        "toy": {"seed": 1},
        "toy-stereo": {"seed": 2, "stereo": True, "format": "huggingface"},
        "toy-melody": {"seed": 3, "stereo": True, "melody": True},
        "toy-melody-tuned": {"seed": 4, "stereo": True, "melody": True},
    }
    for name in names:
        (folder / name).mkdir(parents=True)
        write_toy(folder / name, **options[name])


@functools.cache
def _start_shared(base: Path) -> "ComfyUI | str":
    from comfyui_musicgen.musicgen.store.published import DIFFUSION_MODEL
    from comfyui_musicgen.tests.toy.diffusion import TOY_UNET, write_toy_diffusion

    try:
        write_toys(base / "models" / "musicgen")
        write_toy_diffusion(base / "models" / "musicgen" / DIFFUSION_MODEL, replace(TOY_UNET, hidden=4))
        server = ComfyUI(base)
    except pytest.fail.Exception as failure:
        return str(failure)  # remembered, or each test would wait for another start
    atexit.register(server.stop)
    return server


def shared(tmp_path_factory: pytest.TempPathFactory) -> ComfyUI:
    """The server that all tests of a session share: models/musicgen holds `toy` (mono) and `toy-stereo`."""
    found = find()
    if isinstance(found, str):
        pytest.skip(found)
    server = _start_shared(tmp_path_factory.getbasetemp() / "comfyui")
    if isinstance(server, str):
        pytest.fail(server)
    return server
