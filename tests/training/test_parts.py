"""Parts of the recipe that need no model: what is taught of the beat, the optimizer, time boxes, logs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_musicgen.training import runs
from comfyui_musicgen.training.codec.spectral import bandwidth_hz, lost_above_db
from comfyui_musicgen.training.data import pieces
from comfyui_musicgen.training.data.jangdan import JANGDAN, STROKES
from comfyui_musicgen.training.data.pieces import clip, start
from comfyui_musicgen.training.lm import auxiliary, muon, rollouts


def test_the_pulse_that_is_taught_is_the_one_that_is_struck():
    made = 0
    for number in range(24):
        label, first_pulse = start("train", number)
        played = clip("train", number, 5.0, 8000)
        assert label == played.label
        known = auxiliary.frame_targets(label, first_pulse, 250, 50.0)
        if not (label.jangdan and label.buk):
            continue
        made += 1
        strokes = {stroke.pulse: stroke for stroke in JANGDAN[label.jangdan].strokes if stroke.accent >= 0.5}
        first = sum(j.n_pulses for j in list(JANGDAN.values())[: list(JANGDAN).index(label.jangdan)])
        times = [hit.time_s for hit in played.hits if hit.accent >= 0.4]
        for frame in range(2, 248):  # a frame in which an accented pulse begins has a stroke
            pulse = known[0, frame] - first
            if known[0, frame] != known[0, frame - 1] and pulse in strokes:
                assert min(abs(time - frame / 50) for time in times) < 0.04
        struck = np.flatnonzero(known[3])
        assert len(struck) and set(known[3][struck]) <= set(range(1, 1 + len(STROKES)))
        begins = [frame for frame in struck if frame > 2 and known[0, frame] != known[0, frame - 1]]
        light = [frame for frame in begins if min(abs(hit.time_s - frame / 50) for hit in played.hits) > 0.04]
        assert len(light) <= 0.4 * len(begins), "some light strokes are left out"
        assert known[1].min() == 0 and (known[1] < auxiliary.FRAME_TARGETS["until"][0]).all()
    assert made > 5


def test_what_is_not_known_is_not_taught():
    scale = pieces.Label("daegeum", False, None, 120.0, "major", 3, "high")
    alone = pieces.Label("none", True, "hwimori", 200.0, None, None, None)
    assert (auxiliary.frame_targets(scale, 0.0, 50, 50.0)[:2] == auxiliary.NOTHING).all()
    assert (auxiliary.frame_targets(alone, 0.0, 50, 50.0)[2] == auxiliary.NOTHING).all()
    tones = np.array([4, 7, 9])
    assert (auxiliary.frame_targets(alone, 0.0, 50, 50.0, tones)[4] == auxiliary.NOTHING).all()
    assert (auxiliary.frame_targets(scale, 0.0, 50, 50.0)[4] == auxiliary.NOTHING).all()
    assert auxiliary.frame_targets(scale, 0.0, 8, 50.0, tones)[4].tolist() == [4, 4, 7, 7, 7, 7, 9, 9]
    assert not auxiliary.frame_targets(scale, 0.0, 50, 50.0)[3].any()
    players = [set(auxiliary.frame_targets(label, 0.0, 50, 50.0)[5]) for label in (scale, alone)]
    assert all(len(player) == 1 for player in players) and players[0] != players[1]
    assert not auxiliary.frame_targets(replace(alone, buk=False), 0.0, 50, 50.0)[3].any()
    assert auxiliary.text_targets(scale, "major scale") == (auxiliary.NOTHING, auxiliary.NOTHING)
    slow, fast = (
        auxiliary.text_targets(replace(alone, bpm=bpm), f"hwimori, {bpm:.0f} bpm")[1] for bpm in (190.0, 210.0)
    )
    assert fast - slow in (3, 4)
    heads = auxiliary.Auxiliary(8, 8)
    known = auxiliary.Known(
        torch.full((1, len(auxiliary.FRAME_TARGETS), 4), auxiliary.NOTHING), torch.full((1, 2), auxiliary.NOTHING)
    )
    for last in (None, torch.randn(1, 7, 8)):
        assert heads(torch.randn(1, 7, 8), last, torch.randn(1, 3, 8), known)[0] == 0
    assert (auxiliary.code_weights(known) == 1).all()


def test_means_are_of_what_came_since_the_last():
    means = runs.Means()
    assert means.taken() == {}
    for value in (1.0, 2.0):
        means.add({"a": value})
    means.add({"b": 5.0})
    assert means.taken() == {"a": 1.5, "b": 5.0} and means.taken() == {}


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(48, 16), (16, 48), (24, 24)])
def test_muon_makes_updates_orthogonal(shape, half, monkeypatch):
    monkeypatch.setattr(muon.runs, "computes_bfloat16", lambda device: half)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -2, shape[1])
    made = muon.orthogonal(matrix)
    assert made.dtype == torch.float32
    values = torch.linalg.svdvals(made)
    assert values.max() < 1.3 and values[: min(shape) // 2].min() > 0.6


def test_muon_goes_downhill():
    goal = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.zeros(12, 8))
    optimizer = muon.Muon([weight], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (weight - goal).pow(2).sum().backward()
        optimizer.step()
    assert (weight - goal).abs().mean() < 0.3 * goal.abs().mean()


def test_a_run_ends_on_time_and_is_asked_to_end(tmp_path):
    import os
    import signal

    kept = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        box = runs.TimeBox(10.0)
        assert not box.over and runs.TimeBox(0.0).over
        box = runs.TimeBox(10.0)
        box._looked -= 7200  # as after two hours of sleep
        assert not box.over and box.elapsed_s < 200
        os.kill(os.getpid(), signal.SIGTERM)
        assert box.over
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), kept, strict=True):
            signal.signal(number, handler)


def test_the_log_is_a_table(tmp_path):
    log = runs.Log(tmp_path / "log.csv")
    log.write({"step": 1, "loss": 0.5})
    log.write({"step": 2, "loss": 0.25})
    assert (tmp_path / "log.csv").read_text().split() == ["step,loss", "1,0.5", "2,0.25"]


def test_of_its_own_music_the_last_of_the_same_kind_is_shown():
    kept, rng = rollouts.Rollouts(), np.random.default_rng(0)
    slow = pieces.Label("voice", True, "jungmori", 86.0, "ujo", 1, "deep")
    for number in range(10):
        kept.add([slow, replace(slow, bpm=96.0)], np.full((2, 4, 8), number) + np.array([0, 100])[:, None, None])
    for other in ({"mode": "pyeongjo", "tonic": 4}, {"register": "high"}):
        found = {int(kept.like(replace(slow, **other), rng)[0, 0]) for _ in range(100)}
        assert found <= set(range(10)) and len(found) > 3 and max(found) == 9, "the same beat, the last ones"
    assert len(kept) < 20
    for other in ({"bpm": 90.0}, {"buk": False}, {"instrument": "daegeum"}, {"jangdan": "hwimori"}):
        assert kept.like(replace(slow, **other), rng) is None


def test_what_is_lost_above_a_frequency_and_how_far_a_spectrum_reaches():
    time_s = torch.arange(32_000) / 32_000
    low, high = (torch.sin(2 * math.pi * hz * time_s)[None] for hz in (200, 4000))
    assert lost_above_db(low + 0.1 * high, low + high, 32_000).item() == pytest.approx(20, abs=0.1)
    assert lost_above_db(2 * (low + high), low + high, 32_000).item() == pytest.approx(-6.02, abs=0.1)
    assert bandwidth_hz(torch.cat([low + 0.2 * high, low + 0.05 * high]), 32_000).tolist() == pytest.approx(
        [4000, 200], abs=40
    )
