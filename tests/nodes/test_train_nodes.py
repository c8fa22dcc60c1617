"""Training Clips and Train Fine-Tune without ComfyUI: what they take, refuse, and write."""

import sys
from types import SimpleNamespace

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.checkpoints.containers.safetensors import read_with_metadata
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.nodes import host, train
from comfyui_musicgen.tests.finetuning.test_dataset import put, tone

SETTINGS = {
    "name": "a style", "epochs": 1, "updates_per_epoch": 2, "batch_size": 1, "optimizer": "adamw", "lr": 1e-3,
    "lr_scheduler": "cosine", "warmup": 0, "cfg_p": 0.3, "rank": 2, "seed": 0,
}  # fmt: skip


@pytest.fixture
def comfy_folders(tmp_path, monkeypatch):
    """A fake folder_paths with an input, a temp and a models folder."""
    module = SimpleNamespace(
        get_input_directory=lambda: str(tmp_path / "input"),
        get_temp_directory=lambda: str(tmp_path / "temp"),
        models_dir=str(tmp_path / "models"),
        get_folder_paths=lambda name: [str(tmp_path / "models" / name)],
    )
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    for name in ("input", "temp", "models/musicgen"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def music(comfy_folders):
    for number in range(4):
        put(comfy_folders / "input" / "set", f"{number}.wav", tone(2.5, hz=220.0 + 30 * number))
    return NODES["MusicGenDataset"]().read("set", "a tone", "", False, False)


def test_a_folder_of_the_input_folder_is_read(music, comfy_folders):
    dataset, report, picture = music
    assert len(dataset.clips) == 4 and "4 clips" in report and picture.shape[0] == 1 and picture.shape[-1] == 3
    (comfy_folders / "input" / "set" / "more.wav").write_bytes(b"x")
    state = NODES["MusicGenDataset"].IS_CHANGED("set")
    (comfy_folders / "input" / "set" / "more.wav").unlink()
    assert NODES["MusicGenDataset"].IS_CHANGED("set") != state


def test_the_example_is_there():
    names = {path.name for path in (train.EXAMPLES / train.EXAMPLE).iterdir()}
    assert (
        len({name for name in names if name.endswith(".opus")}) == 10
        and sum(path.stat().st_size for path in (train.EXAMPLES / train.EXAMPLE).iterdir()) < 1_000_000
    )
    assert NODES["MusicGenDataset"].VALIDATE_INPUTS(train.EXAMPLE) is True


@pytest.mark.parametrize(
    "name", ["", "../set", "/etc", "nowhere", "set/../../x", "c:\\x", "a\0b", "gayageum scale.flac"]
)
def test_no_other_folder_is_read(comfy_folders, name):
    assert "input folder" in NODES["MusicGenDataset"].VALIDATE_INPUTS(name)
    with pytest.raises(InputError, match="'folder' must name"):
        NODES["MusicGenDataset"]().read(name, "", "", True, False)


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "x" * 150, "a\0", "nul:", "dots. . "])
def test_a_name_that_no_file_can_have_is_refused(name):
    assert "'name'" in str(NODES["MusicGenTrain"].VALIDATE_INPUTS(name))


def test_a_training_writes_its_file_and_hands_everything_on(music, comfy_folders, toys):
    from comfyui_musicgen.musicgen import loading

    loaded = loading.load(toys(n_filters=2, latent_dim=16, segment_s=2.0), "float32")
    parts = [host.Managed(module, "model") for module in (loaded.model, loaded.conditioner, loaded.codec)]
    weights_before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    with torch.inference_mode():  # as ComfyUI runs nodes
        made = NODES["MusicGenTrain"]().train(*parts, music[0], **SETTINGS, variants=1, proof_clips=1)
    weights, loss_map, steps, report, picture, sound = made["result"]
    assert weights == "loras/a style.safetensors" and len(loss_map["loss"]) == 2 and steps in (0, 1, 2)
    assert report.splitlines()[0].endswith(".") and picture.shape == (1, 520, 840, 3)
    assert sound["waveform"].shape[0] == 1 and sound["sample_rate"] == 32000
    file = comfy_folders / "models" / "musicgen" / weights
    _, metadata = read_with_metadata(file)
    for key in (
        "base",
        "base_fingerprint",
        "license",
        "license_note",
        "data",
        "settings",
        "seed",
        "training",
        "proof",
        "verdict",
    ):
        assert metadata[key], key
    assert not (file.parent / ".a style.training").exists(), "the checkpoint of a finished training is removed"
    after = loaded.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in weights_before.items()), "the base stays as it is"


