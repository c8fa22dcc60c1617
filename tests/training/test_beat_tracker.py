"""A beat tracker is taught from codes, put into a model that ships, and heard by the engine; nothing else of the model changes."""

import pytest
import safetensors.torch
import torch
from comfyui_musicgen.musicgen.checkpoints import open_checkpoint
from comfyui_musicgen.musicgen.checkpoints.tools.convert import convert
from comfyui_musicgen.musicgen.config import CodecConfig
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.loading import apply_fine_tune, load
from comfyui_musicgen.musicgen.store.text_encoders import find_text_encoder
from comfyui_musicgen.training.export import with_beat_tracker
from comfyui_musicgen.training.lm import beat_tracker
from comfyui_musicgen.training.lm.scored import FRAME_TARGETS, UNKNOWN
from comfyui_musicgen.training.onegpu.clips import bpm_of, tempo_class

RATE_HZ, CODES = 50.0, 16
CODEC = CodecConfig(
    sample_rate_hz=32000, channels=1, n_codebooks=2, codebook_size=CODES, latent_dim=8, n_filters=2, ratios=(8, 5, 4, 4)
)  # fmt: skip


def clips(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(codes [n, K, T], frames, bpm) of clips whose strokes are codes 0 to 3, in a tempo of their own; the rest is chance."""
    generator = torch.Generator().manual_seed(seed)
    bpm = 70 + 90 * torch.rand(n, generator=generator)
    beat = torch.arange(500)[None] / RATE_HZ * bpm[:, None] / 60 + torch.rand(n, 1, generator=generator)
    codes = torch.randint(4, CODES, (n, 2, 500), generator=generator)
    stroke = (beat % 1) < bpm[:, None] / 60 / RATE_HZ
    codes[:, 0][stroke] = torch.randint(0, 4, (int(stroke.sum()),), generator=generator)
    frames = torch.full((n, len(FRAME_TARGETS), 500), UNKNOWN)
    frames[:, 0] = (beat % 1 * 16).long()
    frames[: n // 4] = UNKNOWN  # a clip without a beat teaches none
    return codes.short(), frames.to(torch.uint8), bpm


@pytest.fixture(scope="module")
def tracker():
    codebooks = torch.randn(2, CODES, 8, generator=torch.Generator().manual_seed(0))
    codes, frames, _ = clips(96, 1)
    return beat_tracker.teach(CODEC, codebooks, codes, frames, epochs=12)


def test_it_hears_the_tempo_of_clips_that_it_never_saw(tracker):
    codes, _, bpm = clips(24, 2)
    assert beat_tracker.kept(tracker, codes, bpm, RATE_HZ) >= 0.9
    shuffled = codes[..., torch.randperm(500, generator=torch.Generator().manual_seed(0))]
    assert beat_tracker.kept(tracker, shuffled, bpm, RATE_HZ) <= 0.4, "no order, no tempo"


def test_the_tempo_of_a_class_is_the_one_that_it_stands_for():
    for bpm in (50.0, 92.3, 180.0):
        assert float(bpm_of(torch.tensor(tempo_class(bpm)))) == pytest.approx(bpm, rel=0.0055)


@pytest.fixture
def model(toys, tmp_path):
    """One file, with a card that asks for the tempo."""
    source = open_checkpoint(toys(dim=32, n_heads=2, n_layers=2, cardinality=CODES, n_filters=2, latent_dim=16))
    plain = convert(source, tmp_path / "plain.safetensors", text_encoder=find_text_encoder(source, []))
    for name in ("plain", "timed"):
        (tmp_path / f"{name}.card.json").write_text(
            '{"words": [], "synonyms": [], "near": [], "default_text": "", "plays": "drums", "tempo": {"off": 0.01, "tries": 4}}'
        )
    return plain


def test_a_model_gets_it_and_keeps_all_else(model, tmp_path):
    config = open_checkpoint(model).config.codec
    codebooks = torch.randn(config.n_codebooks, CODES, 8)
    codes = torch.randint(0, CODES, (2, config.n_codebooks, 300))
    tracker = beat_tracker.teach(config, codebooks, codes, torch.zeros(2, len(FRAME_TARGETS), 300), epochs=1)
    timed = with_beat_tracker(model, tracker, tmp_path / "timed.safetensors")
    before, after = (safetensors.torch.load_file(path) for path in (model, timed))
    added = {f"beat_tracker.{name}" for name in tracker.state_dict()}
    assert after.keys() == before.keys() | added and added
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert load(model, "float32").model.faults is None, "a card alone hears nothing"
    loaded = load(timed, "float32")
    (check,) = loaded.model.faults.checks
    assert torch.allclose(check.tracker.activation(codes[0]), tracker.activation(codes[0]), atol=1e-2)
    tuned, _ = apply_fine_tune(loaded.model, loaded.conditioner, model, 0.5)
    assert tuned.faults is loaded.model.faults
    source = open_checkpoint(timed)
    again = convert(source, tmp_path / "again.safetensors", text_encoder=source.text_encoder)
    assert safetensors.torch.load_file(again).keys() == after.keys(), "a copy of it has it too"


def test_a_damaged_one_is_refused_by_name(model, tmp_path):
    config = open_checkpoint(model).config.codec
    tracker = beat_tracker.BeatTracker(config)
    for tensor in tracker.state_dict().values():
        tensor.zero_()
    timed = with_beat_tracker(model, tracker, tmp_path / "timed.safetensors")
    tensors = safetensors.torch.load_file(timed)
    with safetensors.safe_open(timed, "pt") as file:
        metadata = file.metadata()
    del metadata["sha256"]
    for name, other in (("beat_tracker.phases.weight", None), ("beat_tracker.onsets.bias", torch.zeros(3))):
        broken = {key: tensor for key, tensor in tensors.items() if key != name or other is not None}
        broken |= {} if other is None else {name: other}
        safetensors.torch.save_file(broken, tmp_path / "broken.safetensors", metadata)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            open_checkpoint(tmp_path / "broken.safetensors")
