"""The pack on the workers of hiddenswitch/ComfyUI, which take prompts from RabbitMQ.

COMFYUI_FORK_PATH names that fork, with its virtual environment as .venv inside it; docs/BATCH.md says how it is made.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.audio import read
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.tests.comfyui import comfy_server

API = comfy_server.ROOT / "workflows" / "api"
RABBIT = Path("/usr/lib/rabbitmq/bin")  # Debian's; what it has on the PATH insists on a user and on folders of its own
START_TIMEOUT_S = 600.0  # a worker imports torch, jax and more at its first prompt
N_ROWS = 6

pytestmark = pytest.mark.slow


def why_not() -> str:
    """Why there is no fork to test with; "" where there is one."""
    if not os.environ.get("COMFYUI_FORK_PATH"):
        return "set COMFYUI_FORK_PATH to test with hiddenswitch/ComfyUI"
    if not (fork_bin() / "comfyui-worker").exists():
        return f"no comfyui-worker in {fork_bin()}: install hiddenswitch/ComfyUI there"
    return "" if (RABBIT / "rabbitmq-server").exists() else "no rabbitmq-server: install Debian's package"


def fork_bin() -> Path:
    return Path(os.environ["COMFYUI_FORK_PATH"]).expanduser() / ".venv" / "bin"


class Fork:
    """RabbitMQ, a frontend and two workers, in one folder. Use as `with Fork(base) as fork`."""

    def __init__(self, base: Path) -> None:
        self.base, self.workers, self._started = base, [], []
        ports = [comfy_server.free_port() for _ in range(4)]
        self.port, amqp = ports[0], ports[1]
        self.amqp = f"amqp://guest:guest@127.0.0.1:{amqp}"
        self._rabbit_env = {
            **os.environ,
            "HOME": str(base),  # of the Erlang cookie
            "RABBITMQ_NODENAME": f"musicgen{amqp}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(amqp),
            "RABBITMQ_DIST_PORT": str(ports[2]),
            "ERL_EPMD_PORT": str(ports[3]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq"),
        }

    def __enter__(self) -> "Fork":
        for folder in ("custom_nodes", "models/musicgen"):
            (self.base / folder).mkdir(parents=True)
        comfy_server.link(comfy_server.ROOT, self.base / "custom_nodes" / comfy_server.PACK_NAME)
        comfy_server.write_toys(self.base / "models" / "musicgen", ["toy"])
        try:
            self._start("rabbit", [str(RABBIT / "rabbitmq-server")], self._rabbit_env)
            self._wait(lambda: self._consumers() is not None, "RabbitMQ")
            frontend = ["comfyui", "--distributed-queue-frontend", "--listen", "127.0.0.1", "--port", str(self.port)]
            self._start_fork("frontend", [*frontend, "--disable-auto-launch"])
            self.workers = [self._start_fork(f"worker{number}", ["comfyui-worker"]) for number in (1, 2)]
            self._wait(lambda: self._answers() and self._consumers() == 2, "the frontend and both workers")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for process in reversed(self._started):
            process.terminate()
        for process in self._started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        subprocess.run(["epmd", "-kill"], env=self._rabbit_env, capture_output=True, timeout=30)  # ours, by its port

    def _start(self, name: str, command: list[str], env: dict[str, str]) -> subprocess.Popen:
        with open(self.base / f"{name}.txt", "w", encoding="utf-8") as log:
            process = subprocess.Popen(command, cwd=self.base, env=env, stdout=log, stderr=subprocess.STDOUT)
        self._started.append(process)
        return process

    def _start_fork(self, name: str, command: list[str]) -> subprocess.Popen:
        places = ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        queue = ["--distributed-queue-connection-uri", self.amqp]
        command = [str(fork_bin() / command[0]), *command[1:], "--cpu", "--disable-api-nodes", *places, *queue]
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONPATH", "VIRTUAL_ENV"))}
        beside = os.pathsep.join(comfy_server.beside(str(fork_bin() / "python")))
        env.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **({"PYTHONPATH": beside} if beside else {})})
        return self._start(name, command, env)

    def _wait(self, is_there, what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_there():
            ended = [process.args for process in self._started if process.poll() is not None]
            logs = "\n".join(self.log(path.stem)[-2000:] for path in self.base.glob("*.txt"))
            assert not ended, f"{ended} ended:\n{logs}"
            assert time.monotonic() < deadline, f"{what} did not start:\n{logs}"
            time.sleep(1)

    def _consumers(self) -> int | None:
        """How many workers listen; None without RabbitMQ."""
        command = [str(RABBIT / "rabbitmqctl"), "--quiet", "list_queues", "name", "consumers"]
        done = subprocess.run(command, env=self._rabbit_env, capture_output=True, text=True, timeout=120)
        if done.returncode:
            return None
        return sum(int(line.split()[1]) for line in done.stdout.splitlines() if line.split()[0] == "comfyui")

    def _answers(self) -> bool:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/system_stats", timeout=10).close()
            return True
        return False

    def n_queued(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/queue", timeout=30) as response:
            return sum(map(len, json.load(response).values()))

    def log(self, name: str) -> str:
        return (self.base / f"{name}.txt").read_text(encoding="utf-8", errors="replace")

    def batch(self, table: Path, out: Path) -> int:
        """text_to_music.json for each row. The frontend is named twice: each of the two workers gets a row."""
        command = ["batch", str(table), "--out", str(out), "--workflow", str(API / "text_to_music.json")]
        return main([*command, "--server", f"127.0.0.1:{self.port}", f"localhost:{self.port}"])


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    with Fork(tmp_path_factory.mktemp("fork")) as fork:
        yield fork


def write_table(path: Path, n_rows: int, duration_s: float, prompt: str) -> Path:
    columns = "MusicGenText.text,MusicGenSampler.seed,MusicGenLoader.model,MusicGenSampler.duration_s,MusicGenSaveAudio.format"
    rows = [f"{prompt} {number},{number},toy,{duration_s},wav,take{number}" for number in range(1, n_rows + 1)]
    path.write_text("\n".join([columns + ",name", *rows]), encoding="utf-8")
    return path


def test_two_workers_make_what_one_process_makes(fork, tmp_path):
    assert fork.batch(write_table(tmp_path / "rows.csv", N_ROWS, 1.0, "buk"), tmp_path / "there") == 0
    assert all("loaded toy" in fork.log(f"worker{number}") for number in (1, 2)), "both were at work"
    assert "loaded toy" not in fork.log("frontend")

    rows = "".join(f"buk {number},1,{number},take{number}\n" for number in range(1, N_ROWS + 1))
    (tmp_path / "fields.csv").write_text("prompt,duration,seed,name\n" + rows, encoding="utf-8")
    command = [str(fork_bin() / "python"), "-m", "musicgen", "batch", str(tmp_path / "fields.csv"), "--threads", "1"]
    command += ["--out", str(tmp_path / "here"), "--models", str(fork.base / "models"), "--model", "toy"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(comfy_server.beside(command[0]))}
    subprocess.run(command, cwd=comfy_server.ROOT, env=env, check=True, timeout=600)
    for number in range(1, N_ROWS + 1):
        there, here = (read(tmp_path / side / f"take{number}.wav").samples for side in ("there", "here"))
        assert there.shape[-1] == 32000 and there.equal(here), number


def test_a_failure_on_a_worker_is_told(fork):
    workflow = client.with_input(client.load_workflow(API / "text_to_music.json"), "MusicGenLoader.model", "broken")
    shutil.copytree(fork.base / "models" / "musicgen" / "toy", fork.base / "models" / "musicgen" / "broken")
    (fork.base / "models" / "musicgen" / "broken" / "state_dict.bin").write_bytes(b"no checkpoint")
    command = client.run(workflow, f"127.0.0.1:{fork.port}")
    with pytest.raises(client.NodeError, match="state_dict"):
        asyncio.run(asyncio.wait_for(command, START_TIMEOUT_S))


def test_a_killed_worker_costs_no_row(fork, tmp_path):
    """RabbitMQ gives its prompt to the other one."""
    table = write_table(tmp_path / "rows.csv", 4, 10.0, "long")
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(fork.batch(table, tmp_path / "out")))
    thread.start()
    deadline = time.monotonic() + 60
    while fork.n_queued() < 2:
        assert time.monotonic() < deadline and thread.is_alive()
        time.sleep(0.1)
    time.sleep(2)  # each worker takes one
    assert fork.n_queued() == 2, "both are at work"
    fork.workers[1].kill()
    thread.join(START_TIMEOUT_S)
    assert statuses == [0] and len(list((tmp_path / "out").glob("take*.wav"))) == 4
