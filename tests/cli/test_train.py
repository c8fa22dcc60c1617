"""python -m musicgen train: from a folder to a file, its folder for PEFT, a picture and a sound; wrong settings."""

import json

import pytest
from comfyui_musicgen.musicgen.checkpoints.containers.safetensors import read_with_metadata
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.tests.finetuning.test_dataset import put, tone

QUICK = [
    "--epochs",
    "1",
    "--updates-per-epoch",
    "2",
    "--batch-size",
    "1",
    "--proof-clips",
    "1",
    "--variants",
    "1",
    "--rank",
    "2",
]


@pytest.fixture
def command(toys, tmp_path):
    for number in range(4):
        put(tmp_path / "set", f"{number}.wav", tone(2.5, hz=220.0 + 30 * number))
    (tmp_path / "set" / "broken.mp3").write_bytes(b"no music" * 99)
    base = toys(n_filters=2, latent_dim=16, segment_s=2.0)
    return [
        "train",
        str(tmp_path / "set"),
        "--base",
        str(base),
        "--models",
        str(tmp_path / "models"),
        "--caption",
        "a tone",
        *QUICK,
    ]


def test_a_folder_becomes_a_fine_tune(command, tmp_path, capsys):
    assert main([*command, "--peft-folder", str(tmp_path / "peft"), "--sample-every", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    target = tmp_path / "models" / "musicgen" / "loras" / "set.safetensors"
    assert printed[-1] == str(target) and any("broken.mp3" in line for line in printed)
    _, metadata = read_with_metadata(target)
    assert json.loads(metadata["settings"])["rank"] == 2 and metadata["verdict"] in printed
    assert {"set.png", "set-00001.flac", "set-00002.flac"} <= {file.name for file in target.parent.iterdir()}
    assert (tmp_path / "peft" / "adapter_config.json").is_file()
    assert not list(target.parent.glob(".set.training"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--lr", "7"], "'lr' must be"),
        (["--method", "whole weights", "--precision", "int8"], "cannot be trained as a whole"),
        (["--out", "x.txt"], "safetensors"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_read(command, more, said, capsys):
    assert main([*command, *more]) == 1
    assert said in capsys.readouterr().err
