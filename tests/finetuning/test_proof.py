"""The proof of effect: what tells two groups apart, what is a copy, and which sentence follows."""

from dataclasses import replace

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.finetuning import proof as module
from comfyui_musicgen.musicgen.finetuning.proof import Losses, Proof, verdict
from comfyui_musicgen.musicgen.finetuning.report import loss_picture, summary
from comfyui_musicgen.musicgen.finetuning.settings import TrainSettings
from comfyui_musicgen.musicgen.finetuning.sound import distances, features, told_apart
from comfyui_musicgen.musicgen.finetuning.trainer import History, Measurement
from comfyui_musicgen.tests.songs.players import RATE_HZ

SECONDS = 4


def losses(base, tuned):
    return Losses(base, tuned, tuned - base, tuned - base, ((base, tuned),))


GOOD = Proof(
    losses(5.0, 4.0), losses(5.0, 4.1), losses(3.0, 3.02), losses(5.0, 3.9), 8, -0.1, 0.4, 1.0, 0.95,
    {s: {"chroma": 1.0, "tempo": 1.0, "timbre": 1.0, "all": 1.0} for s in ("0", "0.5", "1")},
    {"0": 5.0, "0.5": 4.4, "1": 4.0}, {"0": -0.1, "0.5": 0.0, "1": 0.4}, 0.0, 0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Clearly heard"),
        ({"told_by_sound": 0.75}, "not in every clip"),
        ({"told_by_sound": 0.55}, "Hardly heard in the sound"),
        ({"held_out": losses(5.0, 4.99), "learned": losses(5.0, 4.98)}, "Hardly heard: train longer"),
        ({"held_out": losses(5.0, 4.7), "learned": losses(5.0, 2.0)}, "Memorised"),
        ({"copied": 0.5}, "Memorised"),
        ({"copied": 0.5, "copied_among_data": 0.5}, "Clearly heard"),
        ({"foreign": losses(3.0, 3.6)}, "forgotten by 20 %"),
        ({"sampled": 0, "told_by_sound": 0.0}, "no clips were written"),
    ],
)
def test_the_verdict_follows_from_the_figures(changes, said):
    assert said in verdict(replace(GOOD, **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"held_out": losses(4.0, 4.2)}, "knows your music: -5 % (it knows it worse)"),
        ({"foreign": losses(3.0, 2.9)}, "other music it forgot: nothing"),
        ({"foreign": None}, "other music it forgot: not measured"),
        ({"sampled": 0}, "told from before: not measured: no clips were written"),
    ],
)
def test_the_plain_lines_say_what_is_worse_or_was_not_measured(changes, said):
    assert said in summary(History(), TrainSettings(), replace(GOOD, **changes))


def clips(hz, seed, n=8):
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(SECONDS * RATE_HZ) / RATE_HZ
    made = []
    for _ in range(n):
        noise = 0.02 * torch.randn(t.shape, generator=generator)
        level = 0.1 + 0.2 * float(torch.rand(1, generator=generator))
        made.append(features(Audio((level * torch.sin(2 * torch.pi * hz * t) + noise)[None, None], RATE_HZ)))
    return made


def test_groups_are_told_apart_where_they_differ_and_only_there():
    one, same, other = clips(330.0, 1), clips(330.0, 2), clips(660.0, 3)
    assert told_apart(one, other) == 1.0
    assert told_apart(one, same) < 0.8
    away = distances({"near": same, "far": other}, one)
    assert away["near"]["all"] < 0.5 * away["far"]["all"]


def test_silence_has_features_too():
    for numbers in features(Audio(torch.zeros(1, 1, 2 * RATE_HZ), RATE_HZ)).values():
        assert torch.isfinite(numbers).all()


def test_a_copy_is_found_wherever_it_begins(toys):
    codec = loading.load(toys(n_filters=2, latent_dim=16), "float32").codec
    data = [torch.randint(2048, (300,), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    new = torch.randint(2048, (200,), generator=torch.Generator().manual_seed(9))
    assert module._copied([data[1][37:237]], data, codec, False) == 1.0
    assert module._copied([new], data, codec, False) == 0.0
    assert module._copied(data, data, codec, True) == 0.0, "a clip is no copy of itself"


def test_the_report_gives_every_figure_and_the_verdict_first():
    history = History([3.0, 2.9], [Measurement(0, 5.0, 3.0), Measurement(2, 4.0, 3.02)], 2, "", 12.0)
    text = summary(history, TrainSettings(epochs=1, updates_per_epoch=2), replace(GOOD, verdict=verdict(GOOD)))
    assert text.startswith("Clearly heard.")
    for figure in ("5.000 -> 4.000 (-20.0 %", "3.000 -> 3.020", "95 % (chance 50 %)", "-0.100", "+0.400"):
        assert figure in text
    words = text.split("\n\nDetails")[0].split("\n")
    assert words == [
        "Clearly heard.",
        "How much better it knows your music: 20 %",
        "How often its sound is told from before: 95 % (chance 50 %)",
        "How much of other music it forgot: 1 %",
    ]
    assert "nats" not in " ".join(words)
    plain = loss_picture(History(), 10)
    drawn = loss_picture(history, 2)
    assert plain.shape == drawn.shape == (1, 520, 840, 3) and not torch.equal(plain, drawn)
