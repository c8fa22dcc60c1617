"""python -m musicgen, as a user would type it."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.cli import generate
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.replicate import predict as replicate

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


@pytest.mark.slow
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
        (["--duration", "-3"], ["--duration", "12.5 s", "-3"]),
        (["--duration", "99999"], ["--duration", "3600"]),
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


# --- output paths: found before anything is computed


@pytest.fixture
def never(monkeypatch):
    """No model may be loaded, let alone run."""
    monkeypatch.setattr(generate, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr(replicate, "load", lambda *_, **__: pytest.fail("a model was loaded"))


OUT = {
    "device": ("/dev/null", "must end in|does not end in"),
    "folder": (".", "folder|must end|does not end"),
    "absent folder": ("absent/a.wav", "does not exist"),
    "long": ("a" * 300 + ".wav", "too long"),
    "system's": ("/proc/a.wav", "cannot be written"),
    "no suffix": ("a", "must end in|does not end in"),
    "m4a": ("a.m4a", "must end in|does not end in"),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("command", ["generate", "predict"])
@pytest.mark.parametrize("kind", OUT)
def test_outputs_that_cannot_be_are_found_beforehand(never, toys, tmp_path, monkeypatch, capsys, command, kind):
    out, words = OUT[kind]
    monkeypatch.chdir(tmp_path)
    assert main([command, "--model", str(toys()), "--prompt", "x", "--out", out]) == 1
    error = capsys.readouterr().err
    assert re.search(words, error) and "Traceback" not in error
    assert list(tmp_path.iterdir()) == [] and stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs")
def test_a_pipe_is_refused_and_stays(never, toys, tmp_path, capsys):
    for option, name in (("--out", "a.wav"), ("--codes", "a.npy")):
        os.mkfifo(tmp_path / name)
        out = [] if option == "--out" else ["--out", str(tmp_path / "b.wav")]
        assert main(["generate", "--model", str(toys()), option, str(tmp_path / name), *out]) == 1
        assert "pipe" in capsys.readouterr().err and stat.S_ISFIFO((tmp_path / name).stat().st_mode)


@pytest.mark.parametrize("codes", ["a.txt", "a", "absent/a.npy", "a" * 300 + ".npy", "."])
def test_a_file_of_codes_that_cannot_be_is_found_beforehand(never, toys, tmp_path, monkeypatch, capsys, codes):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--model", str(toys()), "--out", "a.wav", "--codes", codes]) == 1
    assert capsys.readouterr().err.startswith("error: ") and list(tmp_path.iterdir()) == []


def test_every_numbered_take_is_checked(never, toys, tmp_path, capsys):
    (tmp_path / "music-2.wav").mkdir()
    assert main(["generate", "--model", str(toys()), "--batch", "2", "--out", str(tmp_path / "music.wav")]) == 1
    assert "music-2.wav' is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.opus", "a.m4a", "a"])
def test_predict_refuses_a_name_of_another_format(never, toys, tmp_path, capsys, name):
    """It got a WAV."""
    assert main(["predict", "--prompt", "x", "--model", str(toys()), "--out", str(tmp_path / name)]) == 1
    error = capsys.readouterr().err
    assert "does not end in .wav" in error and "wav or mp3" in error


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_are_written_through(run, tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("music.wav", "codes.npy"):
        (tmp_path / name).symlink_to(tmp_path / "there" / name)
    status, _, captured = run("--codes", tmp_path / "codes.npy")
    assert status == 0, captured.err
    for name in ("music.wav", "codes.npy"):
        assert (tmp_path / name).is_symlink() and (tmp_path / "there" / name).stat().st_size > 100


# --- a melody, and words


def test_a_melody_is_followed(run, toys, tmp_path):
    model = toys(melody=True)
    clip = audio.write(
        audio.Audio(0.3 * torch.sin(torch.arange(64000) / 9.0)[None, None], 32000), tmp_path / "tune.wav"
    )
    files = []
    for options in ([], ["--melody", clip], ["--melody", clip, "--start", 1, "--stems", "off"]):
        status, out, captured = run(*options, model=model)
        assert status == 0, captured.err
        files.append(out.read_bytes())
    assert files[0] != files[1]
    status, _, captured = run("--melody", clip)
    assert status == 1 and "no melody conditioning" in captured.err and "musicgen-melody" in captured.err
    status, _, captured = run("--melody", tmp_path / "gone.wav", model=model)
    assert status == 1 and "gone.wav does not exist" in captured.err


def test_a_long_melody_is_read_no_further_than_the_music_can_follow_it(run, toys, tmp_path):
    """As with `predict`: what lies further than the music and a minute cannot be read at all here."""
    model, rate_hz = toys(melody=True), 8000
    tune = 0.3 * torch.sin(torch.arange(90 * rate_hz) / 9.0)[None, None]
    whole = audio.write(audio.Audio(tune, rate_hz), tmp_path / "whole.wav", sample_format="f32")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(whole.read_bytes()[: -4 * 20 * rate_hz] + b"\xff" * (4 * 20 * rate_hz))  # NaN
    sounds = []
    for clip, options in ((whole, []), (broken, []), (broken, ["--end", 80])):
        status, out, captured = run("--melody", clip, *options, model=model)
        assert status == 0, captured.err
        sounds.append(out.read_bytes())
    assert sounds[0] == sounds[1] == sounds[2]
    status, _, captured = run("--melody", broken, "--start", 30, model=model)
    assert status == 1 and "NaN" in captured.err
    short = audio.write(audio.Audio(tune[..., : 5 * rate_hz], rate_hz), tmp_path / "short.wav")
    for end_s in (6, 600):  # whether or not the music could follow it so far
        status, _, captured = run("--melody", short, "--end", end_s, model=model)
        assert status == 1 and "5.000 s long" in captured.err


def test_a_clip_and_a_melody_go_together(run, toys, tmp_path):
    model = toys(melody=True)
    clip = audio.write(audio.Audio(torch.rand(1, 1, 32000) - 0.5, 32000), tmp_path / "clip.wav")
    status, out, captured = run("--continue", clip, "--melody", clip, "--end", 0.5, "--duration", 1, model=model)
    assert status == 0, captured.err
    assert audio.read(out).duration_s == 1


@pytest.mark.parametrize(
    "arguments",
    [["--prompt", "a\ud800"], ["--negative", "\udfff"], ["--model", "x" * 5000], ["--model", "\ud800"], ["--device", "\ud800"],
     ["--continue", "\ud800.wav"], ["--melody", "x" * 5000], ["--out", "\ud800.wav"], ["--codes", "\ud800.npy"]],
    ids=ascii,
)  # fmt: skip
def test_half_characters_and_endless_names_are_explained(run, tmp_path, arguments):
    status, _, captured = run(*arguments)
    assert status == 1 and captured.err.startswith("error: ") and "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["mps", "mps:0", "meta", "nonsense", "cuda:77", ""])
def test_a_device_that_is_not_there_is_explained_in_a_sentence(run, device):
    if device.startswith("mps") and torch.backends.mps.is_available():
        pytest.skip("this machine has Apple's GPU")
    status, _, captured = run("--device", device)
    assert status == 1 and f"--device {device}" in captured.err and "give cpu" in captured.err
    assert len(captured.err) < 400 and "Facebook" not in captured.err


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(name, marks=pytest.mark.slow) for name in ("latin-1", "cp949"))]
)
def test_a_console_of_few_characters_gets_every_file(toys, tmp_path, encoding):
    """The first name that it could not show ended the batch."""
    out = tmp_path / "판소리 ♪.wav"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "HF_HUB_OFFLINE": "1"}
    options = ["--model", str(toys()), "--duration", "0.5", "--batch", "2", "--out", str(out)]
    command = [sys.executable, "-m", "musicgen", "generate", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and len(list(tmp_path.iterdir())) == 2
