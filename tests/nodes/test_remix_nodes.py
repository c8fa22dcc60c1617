"""Separate Stems, Align to Beats and Mix without ComfyUI, and the two commands."""

import json

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import audio, separation
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.errors import CheckpointError, DependencyError, InputError
from comfyui_musicgen.tests.songs.voiced import SONG_RATE_HZ, voiced_song
from comfyui_musicgen.tests.toy.separator import small_demucs, write_separator

SMALL = {"n_filters": 2, "latent_dim": 16}


def sound(seconds=2.0, level=0.1, channels=2, seed=0):
    samples = torch.randn(1, channels, round(seconds * 32000), generator=torch.Generator().manual_seed(seed))
    return {"waveform": level * samples, "sample_rate": 32000}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder of small random weights under the standard name, where Demucs itself would look."""
    write_separator(small_demucs(), tmp_path / "hub" / "checkpoints" / separation.WEIGHTS)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def test_stems_add_up(weights):
    given = sound()
    stems = NODES["MusicGenStems"]().separate(given, "")
    assert len(stems) == 5 and all(stem["sample_rate"] == 32000 for stem in stems)
    torch.testing.assert_close(sum(stem["waveform"] for stem in stems), given["waveform"], atol=1e-6, rtol=0)


def test_weights_that_are_not_there_are_named(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"models/demucs.*'\.\./x\.th'"):
        NODES["MusicGenStems"]().separate(sound(), "../x.th")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises((CheckpointError, DependencyError), match="demucs"):
        NODES["MusicGenStems"]().separate(sound(), "")


def test_music_is_laid_on_written_beats():
    given = sound(8.0)
    kept = given["waveform"].clone()
    beats = ", ".join(f"{0.5 * k:.2f}" for k in range(16))
    target = json.dumps({"beats_s": [0.1 + 0.52 * k for k in range(16)]})
    made, report = NODES["MusicGenAlign"]().align(given, beats, target, 0.5, 1.25, like=sound(9.0, channels=1))
    assert made["waveform"].shape[-1] == 9 * 32000 and "16 of 16 beats are paired" in report
    assert torch.equal(given["waveform"], kept)
    same, report = NODES["MusicGenAlign"]().align(given, "", target, 0.5, 1.25)
    torch.testing.assert_close(same["waveform"], kept, atol=1e-6, rtol=0)
    assert "No beats of the music" in report


def test_a_mix_takes_what_is_connected():
    node, first, second = NODES["MusicGenMix"](), sound(2.0, 0.1), sound(3.0, 0.01, seed=1)
    mixed, report = node.mix(first, 0.0, True, 1.0, audio_3=second, gain_3_db=-3.0)
    assert mixed["waveform"].shape == (1, 2, 96000) and report.count("LUFS") == 2
    alone, _ = node.mix(first, 0.0, True, 1.0)
    assert torch.allclose(alone["waveform"], first["waveform"])
    with pytest.raises(InputError, match="'gain_1_db'"):
        node.mix(first, 99.0, True, 1.0)
    with pytest.raises(InputError, match="'audio_1'"):
        node.mix(None, 0.0, True, 1.0)


# Commands


@pytest.fixture
def files(tmp_path):
    voiced = voiced_song(1, 5.0)
    for name in ("song", "voice"):
        audio.write(getattr(voiced, name), tmp_path / f"{name}.wav")
    return tmp_path


def test_a_song_is_remixed_with_its_voice_at_hand(files, toys, capsys):
    out, background = files / "made.flac", files / "background.wav"
    status = main(
        ["remix", str(files / "song.wav"), "--prompt", "calm", "--vocals", str(files / "voice.wav"), "--out", str(out), "--background",
         str(background), "--model", str(toys(chords=True, **SMALL)), "--end", "4"]
    )  # fmt: skip
    shown = capsys.readouterr()
    assert status == 0 and shown.out.splitlines() == [str(out), str(background)]
    assert "heard:" in shown.err and "told: calm" in shown.err
    made = audio.read(out)
    assert made.rate_hz == SONG_RATE_HZ and made.n_channels == 2 and made.duration_s == pytest.approx(4.0, abs=0.001)
    assert audio.read(background).duration_s == pytest.approx(4.0, abs=0.001)


def test_what_is_wrong_is_told_before_a_model_is_loaded(files, toys, capsys, monkeypatch):
    plain = str(toys(**SMALL))
    arguments = ["remix", str(files / "song.wav"), "--out", str(files / "x.wav"), "--model", plain]
    assert main([*arguments, "--vocals", str(files / "voice.wav")]) == 1
    assert "neither chords nor melodies" in capsys.readouterr().err
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(files / "none"))
    monkeypatch.setenv("HF_HUB_CACHE", str(files))
    assert main(arguments) == 1 and "demucs" in capsys.readouterr().err
    assert not (files / "x.wav").exists()


def test_stems_are_written(files, weights, capsys):
    assert main(["stems", str(files / "song.wav"), "--end", "2", "--out", str(files / "parts.flac")]) == 0
    names = [f"parts-{name}.flac" for name in ("vocals", "drums", "bass", "other", "rest")]
    assert capsys.readouterr().out.splitlines() == [str(files / name) for name in names]
    total = sum(audio.read(files / name).samples for name in names)
    song = audio.read(files / "song.wav", 0, 2).samples
    assert (total - song).abs().max() < 1e-3, "16 bits each"
