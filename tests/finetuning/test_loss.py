"""Loss and gradients are those of audiocraft's own training step: same codes, same padding, same weights."""

from typing import Any

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.checkpoints.formats.audiocraft_names import LM_NAMES
from comfyui_musicgen.musicgen.finetuning.loss import batch_loss, cell_losses, valid_cells
from comfyui_musicgen.musicgen.finetuning.model import build
from comfyui_musicgen.musicgen.finetuning.settings import TrainSettings

TEXTS = ["slow pansori with a buk", "fast pansori with a buk"]  # of one length: the reference dilutes shorter ones
N_FRAMES, N_VALID = 60, (60, 41)


@pytest.fixture(scope="module")
def pair(audiocraft, toys):
    """Factory: a toy's trainable copy, the objects of this engine, and audiocraft's."""
    from comfyui_musicgen.reference import audiocraft as reference

    def load(**options: Any):
        folder = toys(**options)
        loaded = loading.load(folder, "float32")
        trained = build(loaded.model.source, TrainSettings(method="whole weights"), torch.device("cpu"))
        return trained, loaded, reference.load(folder)

    return load


def reference_loss(lm: Any, codes: torch.Tensor, attributes: list, n_valid: torch.Tensor):
    """audiocraft's `run_step` without its logging: predictions, mask, cross-entropy, gradients."""
    from audiocraft.solvers.musicgen import MusicGenSolver

    lm.eval().requires_grad_(True)  # without dropout
    lm.zero_grad()
    with torch.enable_grad():
        provider = lm.condition_provider
        output = lm.compute_predictions(codes, [], provider(provider.tokenize(attributes)))
        padding = torch.arange(codes.shape[-1]) < n_valid[:, None]
        solver: Any = None  # of which the function uses nothing
        loss, by_codebook = MusicGenSolver._compute_cross_entropy(
            solver, output.logits, codes, output.mask & padding[:, None]
        )
        loss.backward()
    return loss.detach(), torch.stack(by_codebook)


def gradient_of(reference: Any, name: str, config: Any) -> torch.Tensor:
    """audiocraft's gradient of one of our weights."""
    parameters = dict(reference.named_parameters())
    theirs = LM_NAMES[name] if not name.startswith("layers.") else ""
    if not theirs:
        _, layer, inner = name.split(".", 2)
        theirs = LM_NAMES[f"layers.{inner}"].replace("{i}", layer)
    path, _, part = theirs.partition("[")
    if "{k}" in path:
        parts = [parameters[path.replace("{k}", str(k))].grad for k in range(config.n_codebooks)]
        return torch.stack(parts) if name == "embeddings" else torch.cat(parts)
    gradient = parameters[path].grad
    return {"q]": gradient[: config.dim], "kv]": gradient[config.dim :], "": gradient}[part]


CASES = {
    "text": ({}, True, False),
    "text, stereo": ({"stereo": True}, True, False),
    "no text": ({}, False, False),
    "melody model, text": ({"melody": True}, True, False),
    "melody model, text and melody": ({"melody": True}, True, True),
    "melody model, no text": ({"melody": True}, False, False),
}


@pytest.mark.parametrize("remember", [True, False], ids=["activations held", "computed again"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_audiocrafts(pair, case, remember):
    options, with_text, with_melody = CASES[case]
    if not remember and case not in ("text", "melody model, text and melody"):
        pytest.skip("the same code")
    from audiocraft.modules.conditioners import ConditioningAttributes, WavCondition

    trained, loaded, theirs = pair(**options)
    config, generator = trained.config, torch.Generator().manual_seed(5)
    codes = torch.randint(config.lm.cardinality, (2, config.lm.n_codebooks, N_FRAMES), generator=generator)
    n_valid = torch.tensor(N_VALID)
    rate_hz = config.codec.sample_rate_hz
    wave = 0.3 * torch.sin(torch.arange(3 * rate_hz) * 2 * torch.pi * 330 / rate_hz) if with_melody else None
    attributes = []
    for text in TEXTS:
        one = ConditioningAttributes(text={"description": text if with_text else ""})
        if config.melody:
            sound = torch.zeros(1, 1, 1) if wave is None else wave[None, None]
            length = 0 if wave is None else wave.shape[-1]
            one.wav["self_wav"] = WavCondition(sound, torch.tensor([length]), [rate_hz], path=[None])
        attributes.append(one)
    expected, by_codebook = reference_loss(theirs.model.lm, codes, attributes, n_valid)

    chroma = None
    if wave is not None:
        conditioning = loaded.conditioner.encode_text([""])
        melody = loaded.conditioner.encode_melody(conditioning, Audio(wave[None, None], rate_hz), "off").melody
        chroma = melody.chroma().argmax(dim=-1)
    encoder, nothing = loaded.conditioner.text_encoder, torch.zeros(0, config.text.dim)
    streams = [trained.stream(encoder(text).clone() if with_text else nothing, chroma) for text in TEXTS]
    losses, valid = cell_losses(trained.lm, codes, n_valid, streams, remember)
    loss = batch_loss(losses, valid.sum(dim=(0, 2)))
    loss.backward()
    assert abs(float(loss.detach() - expected)) < 1e-5
    torch.testing.assert_close(losses.detach().sum(dim=(0, 2)) / valid.sum(dim=(0, 2)), by_codebook, atol=1e-5, rtol=0)
    compared = 0
    for name, parameter in trained.lm.named_parameters():
        if parameter.grad is None:  # cross-attention without any text
            assert "cross" in name and not with_text
            continue
        wanted = gradient_of(theirs.model.lm, name, config.lm)
        assert (parameter.grad - wanted).abs().max() < 1e-4, name
        assert wanted.abs().max() > 1e-6 or "cross" in name, name
        compared += 1
    assert compared >= 3 * 8


def test_frames_that_the_pattern_leaves_undefined_are_not_scored():
    """Of codebook k the last `delay` frames, and padding: 9, 8, 7, 6 of 9 frames, as the reference counts them."""
    counted = valid_cells(torch.tensor([9, 5]), 9, (0, 1, 2, 3)).sum(dim=-1)
    assert counted.tolist() == [[9, 8, 7, 6], [5, 5, 5, 5]]


def test_rows_in_turn_add_up_to_the_loss_of_the_batch(toys):
    """A batch is computed a row at a time, with rows of unequal length."""
    loaded = loading.load(toys(), "float32")
    trained = build(loaded.model.source, TrainSettings(), torch.device("cpu"))
    codes = torch.randint(2048, (3, 4, 30), generator=torch.Generator().manual_seed(1))
    n_valid = torch.tensor([30, 12, 25])
    states = torch.randn(4, trained.config.text.dim, generator=torch.Generator().manual_seed(2))
    streams = [trained.stream(states, drop_text=row == 1) for row in range(3)]
    together, valid = cell_losses(trained.lm, codes, n_valid, streams)
    n_cells = valid.sum(dim=(0, 2))
    alone = [cell_losses(trained.lm, codes[i : i + 1], n_valid[i : i + 1], streams[i : i + 1])[0] for i in range(3)]
    sum_of_rows = sum(batch_loss(one, n_cells) for one in alone)
    torch.testing.assert_close(sum_of_rows, batch_loss(together, n_cells), atol=1e-6, rtol=0)
