"""The contracts of the chord models and of the remixer through a real ComfyUI: each field, sent as the graph that it means."""

import asyncio
import shutil
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.clients import predict as remote
from comfyui_musicgen.musicgen import separation
from comfyui_musicgen.musicgen.audio import Audio, read, write
from comfyui_musicgen.musicgen.replicate import predict as local
from comfyui_musicgen.musicgen.replicate.contracts import contract
from comfyui_musicgen.tests.songs import RATE_HZ, song
from comfyui_musicgen.tests.songs.voiced import voiced_song
from comfyui_musicgen.tests.toy.separator import small_demucs, write_separator

MODEL = "toy-sister"
CHORDS = {"text_chords": "C G,F A:min", "bpm": 150.0, "time_sig": "3/4"}


@pytest.fixture(scope="module")
def sisters(comfy, toys):
    """The server that all share, with a chord model in stereo, the standard codec's width so that the shared diffusion fits."""
    folder = comfy.base / "models" / "musicgen" / MODEL
    shutil.copytree(toys(chords=True, stereo=True, n_filters=2), folder)
    yield comfy
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    samples = torch.from_numpy(song(3)[1][: 6 * RATE_HZ])[None, None]
    return str(write(Audio(samples, RATE_HZ), tmp_path_factory.mktemp("clips") / "my song.wav"))


def served(comfy, out, version="chord", **values):
    request = contract(version).request.of({"prompt": "drums", "seed": 5, **values})
    return asyncio.run(remote.predict(request, comfy.address, MODEL, out=out))


def made_alone(comfy, out, version="chord", **values):
    """The same without a server."""
    options = {"model": MODEL, "models_dir": comfy.base / "models", "device": "cpu", "out": out}
    return local.predict(version=version, **options, **{"prompt": "drums", "seed": 5, **values})


@pytest.mark.parametrize("route", ["text", "audio", "continuation", "continuation with text", "nothing", "diffusion"])
def test_the_server_makes_what_the_engine_makes(sisters, recording, tmp_path, route):
    """One request, twice: through ComfyUI's nodes, and without ComfyUI."""
    part = {"audio_chords": recording, "audio_start": 1, "audio_end": 4}
    values = {
        "text": CHORDS, "audio": {**part, "chroma_coefficient": 2.0}, "continuation": {**part, "continuation": True},
        "continuation with text": {**part, **CHORDS, "continuation": True}, "nothing": {},
        "diffusion": {**CHORDS, "multi_band_diffusion": True},
    }[route]  # fmt: skip
    values = {"duration": 4 if "continuation" in route else 1, "top_k": 30, "classifier_free_guidance": 2, **values}
    one = served(sisters, tmp_path, **values)
    other = made_alone(sisters, tmp_path / "alone.wav", **values)
    torch.testing.assert_close(read(one.file).samples, read(other.file).samples, atol=2e-4, rtol=0)


SETTINGS = {
    "prompt": "other words", "text_chords": "F# Bb:min7", "bpm": 200.0, "time_sig": "2/4", "duration": 2, "top_k": 5, "top_p": 0.5,
    "temperature": 0.5, "classifier_free_guidance": 1, "seed": 0, "normalization_strategy": "rms", "output_format": "mp3",
    "chroma_coefficient": 2.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(sisters, tmp_path_factory):
    return read(served(sisters, tmp_path_factory.mktemp("plain"), duration=1, **CHORDS).file)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_arrives(sisters, plain, tmp_path, name):
    changed = served(sisters, tmp_path, version="stereo-chord", **{"duration": 1, **CHORDS, name: SETTINGS[name]})
    sound = read(changed.file)
    assert plain.samples.shape != sound.samples.shape or not torch.equal(plain.samples, sound.samples)
    assert changed.file.suffix == f".{SETTINGS['output_format'] if name == 'output_format' else 'wav'}"
    assert changed.seed == (0 if name == "seed" else 5)


def test_bad_input_is_named_by_the_server_too(sisters, recording, tmp_path):
    silent = str(write(Audio(torch.zeros(1, 1, 96000), 32000), tmp_path / "silent.wav"))
    with pytest.raises(client.NodeError, match="silent"):
        served(sisters, tmp_path, audio_chords=silent, duration=1)
    with pytest.raises(client.NodeError, match="17 chords"):
        served(sisters, tmp_path, text_chords=",".join(["C"] * 17), bpm=120.0, duration=1)
    with pytest.raises(client.NodeError, match="long"):
        served(sisters, tmp_path, audio_chords=recording, continuation=True, duration=2)


def test_the_command_prints_the_file_last(sisters, tmp_path, capsys):
    arguments = ["--version", "chord", "--server", sisters.address, "--model", MODEL, "--out", str(tmp_path)]
    words = ["--prompt", "x", "--duration", "1", "--seed", "4", "--text-chords", "Am7 | F/C", "--bpm", "240"]
    assert remote.main([*arguments, *words]) == 0
    captured = capsys.readouterr()
    file = Path(captured.out.strip().splitlines()[-1])
    assert file.is_file() and file.parent == tmp_path and "seed: 4" in captured.err
    assert remote.main([*arguments, "--text-chords", "C"]) == 1
    assert "'text_chords' need 'bpm'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def remixer(sisters):
    if not sisters.has_module("demucs"):
        pytest.skip("the Python of this ComfyUI has no demucs")
    file = sisters.base / "models" / "demucs" / separation.WEIGHTS
    if not file.is_file():
        write_separator(small_demucs(), file)
    return sisters


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    return str(write(voiced_song(1, 6.0).song, tmp_path_factory.mktemp("songs") / "a song.wav"))


def test_a_remix_is_a_list_of_files(remixer, music, tmp_path):
    made = served(remixer, tmp_path, "remixer", music_input=music, return_instrumental=True)
    assert len(made.files) == 2 and "background_synced" in made.files[1].name
    mix, instrumental = (read(file) for file in made.files)
    for sound in (mix, instrumental):
        assert abs(sound.duration_s - 6.0) < 0.1 and sound.samples.abs().max() > 0.05
    assert not torch.equal(mix.samples, instrumental.samples)
    (only,) = served(remixer, tmp_path, "remixer", music_input=music, output_format="mp3").files
    assert only.suffix == ".mp3"


REMIX_SETTINGS = {
    "prompt": "other words", "multi_band_diffusion": True, "normalization_strategy": "rms", "beat_sync_threshold": 0.02,
    "large_chord_voca": False, "chroma_coefficient": 2.0, "top_k": 5, "top_p": 0.5, "temperature": 0.5, "classifier_free_guidance": 1,
    "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", REMIX_SETTINGS)
def test_each_setting_of_the_remixer_arrives(remixer, music, tmp_path, name):
    """Of the two that may leave a toy's music as it is, the workflow alone is looked at; the server takes it."""
    first = served(remixer, tmp_path, "remixer", music_input=music)
    changed = served(remixer, tmp_path, "remixer", **{"music_input": music, name: REMIX_SETTINGS[name]})
    assert changed.seed == (0 if name == "seed" else 5)
    if name not in ("beat_sync_threshold", "large_chord_voca"):
        assert not torch.equal(read(first.file).samples, read(changed.file).samples)
    else:
        request = contract("remixer").request.of({"prompt": "x", "music_input": music, name: REMIX_SETTINGS[name]})
        nodes = remote.graph(request)
        value = (
            nodes["align"]["inputs"]["threshold_s"] if "beat" in name else nodes["song heard"]["inputs"]["vocabulary"]
        )
        assert value == {"beat_sync_threshold": 0.02, "large_chord_voca": "triads"}[name]
