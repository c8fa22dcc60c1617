"""generate --chords, --bpm, --meter and --chord-strength."""

import logging

import pytest
import torch
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.cli.main import main

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


@pytest.fixture
def run(toys, tmp_path, capsys):
    def call(*arguments, **options):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.wav"
        model = toys(**SMALL, **(options or {"chords": True}))
        status = main(
            ["generate", "--model", str(model), "--duration", "0.8", "--normalize", "off", "--out", str(out), *map(str, arguments)]
        )  # fmt: skip
        return status, audio.read(out).samples if out.exists() else None, capsys.readouterr().err

    return call


def test_chords_tempo_meter_and_strength_count(run):
    _, plain, _ = run()
    written = [
        ("--chords", "C G"), ("--chords", "F G"), ("--chords", "C,F C", "--bpm", 240), ("--chords", "C,F C", "--bpm", 240, "--meter", "2/4"),
        ("--chords", "C G", "--chord-strength", 2),
    ]  # fmt: skip
    sounds = [plain, *(run(*arguments)[1] for arguments in written)]
    assert all(not torch.equal(a, b) for i, a in enumerate(sounds) for b in sounds[:i])
    tempo = ("--bpm", 120, "--meter", "4/4")
    assert torch.equal(run("--chords", "| C | G |", *tempo)[1], run("--chords", "C G", *tempo)[1])


def test_chords_longer_than_the_piece_are_told_in_the_log(run, caplog):
    with caplog.at_level(logging.INFO):
        assert run("--chords", "C G")[0] == 0
    assert "2 bars of 4/4 at 120 bpm: 4 s" in caplog.text and "the chords last 4 s, the music 0.8 s" in caplog.text


def test_what_is_wrong_is_refused_before_anything_is_loaded(run):
    for arguments, words in (
        (["--chords", "C Gfoo"], "'chords', bar 2, 'Gfoo'"),
        (["--chords", "C am"], "upper case: 'Am'"),
        (["--chords", ""], "'chords' is empty"),
        (["--chords", "C", "--bpm", "0"], "'bpm' must be a number from 20 to 400"),
        (["--chords", "C", "--meter", "7/0"], "'meter' must be beats and their unit"),
        (["--chords", "C", "--melody", "/no/such.wav"], "'--chords' and '--melody' are both given"),
    ):
        status, samples, error = run(*arguments, "--model", "/no/such/model")
        assert status == 1 and samples is None and words in error, error
    assert "'strength' must be a number" in run("--chords", "C", "--chord-strength", 9)[2]


def test_a_model_without_chroma_is_refused(run):
    status, samples, error = run("--chords", "C", stereo=True)
    assert status == 1 and samples is None and "no chord or melody conditioning" in error
