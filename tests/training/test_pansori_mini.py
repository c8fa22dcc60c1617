"""pansori-mini, the model of pansori that comes with the pack: what it was trained for, it does. On few prompts; `evaluate` measures on many."""

from pathlib import Path

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.store.published import SHIPPED
from comfyui_musicgen.training.evaluate import listening
from comfyui_musicgen.training.evaluate import measure as evaluate
from safetensors.torch import load_file

CRITIC = Path(__file__).resolve().parents[1] / "data" / "critic.safetensors"
MODEL_CARD = SHIPPED["pansori-mini"].with_name("README.md")


@pytest.fixture(scope="module")
def mini():
    return loading.load(SHIPPED["pansori-mini"], name="pansori-mini")


@pytest.fixture(scope="module")
def critic():
    """`listening.train_critic(240, evaluate.DURATION_S, evaluate.HEARING_HZ, evaluate.coded(mini))`, which takes minutes."""
    weights = load_file(CRITIC)
    critic = listening.Critic(len(weights["mean"]))
    critic.load_state_dict(weights)
    return critic.eval()


def values(findings):
    return {finding.name.rpartition(": ")[2]: finding.value for finding in findings}


def test_it_is_small_and_says_what_it_is():
    assert SHIPPED["pansori-mini"].stat().st_size <= 32_000_000
    card = MODEL_CARD.read_text(encoding="utf-8")
    for word in ("license: mit", "## Data", "## Training", "## Measured", "## Limits"):
        assert word in card


def test_every_clip_of_a_batch_is_music(mini):
    findings = evaluate.collapse_findings(mini, 8, 3.0)
    assert findings[0].value == 1.0


@pytest.mark.slow
def test_it_follows_a_melody(mini):
    findings, _ = evaluate.melody_findings(mini, 6, 3.0)
    found = values(findings)
    assert found["chroma cosine with the melody"] > 0.6
    assert found["difference"] > 0.3


@pytest.mark.slow
def test_the_critic_can_be_trusted_behind_the_codec(mini, critic):
    rhythm, player, tempo, noise = evaluate.critic_findings(critic, evaluate.coded(mini), 24)
    assert rhythm.value >= 0.8 and player.value >= 0.9
    assert rhythm.chance < 0.4 and tempo.value > max(tempo.chance, noise.value) + 0.2
    gayageum = (made for made in evaluate._clips(lambda label: label.instrument == "gayageum", evaluate.DURATION_S))
    samples = [
        evaluate.coded(mini)(torch.from_numpy(made.samples)) for _, made in zip(range(12), gayageum, strict=False)
    ]
    heard = [critic.hear(clip, evaluate.HEARING_HZ).player for clip in samples]
    assert heard.count("gayageum") >= 9, heard


@pytest.mark.slow
def test_the_text_decides_who_plays(mini, critic):
    asked = {
        "buk drum solo, jajinmori": "none",
        "pansori voice alone, jungmori": "voice",
        "daegeum flute alone, slow": "daegeum",
        "gayageum zither alone, swaying": "gayageum",
    }
    texts = list(asked) * 3
    heard = [
        critic.hear(samples, evaluate.HEARING_HZ).player
        for samples in evaluate._generated(mini, texts, evaluate.DURATION_S, 3.0)
    ]
    assert sum(player == asked[text] for player, text in zip(heard, texts, strict=True)) >= 10, heard


@pytest.mark.slow
def test_the_text_decides_the_beat(mini, critic):
    found = values(evaluate.text_findings(mini, critic, 20, 3.0)[0])
    assert found["the jangdan asked for, tempo within 8 %"] >= 0.6


@pytest.mark.slow
def test_a_continuation_keeps_tempo_and_mode_and_joins_without_a_click(mini):
    findings, _ = evaluate.continuation_findings(mini, 16, 3.0)
    found = values(findings)
    assert found["joins without a click"] == 1.0
    assert found["mode carried on"] >= 0.7 and found["tempo carried on within 8 %"] >= 0.6
    tempo, mode, _ = findings
    assert mode.chance + 0.2 < mode.value and mode.ceiling > 0.8
    assert tempo.chance < tempo.ceiling and tempo.ceiling > 0.8  # chance is high: a jangdan's tempos lie close together


def test_it_is_one_press_in_the_nodes():
    loader = NODES["MusicGenLoader"]
    assert loader.VALIDATE_INPUTS(model="pansori-mini") is True
    model, conditioner, codec = loader().load("pansori-mini", "auto")
    conditioning = NODES["MusicGenText"]().encode(conditioner, "a rough voice over the buk")[0]
    codes = model.module.generate(conditioning, GenerationParams(duration_s=1.0))
    samples = codec.module.decode(codes).samples
    assert samples.shape == (1, 1, 32000) and float(samples.pow(2).mean().sqrt()) > 0.01


@pytest.mark.slow
def test_longer_pieces_take_windows_of_its_own_length(mini):
    conditioning = mini.conditioner.encode_text(["jajinmori, a high voice over the buk"])
    codes = mini.model.generate(conditioning, GenerationParams(duration_s=12.0, seed=1))
    assert codes.n_frames == 600
    levels = mini.codec.decode(codes).samples[0, 0].unfold(0, 16000, 16000).pow(2).mean(1).sqrt()
    assert bool((levels > 0.005).all()), "it goes on in the second window"
    assert torch.isfinite(levels).all()
