"""Fit Tempo without ComfyUI, and `generate --duration "... bars" --fit-tempo`."""

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.tests.songs import RATE_HZ, song

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


def test_the_music_gets_the_tempo_and_its_bars_begin_at_0():
    score, samples = song(0)
    given = {"waveform": torch.from_numpy(samples)[None, None, : 12 * RATE_HZ], "sample_rate": RATE_HZ}
    kept = given["waveform"].clone()
    asked = score.bpm * 0.95
    made, bpm, report = NODES["MusicGenTempo"]().fit(given, asked, f"{score.meter}/4", "stretch and align")
    assert bpm == pytest.approx(asked, rel=0.005) and "times as fast" in report and "first bar" in report
    assert made["sample_rate"] == RATE_HZ and torch.equal(given["waveform"], kept)
    same, bpm, report = NODES["MusicGenTempo"]().fit(given, asked, "4/4", "measure")
    assert torch.equal(same["waveform"], kept) and bpm == pytest.approx(score.bpm, rel=0.005) and "+5.3 %" in report


@pytest.mark.parametrize(
    ("inputs", "words"), [({"bpm": 5.0}, "'bpm'"), ({"meter": "x"}, "'meter'"), ({"way": "warp"}, "'way'")]
)
def test_what_is_wrong_is_refused_by_name(inputs, words):
    given = {"waveform": torch.rand(1, 1, 3 * RATE_HZ), "sample_rate": RATE_HZ}
    with pytest.raises(InputError, match=words):
        NODES["MusicGenTempo"]().fit(**{"audio": given, "bpm": 120.0, "meter": "4/4", "way": "measure", **inputs})


@pytest.fixture
def generate(toys, tmp_path, capsys):
    def call(*arguments):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.wav"
        status = main(["generate", "--model", str(toys(**SMALL)), "--out", str(out), *arguments])
        return status, audio.read(out) if out.exists() else None, capsys.readouterr().err

    return call


def test_a_piece_of_bars_is_as_long_as_they_are(generate):
    status, made, _ = generate("--duration", "1 bar @ 120 in 3/4")
    assert status == 0 and made.duration_s == pytest.approx(1.5, abs=0.02)
    plain = generate("--duration", "1.5")[1]
    assert not torch.equal(plain.samples, made.samples), "the tempo is told in the text"
    told = generate("--duration", "1.5", "--prompt", "3/4, bpm : 120.0")[1]
    assert torch.equal(told.samples, made.samples)


def test_the_tempo_is_measured_or_what_hinders_it_is_said_and_the_music_is_there(generate):
    status, made, error = generate("--duration", "1 bar @ 120", "--fit-tempo", "stretch and align")
    assert status == 0 and made.duration_s > 1 and ("are heard" in error or "No pulse" in error)
    status, made, error = generate("--duration", "1.0", "--bpm", "120", "--fit-tempo", "measure")
    assert status == 0 and made.duration_s == pytest.approx(1.0, abs=0.02) and "2 s" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--duration", "8 bars"], "'--duration' names no tempo"),
        (["--duration", "soon"], "'--duration' must be a length"),
        (["--fit-tempo", "stretch"], "'--fit-tempo' needs the tempo"),
        (["--bpm", "90", "--meter", "13/8", "--fit-tempo", "measure"], "13 beats"),
        (["--bpm", "0"], "'bpm' must be a number from 20"),
        (["--meter", "7/0"], "'meter'"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_made(generate, arguments, words):
    status, made, error = generate(*arguments)
    assert status == 1 and made is None and words in error
