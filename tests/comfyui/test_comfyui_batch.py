"""Rows over two real ComfyUIs, one of which is killed half-way."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.tests.comfyui import comfy_server

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
N_ROWS = int(os.environ.get("BATCH_ROWS", "6"))  # 40 were run by hand


@pytest.fixture
def second(tmp_path):
    server = comfy_server.ComfyUI(tmp_path / "second")
    yield server
    server.stop()


def entries(folder):
    path = folder / "manifest.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def kill_when(server, folder, n_rows):
    """Kill a server once it has made some rows: it is at the next one by then."""

    def watch():
        deadline = time.monotonic() + 300
        while sum(entry["worker"] == server.address for entry in entries(folder)) < n_rows:
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        server.process.kill()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_server_killed_half_way_costs_no_row_and_changes_no_byte(comfy, second, tmp_path, capsys, monkeypatch):
    if not comfy.has_module("numba"):  # the kernels round otherwise than torch, and now and then another code is drawn
        monkeypatch.setattr("comfyui_musicgen.musicgen.accel.numba.load_kernels", lambda: None)
    table = tmp_path / "rows.csv"
    prompts = "".join(f"느린 buk number {number},1,\n" for number in range(N_ROWS))
    table.write_text("prompt,duration,seed\n" + prompts, encoding="utf-8-sig")
    here, there = tmp_path / "here", tmp_path / "there"
    assert main(["batch", str(table), "--out", str(here), "--threads", "1"]) == 0
    killer = kill_when(second, there, max(1, N_ROWS // 4))
    status = main(["batch", str(table), "--out", str(there), "--server", comfy.address, second.address])
    killer.join()
    printed = capsys.readouterr()
    with capsys.disabled():
        print("\n" + "\n".join(line for line in printed.err.splitlines() if line.startswith(f"{N_ROWS} rows:")))
    assert status == 0 and second.process.poll() is not None, "it was killed"
    assert sorted(entry["row"] for entry in entries(there)) == list(range(2, N_ROWS + 2))
    assert {entry["worker"] for entry in entries(there)} == {comfy.address, second.address}
    files = sorted(path.name for path in here.glob("*.wav"))
    assert len(files) == N_ROWS and files == sorted(path.name for path in there.glob("*.wav"))
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in files)
    assert entries(there)[0]["made_by"]["comfyui_version"]


def test_a_workflow_is_changed_by_rows(comfy, tmp_path, capsys):
    workflow = client.load_workflow(API / "text_to_music.json")
    workflow = client.with_input(
        client.with_input(workflow, "MusicGenLoader.model", "toy"), "MusicGenSaveAudio.format", "wav"
    )
    (tmp_path / "workflow.json").write_text(json.dumps(workflow), encoding="utf-8")
    table = tmp_path / "rows.csv"
    rows = ["drums,0.6,,drums", "flute,0.4,3,flute", "flute,0.4,,", "flute,many,1,bad"]
    header = "MusicGenText.text,MusicGenSampler.duration_s,MusicGenSampler.seed,name"
    table.write_text("\n".join([header, *rows]), encoding="utf-8")
    command = ["batch", str(table), "--out", str(tmp_path / "out"), "--workflow", str(tmp_path / "workflow.json")]
    status = main([*command, "--server", comfy.address])
    printed = capsys.readouterr()
    assert status == 1 and "3 made" in printed.err, printed.err
    assert "row 5: ComfyUI refused the workflow" in printed.err, printed.err
    made = {entry["row"]: entry for entry in entries(tmp_path / "out")}
    assert [made[row]["files"][0]["name"] for row in (2, 3)] == ["drums.wav", "flute.wav"]
    assert [made[row]["task"]["workflow"]["4"]["inputs"]["duration_s"] for row in (2, 3, 4)] == [0.6, 0.4, 0.4]
    seeds = [made[row]["task"]["workflow"]["4"]["inputs"]["seed"] for row in (2, 3, 4)]
    assert seeds[1] == 3 and len(set(seeds)) == 3 and seeds[0] == made[2]["seed"]
    before = {entry["row"]: entry["finished"] for entry in made.values()}
    assert main([*command, "--server", comfy.address]) == 1
    assert {entry["row"]: entry["finished"] for entry in entries(tmp_path / "out")} == before


def test_ctrl_c_takes_the_prompts_back(comfy, tmp_path, monkeypatch):
    """What a stopped run had queued would go on for hours."""
    batch = pytest.importorskip("comfyui_musicgen.clients.batch")
    fields = {"prompt": "long", "duration": 600, "seed": 1}
    with batch.server_lanes([comfy.address]) as lanes:
        future = lanes[0].start({"fields": fields, "model": "toy", "precision": "auto"})
        deadline = time.monotonic() + 30
        while not comfy.get("/queue")["queue_running"]:
            assert time.monotonic() < deadline and not future.done()
            time.sleep(0.05)
    deadline = time.monotonic() + 30
    while comfy.get("/queue")["queue_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
