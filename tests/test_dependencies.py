"""Broken libraries that we do not use are no reason not to make music; those that we use are named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen.dependencies import require
from comfyui_musicgen.musicgen.errors import DependencyError

ROOT = Path(__file__).resolve().parent.parent


def broken(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise OSError('undefined symbol: built for another torch')")
    return folder


def generate(folder, toy, out):
    return subprocess.run(
        [sys.executable, "-m", "musicgen", "generate", "--model", str(toy), "--prompt", "x", "--duration", "0.5", "--out", str(out)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
    )  # fmt: skip


def test_music_is_made_beside_a_broken_torchaudio_and_soundfile(toys, tmp_path):
    out = tmp_path / "music.wav"
    done = generate(broken(tmp_path / "site", "torchaudio", "soundfile"), toys(), out)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 30000


def test_a_broken_transformers_is_named(toys, tmp_path):
    out = tmp_path / "music.wav"
    done = generate(broken(tmp_path / "site", "transformers"), toys(), out)
    assert done.returncode == 1 and not out.exists()
    assert "'transformers'" in done.stderr and "built for another torch" in done.stderr and "pip install" in done.stderr


def test_an_absent_library_is_named():
    with pytest.raises(DependencyError, match=r"Levelling needs.*'other-name'.*pip install other-name"):
        require("nosuchthing.part", "Levelling", "other-name")
