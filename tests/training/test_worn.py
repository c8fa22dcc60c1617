"""What a model in training is shown worse than it is, and what it is to write all the same."""

from dataclasses import replace

import numpy as np
import torch
from comfyui_musicgen.tests.training.tiny_training import one_clip
from comfyui_musicgen.training.lm import scored, worn
from comfyui_musicgen.training.lm.scored import FRAME_TARGETS
from comfyui_musicgen.training.lm.text import t5_table, train_tokenizer
from comfyui_musicgen.training.onegpu.recipe import REHEARSAL

N = 200


def test_drift_is_of_few_frames_and_only_where_the_tempo_is_known():
    timed = np.arange(400) % 2 == 0
    shown = worn.drifts(timed, N, np.random.default_rng(0)) - torch.arange(N)
    drifting = shown.any(dim=1)
    assert not drifting[~timed].any() and 0.15 < drifting[timed].float().mean() < 0.35
    inner = shown[:, 3:-3]
    assert inner.abs().max() == 3 and (shown[drifting].diff(dim=1) != 0).sum(dim=1).max() < 12
    assert (worn.drifts(timed, N, np.random.default_rng(0)) >= 0).all() and (shown + torch.arange(N) < N).all()


def test_the_past_drifts_and_what_is_to_be_written_does_not():
    model = scored.ScoredMusicGen(REHEARSAL.model, t5_table(train_tokenizer(texts=iter(["a"]), vocabulary=300)))
    frames = torch.zeros(1, len(FRAME_TARGETS), N, dtype=torch.uint8)
    size = REHEARSAL.model.lm.cardinality
    batch = one_clip(frames).batch(np.zeros(1, int), np.zeros(1, int), 1, None)
    batch = replace(batch, codes=batch.codes % size)
    seen, run = [], model._run
    model._run = lambda prefix, inputs: seen.append(inputs) or run(prefix, inputs)
    with torch.no_grad():
        plain, same, drifted = (
            model(replace(batch, shown=shown))["codebooks"]
            for shown in (None, torch.arange(N)[None], (torch.arange(N)[None] - 2).clamp(min=0))
        )
    assert torch.equal(plain, same) and not torch.equal(plain, drifted)
    assert seen[0][0, 0, 1:N].tolist() == [frame % size for frame in range(N - 1)]  # codes are their frames' numbers
    assert seen[2][0, 0, 51].item() == 48 % size


def test_a_window_from_within_keeps_its_drift():
    frames = torch.zeros(1, len(FRAME_TARGETS), N, dtype=torch.uint8)
    batch = one_clip(frames).batch(np.zeros(1, int), np.zeros(1, int), 1, None)
    part = scored.later(replace(batch, shown=(torch.arange(N)[None] - 2).clamp(min=0)), 64, 10)
    assert part.shown[0, :5].tolist() == [0, 0, 0, 1, 2]


def test_hidden_spans_are_commoner_where_rows_tell_what_comes():
    with_rows = np.arange(400) % 2 == 0
    hidden = worn.spans(with_rows, N, np.random.default_rng(0)).any(dim=1)
    assert hidden[with_rows].float().mean() > hidden[~with_rows].float().mean() + 0.1


def test_few_tones_are_wrong():
    tones = worn.wrong_tones(torch.full((100, 80), 3), np.random.default_rng(0))
    assert 0.04 < (tones != 3).float().mean() < 0.1 and tones.max() < 12
