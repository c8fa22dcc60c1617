"""Rows on Ray, one of whose workers is killed half-way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen.batch.on_ray import share_out
from comfyui_musicgen.musicgen.cli.main import main

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