def test_cancel_keeps_the_training_which_then_goes_on(music, comfy_folders, toys, monkeypatch):
    from comfyui_musicgen.musicgen import loading
    from comfyui_musicgen.musicgen.finetuning import trainer

    loaded = loading.load(toys(n_filters=2, latent_dim=16, segment_s=2.0), "float32")
    parts = [host.Managed(module, "model") for module in (loaded.model, loaded.conditioner, loaded.codec)]
    updates, said = [], []
    monkeypatch.setattr(host, "show_text", said.append)

    class Cancelled(BaseException):
        pass

    update = trainer.Trainer._update

    def cancelled(self, watcher):
        updates.append(self.step)
        if updates == [0, 1]:
            raise Cancelled
        update(self, watcher)

    monkeypatch.setattr(trainer.Trainer, "_update", cancelled)
    run = lambda: NODES["MusicGenTrain"]().train(*parts, music[0], **SETTINGS, variants=1, proof_clips=0)  # noqa: E731
    monkeypatch.setattr(host, "is_cancel", lambda error: isinstance(error, Cancelled))
    with pytest.raises(Cancelled):
        run()
    assert said[-1] == "Cancelled after update 1 of 2. The next run with the same inputs goes on from there."
    assert (comfy_folders / "models" / "musicgen" / "loras" / ".a style.training" / "checkpoint.pt").is_file()
    assert len(run()["result"][1]["loss"]) == 2 and updates == [0, 1, 1]
    stages = [text.split(":")[0] for text in said if text.endswith(" %")]
    assert list(dict.fromkeys(stages)) == [
        "listening to your clips",
        "writing the model's own music, to be kept",
        "comparing",
    ]
    assert any(text.startswith("learning, update 2 of 2, 0 s left\nloss ") for text in said)
    assert said[-1].startswith("Hardly heard") and said[-1].split("\n")[1].startswith(
        "How much better it knows your music: "
    )


def test_objects_of_different_models_are_refused(music, comfy_folders, toys):
    from comfyui_musicgen.musicgen import loading

    mono, stereo = (
        loading.load(toys(n_filters=2, latent_dim=16, stereo=stereo), "float32") for stereo in (False, True)
    )
    model, conditioner, codec = (
        host.Managed(module, "model") for module in (mono.model, mono.conditioner, stereo.codec)
    )
    with pytest.raises(InputError, match="'codec' is"):
        NODES["MusicGenTrain"]().train(model, conditioner, codec, music[0], **SETTINGS)
    with pytest.raises(InputError, match="dataset"):
        NODES["MusicGenTrain"]().train(model, conditioner, host.Managed(mono.codec, "codec"), "set", **SETTINGS)


def test_a_clip_is_handed_to_the_page_whole(monkeypatch):
    from comfyui_musicgen.nodes import live

    sent = []
    page = type("Page", (), {"send": lambda self, event, data: sent.append(data)})()
    monkeypatch.setattr(host, "page", lambda: page)
    live.play(audio.Audio(torch.zeros(1, 2, 48_000), 32_000))
    assert [one["kind"] for one in sent] == ["begin", "sound", "sound", "end"]
    assert sum(one["length"] for one in sent if one["kind"] == "sound") == 48_000 and sent[0]["rate_hz"] == 32_000
    assert sent[-1]["status"] == "whole", "it was not written"
