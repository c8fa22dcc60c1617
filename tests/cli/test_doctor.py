"""python -m musicgen doctor: a broken library is a finding, never a traceback."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfyui_musicgen.musicgen.cli import doctor
from comfyui_musicgen.musicgen.cli import main as cli
from comfyui_musicgen.musicgen.store import published

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture()
def examined(tmp_path, capsys, monkeypatch):
    """examined() -> (exit status, the JSON report, findings by name) of the command on an empty models folder."""
    monkeypatch.setattr(doctor, "BANDWIDTH_S", 0.01)

    def call(models=tmp_path):
        status = cli.main(["doctor", "--json", "--models", str(models)])
        answer = json.loads(capsys.readouterr().out)
        return status, answer, {finding["name"]: finding for finding in answer["findings"]}

    return call


def test_a_sound_machine_is_well(examined):
    status, answer, by_name = examined()
    assert status == 0 and answer["ok"]
    assert torch.__version__ in by_name["torch"]["value"]
    assert {
        "Python",
        "numpy",
        "transformers",
        "ComfyUI",
        "cpu",
        "precision auto",
        "Numba",
        "free RAM",
        "offline",
    } <= set(by_name)
    assert {by_name[file.name]["status"] for file in published.SHIPPED.values()} == {"ok"}
    assert by_name["precision auto"]["value"].startswith(("float16 on", "float32 on"))
    assert by_name["bandwidth, cpu"]["value"].endswith("GB/s")


def test_the_text_ends_with_the_advice(tmp_path, capsys):
    assert cli.main(["doctor", "--models", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Versions" and lines[-2] == "" and lines[-1]


def test_models_are_listed_with_size_and_format(examined, toys, tmp_path):
    shutil.copytree(toys(), tmp_path / "musicgen" / "mine")
    finding = examined()[2]["mine"]
    assert "audiocraft" in finding["value"] and "GB" in finding["value"]


def test_without_any_model_music_stops(examined, monkeypatch, tmp_path):
    monkeypatch.setattr(published, "SHIPPED", {})
    status, answer, _ = examined()
    assert status == 1 and "Download a model" in answer["advice"]


@pytest.mark.parametrize(("module", "purpose", "package"), doctor.REQUIRED[1:], ids=lambda value: str(value))
def test_a_missing_library_stops_music(examined, monkeypatch, module, purpose, package):
    monkeypatch.setitem(sys.modules, module, None)
    status, answer, by_name = examined()
    name = package or module
    assert status == 1 and not answer["ok"] and f"pip install {name}" in answer["advice"]
    assert any(f["name"] == name and purpose in f["value"] and f["status"] == "stop" for f in answer["findings"])
    assert "precision auto" in by_name, "the other checks go on"


@pytest.mark.parametrize("command", [["doctor"], pytest.param(["doctor", "--json"], marks=pytest.mark.slow)])
def test_a_broken_torch_is_a_finding(tmp_path, command):
    """torch is imported by every other command, so this one must start without."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    run = subprocess.run(
        [sys.executable, "-m", "musicgen", *command, "--models", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "libcudart.so.12" in run.stdout and "pip install torch" in run.stdout


def test_a_missing_numba_is_a_note_with_what_it_gives(examined, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    status, answer, by_name = examined()
    assert status == 0 and by_name["Numba"]["status"] == "note"
    assert doctor.NUMBA_GAIN in by_name["Numba"]["value"] and "pip install" in answer["advice"]


def test_a_numba_that_cannot_compile_is_a_note(examined, monkeypatch):
    def njit(function):
        raise RuntimeError("no LLVM here")

    config = SimpleNamespace(DISABLE_JIT=False)
    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(njit=njit, config=config, __version__="0.99"))
    status, _, by_name = examined()
    assert status == 0 and "no LLVM here" in by_name["Numba"]["value"] and by_name["Numba"]["status"] == "note"


def test_a_check_that_raises_is_a_finding(examined, monkeypatch):
    def python_version():
        raise ValueError("unheard of")

    monkeypatch.setattr(platform, "python_version", python_version)
    _, _, by_name = examined()
    assert "unheard of" in by_name["check failed"]["value"] and "free RAM" in by_name


def test_a_damaged_model_does_not_hide_the_others(examined, tmp_path):
    (tmp_path / "musicgen").mkdir()
    (tmp_path / "musicgen" / "damaged.safetensors").write_bytes(b"\xff" * 100)
    status, _, by_name = examined()
    assert status == 0 and {file.name for file in published.SHIPPED.values()} <= set(by_name)


def test_passwords_and_tokens_are_not_shown(examined, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example:3128")
    monkeypatch.setenv("HF_ENDPOINT", "https://you:secret@mirror.example/hub?token=secret")
    _, answer, by_name = examined()
    assert "secret" not in json.dumps(answer)
    assert "proxy.example:3128" in by_name["proxy"]["value"] and "mirror.example/hub" in by_name["HF_ENDPOINT"]["value"]


def test_offline_is_said(examined, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert examined()[2]["offline"]["status"] == "note"


def test_a_folder_that_cannot_be_written_is_a_note(examined, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, by_name = examined(tmp_path / "file")
    assert status == 0 and by_name["models"]["status"] == "note" and "not writable" in by_name["models"]["value"]
    assert doctor.unwritable(tmp_path / "to" / "be" / "made") == ""


def test_bandwidth_takes_under_a_second():
    begun = time.perf_counter()
    assert doctor.bandwidth(torch, "cpu", 2**26) > 0
    assert time.perf_counter() - begun < 1
