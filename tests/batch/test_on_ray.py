"""Rows on Ray, one of whose workers is killed half-way."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen.batch.on_ray import share_out
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.tests.comfyui.comfy_server import free_port

ROOT = Path(__file__).resolve().parents[2]
N_ROWS = int(os.environ.get("BATCH_ROWS", "6"))  # 40 were run by hand
TIMEOUT_S = 570


@pytest.mark.parametrize(
    ("sizes", "workers", "wanted", "expected"),
    [
        ([2], None, 2, (1, 2)),
        ([2], 2, 2, (2, 1)),
        ([16, 5], None, 2, (10, 2)),
        ([16, 5], 4, 8, (4, 5)),  # of 8 or 6 each, only two or three would find room
        ([1], None, 2, (1, 1)),
        ([2], 3, 1, (3, 1 / 2)),  # a third worker of 2/3 would wait for ever where there are two machines
        ([1, 1], 3, 2, (3, 1 / 2)),
        ([8, 8], None, 1, (16, 1)),
    ],
)
def test_every_worker_finds_room(sizes, workers, wanted, expected):
    assert share_out(sizes, workers, wanted) == expected


def entries(folder):
    path = folder / "manifest.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def wait_for_port(port, process):
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)


def kill_when(process, folder, n_rows):
    """Kill the worker that made the latest of `n_rows` rows, as soon as it has: it is at the next one. Its process id."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(made := entries(folder)) < n_rows:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim = made[-1]["made_by"]["pid"]
    os.kill(victim, signal.SIGKILL)
    return victim


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ray's workers are killed by a signal")
def test_a_worker_killed_half_way_costs_no_row_and_changes_no_byte(tmp_path, capsys):
    pytest.importorskip("ray", reason="Ray is not installed: python -m pip install ray")
    table = tmp_path / "rows.csv"
    prompts = "".join(f"느린 buk number {number},1,\n" for number in range(N_ROWS))
    table.write_text("prompt,duration,seed\n" + prompts, encoding="utf-8-sig")
    here, there = tmp_path / "here", tmp_path / "there"
    command = [sys.executable, "-m", "musicgen", "batch", str(table), "--out", str(there), "--ray", "--workers", "2"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        victim = kill_when(process, there, max(2, N_ROWS // 2))
        output, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, said
    assert main(["batch", str(table), "--out", str(here), "--threads", "1"]) == 0
    summaries = [*said.splitlines(), *capsys.readouterr().err.splitlines()]
    with capsys.disabled():
        print("\n" + "\n".join(line for line in summaries if line.startswith(f"{N_ROWS} rows:")))
    made = entries(there)
    assert sorted(entry["row"] for entry in made) == list(range(2, N_ROWS + 2)), "every row exactly once"
    pids = {entry["made_by"]["pid"] for entry in made}
    assert victim in pids and len(pids) == 3, "the dead worker's row was made by its successor"
    files = sorted(path.name for path in here.glob("*.wav"))
    assert len(files) == len(output.splitlines()) == N_ROWS
    assert files == sorted(path.name for path in there.glob("*.wav"))
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in files)
    assert {entry["made_by"]["threads"] for entry in made} == {1}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ray starts no cluster on Windows")
def test_a_cluster_that_wants_a_token_is_reached_by_its_address(tmp_path, monkeypatch):
    """Ray 2.60 asks for one wherever its user has one, and answered 'Failed to connect' to an address."""
    pytest.importorskip("ray", reason="Ray is not installed: python -m pip install ray")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("ab" * 32)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    table, port = tmp_path / "rows.csv", free_port()
    table.write_text("prompt,duration,seed\npansori voice,1,1\n", encoding="utf-8")
    head = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port)]
    command = [sys.executable, "-m", "musicgen", "batch", str(table), "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [*head, "--num-cpus", "2", "--include-dashboard", "false"], stdout=subprocess.DEVNULL
    ) as cluster:
        try:
            wait_for_port(port, cluster)
            subprocess.run([*command, "--ray", f"127.0.0.1:{port}"], cwd=ROOT, check=True, timeout=TIMEOUT_S)
        finally:
            cluster.terminate()
    (made,) = entries(tmp_path / "out")
    assert made["row"] == 2 and (tmp_path / ".cache" / "musicgen-pansori").is_dir(), (
        "kernels are there for the next run"
    )
