"""python -m musicgen, as a user would type it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture()
def run(toys, tmp_path, capsys):
    def call(*arguments, model=None):
        out = tmp_path / "music.wav"
        options = [
            "generate",
            "--model",
            str(model or toys()),
            "--duration",
            "1",
            "--out",
            str(out),
            *map(str, arguments),
        ]
        status = main(options)
        return status, out, capsys.readouterr()

    return call


def test_generate_in_a_process_of_its_own(toys, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    python = [sys.executable, "-m", "musicgen"]
    out = tmp_path / "song.flac"
    done = subprocess.run(
        [*python, "generate", "--model", str(toys(stereo=True)), "--prompt", "drums", "--duration", "1", "--out", str(out)],
        cwd=ROOT, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(out) and "writing codes" in done.stderr
    song = audio.read(out)
    assert song.rate_hz == 32000 and song.n_channels == 2 and song.n_samples == 32000
    assert song.samples.abs().max() > 0.01


def test_same_seed_same_file_and_codes(run, tmp_path):
    import numpy

    for name in ("a", "b"):
        status, out, _ = run("--seed", 9, "--codes", tmp_path / f"{name}.npy")
        assert status == 0
        out.rename(tmp_path / f"{name}.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    codes = numpy.load(tmp_path / "a.npy")
    assert codes.shape == (1, 4, 50) and codes.dtype == numpy.int64
    assert (codes == numpy.load(tmp_path / "b.npy")).all()


def test_several_takes_are_numbered(run, tmp_path):
    status, out, captured = run("--batch", 2)
    assert status == 0 and not out.exists()
    files = [tmp_path / "music-1.wav", tmp_path / "music-2.wav"]
    assert captured.out.split() == [str(f) for f in files] and all(f.exists() for f in files)
    assert files[0].read_bytes() != files[1].read_bytes()


def test_a_clip_is_continued(run, tmp_path):
    status, clip, _ = run()
    clip = clip.rename(tmp_path / "clip.wav")
    status, out, _ = run("--continue", clip, "--start", 0.25, "--end", 0.75, "--duration", 1.5, "--negative", "noise")
    assert status == 0 and audio.read(out).duration_s == 1.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--duration", "-3"], ["duration_s", "-3"]),
        (["--duration", "1e9"], ["duration_s", "3600"]),
        (["--temperature", "99"], ["temperature", "10"]),
        (["--continue", "nowhere.wav"], ["nowhere.wav"]),
        (["--model", "no/such-model"], ["no/such-model"]),
        (["--out", "music.xyz"], [".wav", ".mp3"]),
        (["--out", "no/folder/music.wav"], ["no/folder"]),
        (["--device", "cuda:77"], ["cuda:77", "cpu"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_input_is_explained_and_nothing_written(run, tmp_path, arguments, words):
    status, _, captured = run(*arguments)
    assert status == 1 and captured.err.startswith("error: ")
    for word in words:
        assert word in captured.err
    assert not captured.out and not list(tmp_path.glob("*.wav"))


def test_a_prompt_longer_than_the_piece_is_explained(run, tmp_path):
    _, clip, _ = run()
    clip = clip.rename(tmp_path / "clip.flac")
    status, out, captured = run("--continue", clip, "--duration", 0.5)
    assert status == 1 and "1 s" in captured.err and "0.5 s" in captured.err and not out.exists()


def test_evaluate_hands_over_to_the_recipe_and_passes_on_its_verdict(tmp_path, monkeypatch):
    from comfyui_musicgen.musicgen.cli import evaluate

    asked = []
    done = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(evaluate.subprocess, "run", lambda command, **options: asked.append((command, options)) or done)
    (tmp_path / "some.safetensors").write_bytes(b"")
    model, out = str(tmp_path / "some.safetensors"), str(tmp_path / "out")
    assert main(["evaluate", model, "--out", out, "--prompts", "2"]) == 1
    (command, options), *_ = asked
    assert command[1:4] == ["-m", "training", "evaluate"] and options["cwd"] == ROOT
    assert command[command.index("--prompts") + 1] == "2" and out in command


def test_the_recipe_explains_what_it_cannot_open(tmp_path):
    command = [sys.executable, "-m", "training", "evaluate", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
