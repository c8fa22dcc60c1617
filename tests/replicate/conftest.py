"""Chord requests that the tests of the contracts share."""

import pytest
import torch
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.replicate import predict as predicting
from comfyui_musicgen.musicgen.replicate.predict import predict
from comfyui_musicgen.tests.songs import RATE_HZ, song


@pytest.fixture(scope="session")
def chord_toy(toys):
    """A chord model in stereo: eight codebooks, small enough for seconds of music in tests."""
    return toys(chords=True, stereo=True, n_filters=2, latent_dim=16)


@pytest.fixture(scope="session")
def recording(tmp_path_factory):
    """Eight seconds of a piece with chords and drums."""
    samples = torch.from_numpy(song(3)[1][: 8 * RATE_HZ])[None, None]
    return audio.write(audio.Audio(samples, RATE_HZ), tmp_path_factory.mktemp("clips") / "song.wav")


@pytest.fixture
def make_chords(chord_toy, tmp_path):
    """predict() with the toy, one second long unless said otherwise."""

    def call(**values):
        out = tmp_path / f"made-{len(list(tmp_path.iterdir()))}.{values.get('output_format', 'wav')}"
        values = {"version": "chord", "model": chord_toy, "prompt": "pop", "duration": 1, "seed": 5, **values}
        made = predict(models_dir=tmp_path / "models", out=out, device="cpu", **values)
        return audio.read(made.file), made

    return call


@pytest.fixture
def told(monkeypatch, chord_toy, tmp_path):
    """What a request makes the engine render: (RenderRequest, GenerationParams). Nothing is made."""

    class Told(Exception):
        pass

    def render(loaded, sources, params, *_):
        raise Told(sources, params)

    def call(**values):
        with pytest.raises(Told) as raised:
            predict(version="chord", model=chord_toy, out=tmp_path / "a.wav", device="cpu", **values)
        return raised.value.args

    monkeypatch.setattr(predicting, "render", render)
    return call
