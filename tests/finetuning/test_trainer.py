"""A training from its folder to its file: what it learns, that it goes on where it was killed, that its file is PEFT's."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints.containers.safetensors import read_with_metadata
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.finetuning import export
from comfyui_musicgen.musicgen.finetuning.batches import Window, batch, split_tracks
from comfyui_musicgen.musicgen.finetuning.encoding import Encoded
from comfyui_musicgen.musicgen.finetuning.loss import cell_losses
from comfyui_musicgen.musicgen.finetuning.model import AtStrength, build, state_of
from comfyui_musicgen.musicgen.finetuning.samples import merged
from comfyui_musicgen.musicgen.finetuning.settings import TrainSettings
from comfyui_musicgen.musicgen.finetuning.trainer import Music, Trainer, clip_losses, schedule

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


class Silent:
    """A watcher that does nothing, or raises at an update."""

    def __init__(self, stop_at=None):
        self.stop_at, self.steps = stop_at, []

    def check(self):
        pass

    def updated(self, step, total, left_s, history):
        self.steps.append(step)
        if step == self.stop_at:
            raise KeyboardInterrupt

    def sample_due(self, step, model):
        pass


def tracks_of(config, n=6, n_frames=40):
    """Music with a pattern: each codebook repeats four codes, different from track to track by their order."""
    generator = torch.Generator().manual_seed(9)
    made = []
    for number in range(n):
        codes = (torch.arange(n_frames) + number)[None] % 4 * 7 + torch.arange(config.lm.n_codebooks)[:, None]
        states = torch.randn(3, config.text.dim, generator=generator)
        made.append(Encoded(f"track {number}", codes.short(), states, "a pattern"))
    return made


def music_of(config, n_frames=24):
    split = split_tracks(tracks_of(config), 0)
    held = [Window(track.codes[:, :n_frames], track.states, None) for track in split.held_out]
    noise = torch.randint(
        config.lm.cardinality, (2, config.lm.n_codebooks, n_frames), generator=torch.Generator().manual_seed(4)
    )
    return Music(
        split.learned, [], held, [Window(codes.short(), split.learned[0].states, None) for codes in noise], n_frames, 0
    )


def trained(source, folder=None, watcher=None, **options):
    settings = TrainSettings(
        **{
            "epochs": 1,
            "updates_per_epoch": 6,
            "batch_size": 2,
            "lr": 5e-3,
            "warmup": 1,
            "max_forgetting": 0.0,
            **options,
        }
    )
    model = build(source, settings, CPU)
    trainer = Trainer(model, music_of(source.config), settings, folder, "a training")
    history = trainer.run(watcher or Silent())
    return model, history


@pytest.fixture(scope="module")
def source(toys):
    return loading.load(toys(), "float32").model.source


def test_before_the_first_update_the_model_is_its_base(source):
    with_adapters = build(source, TrainSettings(), CPU)
    plain = build(source, TrainSettings(method="whole weights"), CPU)
    window = music_of(source.config).held_out[0]
    losses = [
        cell_losses(model.lm, window.codes.long()[None], torch.tensor([24]), [model.stream(window.states)])[0]
        for model in (with_adapters, plain)
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    "options", [{}, {"method": "whole weights"}, {"precision": "int8"}, {"precision": "bfloat16"}], ids=str
)
def test_it_learns_what_it_was_not_shown(source, options):
    model, history = trained(source, updates_per_epoch=30, **options)
    assert history.best.held_out < 0.8 * history.base.held_out
    held_out = music_of(source.config).held_out
    assert float(clip_losses(model, held_out).mean()) == pytest.approx(history.best.held_out, abs=1e-5), (
        "the best state is kept"
    )
    with AtStrength(model, 0.0):
        assert float(clip_losses(model, held_out).mean()) == pytest.approx(history.base.held_out, abs=1e-5)
    assert float(clip_losses(model, held_out).mean()) == pytest.approx(history.best.held_out, abs=1e-5)


def test_a_training_that_is_stopped_goes_on_to_the_same_weights(source, tmp_path):
    whole, history = trained(source)
    with pytest.raises(KeyboardInterrupt):
        trained(source, tmp_path, Silent(stop_at=4))
    watcher = Silent()
    resumed, after = trained(source, tmp_path, watcher)
    assert watcher.steps == [5, 6]
    assert after.losses == history.losses and after.measured == history.measured
    weights = state_of(whole)
    assert all(torch.equal(weights[name], tensor) for name, tensor in state_of(resumed).items())


KILLED = """
import importlib.util, os, sys
from pathlib import Path
root = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("comfyui_musicgen", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["comfyui_musicgen"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import torch
torch.set_num_threads(1)
from comfyui_musicgen.musicgen.checkpoints import open_checkpoint
from comfyui_musicgen.musicgen.finetuning import trainer
from comfyui_musicgen.tests.finetuning.test_trainer import Silent, trained

class Killer(Silent):
    def updated(self, step, *_):
        if step == 4:
            os._exit(9)  # as a kill: nothing is written any more

trainer._KEEP_S = 0.0  # a checkpoint after each update
trained(open_checkpoint(Path(sys.argv[2])), Path(sys.argv[3]), Killer())
"""


def test_a_training_that_is_killed_goes_on_to_the_same_weights(source, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(ROOT), str(source.path), str(tmp_path)]
    assert subprocess.run(command, timeout=300).returncode == 9
    watcher = Silent()
    resumed, _ = trained(source, tmp_path, watcher)
    assert watcher.steps == [4, 5, 6], "it went on from the checkpoint of update 3"
    weights = state_of(trained(source)[0])
    assert all(torch.equal(weights[name], tensor) for name, tensor in state_of(resumed).items())


def test_another_training_does_not_go_on_from_a_checkpoint(source, tmp_path, caplog):
    trained(source, tmp_path)
    settings = TrainSettings(updates_per_epoch=6)
    other = Trainer(build(source, settings, CPU), music_of(source.config), settings, tmp_path, "another")
    assert not other.resumed and other.step == 0
    (tmp_path / "checkpoint.pt").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="damaged"):
        Trainer(build(source, settings, CPU), music_of(source.config), settings, tmp_path, "another")


def test_it_ends_where_other_music_is_forgotten_and_keeps_what_was_before(source):
    _, history = trained(source, updates_per_epoch=60, lr=0.05, max_forgetting=0.01)
    assert "forgotten" in history.stopped and len(history.losses) < 60
    assert history.best.foreign <= 1.01 * history.base.foreign


def test_a_loss_that_is_no_number_ends_the_training(source):
    music = music_of(source.config)
    for track in music.learned:
        track.states.fill_(float("inf"))
    settings = TrainSettings(epochs=1, updates_per_epoch=6, cfg_p=0.0)
    model = build(source, settings, CPU)
    before = state_of(model)
    history = Trainer(model, music, settings, None, "").run(Silent())
    assert len(history.losses) == 2 and "no number" in history.stopped
    assert all(torch.equal(before[name], tensor) for name, tensor in state_of(model).items())


def test_what_an_update_learns_follows_from_the_seed_and_its_number(source):
    tracks = tracks_of(source.config)
    one, again, next_, other = (
        batch(tracks, [], step, seed, 8, 16, 0, 0.5, 0.0) for step, seed in ((3, 7), (3, 7), (4, 7), (3, 8))
    )
    assert all(torch.equal(a.codes, b.codes) and a.drop_text == b.drop_text for a, b in zip(one, again, strict=True))
    for different in (next_, other):
        assert any(not torch.equal(a.codes, b.codes) for a, b in zip(one, different, strict=True))
    assert {window.drop_text for window in one} == {True, False}


def test_schedules_rise_and_fall():
    for name in ("cosine", "polynomial_decay", "exponential", "inverse_sqrt", "linear_warmup"):
        settings = TrainSettings(epochs=1, updates_per_epoch=100, warmup=10, lr_scheduler=name)
        factors = [schedule(settings, step) for step in range(100)]
        assert factors[0] < factors[5] < factors[9] <= 1 and max(factors) <= 1
        assert (factors[99] < 0.6) == (name != "linear_warmup")


def test_the_merged_weights_are_the_trained_model(source):
    """What samples are written with has the logits of what was trained."""
    model, _ = trained(source)
    lm = build(merged(source, model), TrainSettings(), CPU).lm
    codes = torch.randint(2048, (1, 4, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stream = model.stream(torch.randn(3, source.config.text.dim, generator=torch.Generator().manual_seed(1)))
        torch.testing.assert_close(lm(codes, [stream]), model.lm(codes, [stream]), atol=1e-5, rtol=0)


def test_the_file_is_pefts_and_says_what_it_is(source, tmp_path):
    settings = TrainSettings(rank=4, alpha=8)
    model = build(source, settings, CPU)
    path = export.save_adapter(model, settings, tmp_path / "one.safetensors", {"base": "toy"})
    tensors, metadata = read_with_metadata(path)
    config = json.loads(metadata["adapter_config"])
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8) and metadata["base"] == "toy"
    q = "base_model.model.decoder.model.decoder.layers.0.self_attn.q_proj.lora_{}.weight"
    dim = source.config.lm.dim
    assert tensors[q.format("A")].shape == (4, dim) and tensors[q.format("B")].shape == (dim, 4)
    assert tensors["base_model.model.decoder.lm_heads.3.lora_B.weight"].shape == (2048, 4)
    assert {name.split(".lora_")[0].removeprefix("base_model.model.") for name in tensors} == set(
        config["target_modules"]
    )
    folder = export.save_folder(
        model, settings, tmp_path / "folder", {"base": "toy", "license": "mit", "license_note": "MIT."}
    )
    assert {file.name for file in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert json.loads((folder / "adapter_config.json").read_text()) == config
