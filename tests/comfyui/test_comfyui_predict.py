"""The Replicate contract through a real ComfyUI: each field, sent as the graph that it means."""

import asyncio
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.clients import predict as remote
from comfyui_musicgen.musicgen.audio import Audio, read, write
from comfyui_musicgen.musicgen.replicate import predict as local
from comfyui_musicgen.musicgen.replicate.contracts import PansoriRequest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    t = torch.arange(3 * 44100) / 44100
    wave = 0.3 * torch.sin(2 * torch.pi * (220 + 60 * t) * t)
    return write(Audio(wave.expand(1, 2, -1).clone(), 44100), tmp_path_factory.mktemp("clips") / "my clip.wav")


@pytest.fixture
def make(comfy, tmp_path):
    def call(model="toy-melody", **values):
        request = PansoriRequest.of({"prompt": "drums", "duration": 1, "seed": 5, **values})
        made = asyncio.run(remote.predict(request, comfy.address, model, out=tmp_path))
        return read(made.file), made

    return call


def test_the_server_makes_what_the_engine_makes(comfy, make, clip, tmp_path):
    """One request, twice: through ComfyUI's nodes, and without ComfyUI."""
    values = {
        "prompt": "drums",
        "duration": 2,
        "seed": 8,
        "input_audio": str(clip),
        "top_k": 30,
        "classifier_free_guidance": 2,
    }
    served, _ = make(**values)
    folder = comfy.base / "models" / "musicgen" / "toy-melody"
    alone = local.predict(model=folder, out=tmp_path / "alone.wav", device="cpu", **values)
    torch.testing.assert_close(served.samples, read(alone.file).samples, atol=2e-4, rtol=0)


@pytest.mark.slow  # without a server, tests/replicate holds the same
@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "other words"}, {"duration": 2}, {"top_k": 5}, {"top_p": 0.5}, {"temperature": 0.5},
        {"classifier_free_guidance": 1}, {"seed": 0}, {"normalization_strategy": "rms"}, {"output_format": "mp3"},
    ],
    ids=str,
)  # fmt: skip
def test_each_setting_arrives(make, values):
    plain, _ = make()
    changed, made = make(**values)
    assert plain.samples.shape != changed.samples.shape or not torch.equal(plain.samples, changed.samples)
    assert made.file.suffix == f".{values.get('output_format', 'wav')}"
    assert made.seed == values.get("seed", 5)


def test_melody_and_continuation_arrive(make, clip):
    plain, _ = make()
    melody, _ = make(input_audio=str(clip))
    assert not torch.equal(plain.samples, melody.samples)
    options = {"input_audio": str(clip), "continuation": True, "continuation_start": 1}
    for end, duration in ((2, 2), (-1, 3), (None, 3)):
        sound, _ = make(**options, continuation_end=end, duration=duration)
        assert sound.duration_s == duration
    with pytest.raises(client.NodeError, match="2 s long"):
        make(**options, duration=2)


def test_no_seed_is_random_and_reported(make):
    first, made = make(seed=None)
    _, other = make(seed=-1)
    assert made.seed != other.seed
    again, _ = make(seed=made.seed)
    assert torch.equal(first.samples, again.samples)


def test_blank_weights_are_the_default_model_also_after_a_fine_tune(comfy, make):
    plain, _ = make()
    tuned, _ = make(replicate_weights="toy-melody-tuned")
    again, _ = make(replicate_weights="", seed=5)
    assert torch.equal(plain.samples, again.samples) and not torch.equal(plain.samples, tuned.samples)


def test_multi_band_diffusion_decodes_as_it_does_without_a_server(comfy, make, tmp_path):
    served, _ = make(multi_band_diffusion=True)
    plain, _ = make()
    models = comfy.base / "models"
    alone = local.predict(
        model="toy-melody", models_dir=models, out=tmp_path / "alone.wav", device="cpu",
        prompt="drums", duration=1, seed=5, multi_band_diffusion=True,
    )  # fmt: skip
    torch.testing.assert_close(served.samples, read(alone.file).samples, atol=2e-4, rtol=0)
    assert not torch.equal(served.samples, plain.samples)


def test_melody_for_a_model_that_has_none_is_explained(make, clip):
    with pytest.raises(client.NodeError, match="no melody conditioning"):
        make(model="toy", input_audio=str(clip))


def test_the_command_prints_the_file_last(comfy, tmp_path, capsys):
    arguments = ["--server", comfy.address, "--model", "toy", "--out", str(tmp_path)]
    assert remote.main([*arguments, "--prompt", "x", "--duration", "1", "--seed", "4"]) == 0
    captured = capsys.readouterr()
    file = Path(captured.out.strip().splitlines()[-1])
    assert file.is_file() and file.parent == tmp_path and "seed: 4" in captured.err
    assert remote.main([*arguments, "--duration", "1"]) == 1
    assert "prompt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["follow_a_melody", "pansori_fine-tune", pytest.param("two_minutes_of_music", marks=pytest.mark.slow)]
)
def test_shipped_workflows_run(comfy, name, tmp_path, clip):
    prompt = client.load_workflow(ROOT / "workflows" / "api" / f"{name}.json")
    classes = {node["class_type"] for node in prompt.values()}
    changes = {"MusicGenLoader.model": "toy-melody", "MusicGenSampler.duration_s": 1.0}
    if "MusicGenFineTune" in classes:
        changes["MusicGenFineTune.weights"] = "toy-melody-tuned"
    if name == "two_minutes_of_music":
        changes |= {"MusicGenSampler.duration_s": 31.0, "MusicGenLoader.model": "toy"}
    for target, value in changes.items():
        prompt = client.with_input(prompt, target, value)
    uploads = [(None, clip)] if "LoadAudio" in classes else []
    _, files = comfy.client_run(prompt, out=tmp_path, uploads=uploads)
    sounds = [file for file in files if file.suffix == ".flac"]
    assert len(sounds) == 1 and read(sounds[0]).duration_s == changes["MusicGenSampler.duration_s"]
