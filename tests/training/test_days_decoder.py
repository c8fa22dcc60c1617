"""A frozen codec's decoder trained on alone: every code stays as it is, and what ships has the new decoder."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.loading import load
from comfyui_musicgen.tests.training.test_days import TINY, assert_same, handlers, killed_at, play  # noqa: F401
from comfyui_musicgen.training import runs
from comfyui_musicgen.training.codec import adversarial
from comfyui_musicgen.training.codec.adversary import level_loss, spectral_loss, wave_loss
from comfyui_musicgen.training.days import codec
from comfyui_musicgen.training.days.place import Place
from comfyui_musicgen.training.export import with_decoder

RATE_HZ = 32_000
ROOT = Path(__file__).parents[2]


def noise(seed: int, n: int = RATE_HZ) -> torch.Tensor:
    return 0.1 * torch.randn(2, n, generator=torch.Generator().manual_seed(seed))


def test_noise_that_is_softer_has_another_level_though_it_is_nearer():
    asked, other = noise(0), noise(1)
    levels = [float(level_loss(gain * other, asked, RATE_HZ, 17)) for gain in (0.25, 0.5, 1.0, 2.0)]
    assert levels[2] < 0.25 < levels[1] < levels[0] and levels[3] > 0.25
    assert wave_loss(0.25 * other, asked) < wave_loss(other, asked), "which is why it is asked"


def test_noise_that_repeats_in_every_frame_has_another_level():
    asked, frame = noise(0), noise(2, 640)
    comb = frame.repeat(1, RATE_HZ // 640)
    ratios = [
        float(loss(comb, asked, RATE_HZ, 17) / loss(noise(1), asked, RATE_HZ, 17))
        for loss in (level_loss, spectral_loss)
    ]
    assert ratios[0] > 1.5 * ratios[1] and ratios[0] > 2


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    codec.train(place, TINY, 5.0, play, play)
    codec.frozen(place, TINY)
    return place


def test_the_decoder_goes_on_alone_to_the_same_end_whenever_it_is_killed(place, tmp_path, monkeypatch):
    before = codec.frozen(place, TINY)
    assert_same(codec.latest(place, TINY).state_dict(), before.state_dict())
    whole = codec.train_decoder(place, TINY, 5.0, play, play).state()
    place.decoder.unlink()
    killed_at(monkeypatch, adversarial.Trainer, "train_step", 3)
    assert codec.train_decoder(place, TINY, 5.0, play, play).step == 3
    monkeypatch.undo()
    codec.train_decoder(place, TINY, 5.0, play, play)
    assert_same(runs.load(place.decoder), whole)
    assert whole["step"] == TINY.decoder_steps
    after = codec.latest(place, TINY)
    kept = {name for name, tensor in before.state_dict().items() if torch.equal(tensor, after.state_dict()[name])}
    assert kept >= {name for name in before.state_dict() if not name.startswith("decoder")}
    assert len(kept) < 0.7 * len(before.state_dict())
    file = tmp_path / "codec.safetensors"
    codec.ship(after, file)
    assert_same(codec.opened(file).state_dict(), after.state_dict())


def test_its_losses_ask_for_the_level_and_move_no_code(place):
    crops = codec.Crops(TINY, play)
    trainer = codec._begun_decoder(place, TINY, crops)
    waves = crops.batch(0)
    crops.close()
    codes = trainer.codec.quantizer.encode(trainer.codec.encoder(waves[:, None]))
    losses = [trainer.train_step(waves, 0.0) for _ in range(3)]
    assert set(losses[0]) >= {"wave", "spectrum", "level"} and float(losses[0]["commitment"]) == 0
    assert torch.equal(trainer.codec.quantizer.encode(trainer.codec.encoder(waves[:, None])), codes)


def test_a_model_that_ships_gets_the_decoder_and_keeps_all_else(tmp_path):
    shipped = ROOT / "pretrained" / "general-mini.safetensors"
    ours = codec.opened(shipped)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    for tensor in ours.decoder.state_dict().values():
        tensor.mul_(1.5)
    target = with_decoder(shipped, ours, tmp_path / "louder.safetensors")
    tables = [safetensors.torch.load_file(path) for path in (shipped, target)]
    assert tables[0].keys() == tables[1].keys()
    other = {name for name, tensor in tables[0].items() if not torch.equal(tensor, tables[1][name])}
    assert other == {f"codec.{name}" for name in before if name.startswith("decoder.")}
    assert load(target, "float32").codec.config.fingerprint == ours.config.fingerprint
    with pytest.raises(InputError, match="another codec"):
        with_decoder(ROOT / "pretrained" / "pansori-mini.safetensors", ours, tmp_path / "none.safetensors")
    assert not (tmp_path / "none.safetensors").exists()
