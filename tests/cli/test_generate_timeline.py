"""generate --timeline, --anchor and --ending; evaluate --long."""

import subprocess

import pytest
import torch
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.cli.main import main


@pytest.fixture
def run(toys, tmp_path, capsys):
    def call(*arguments):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.wav"
        status = main(
            ["generate", "--model", str(toys(segment_s=0.5)), "--duration", "0.8", "--extend-stride", "0.3", "--normalize", "off",
             "--out", str(out), *map(str, arguments)]
        )  # fmt: skip
        return status, audio.read(out).samples if out.exists() else None, capsys.readouterr().err

    return call


def test_a_timeline_of_one_text_is_the_prompt_and_one_of_two_is_not(run):
    _, plain, _ = run("--prompt", "calm")
    _, one, _ = run("--timeline", "calm")
    _, two, _ = run("--timeline", "0: calm | 0.1: loud drums of a marching band", "--anchor", 0.1)
    assert torch.equal(one, plain) and two.shape == plain.shape and not torch.equal(two, plain)


def test_endings(run):
    _, plain, _ = run("--timeline", "calm")
    _, faded, _ = run("--timeline", "calm", "--ending", "fade")
    assert not torch.equal(faded, plain) and faded[..., -50:].abs().max() < 1e-3
    status, asked, _ = run("--timeline", "calm", "--ending", "cadence")
    assert status == 0 and not torch.equal(asked, plain)


def test_what_does_not_go_together_is_refused_before_anything_is_loaded(run):
    for arguments, words in (
        (["--timeline", "calm | drums"], "entry 2, 'drums': it has no time"),
        (["--timeline", "calm", "--prompt", "x"], "'--prompt' and '--timeline' are both given"),
        (["--prompt", "x", "--ending", "cadence"], "'--ending cadence' belongs to a '--timeline'"),
    ):
        status, samples, error = run(*arguments, "--model", "/no/such/model")
        assert status == 1 and samples is None and words in error


def test_evaluate_hands_over_what_long_pieces_need(tmp_path, monkeypatch):
    from comfyui_musicgen.musicgen.cli import evaluate

    asked, done = [], subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(evaluate.subprocess, "run", lambda command, **options: asked.append(command) or done)
    (tmp_path / "some.safetensors").write_bytes(b"")
    assert main(["evaluate", str(tmp_path / "some.safetensors"), "--long", "--minutes", "3", "--anchor", "1.5"]) == 0
    at = asked[0].index("--long")
    assert asked[0][at : at + 7] == ["--long", "--pieces", "4", "--minutes", "3", "--anchor", "1.5"]
