"""The recipe's chord model in miniature: its rows are the score's chords, it learns from them, goes on, and is exported."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.codec import Codec
from comfyui_musicgen.musicgen.conditioning import Progression, encode_chords
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.loading import load
from comfyui_musicgen.training import runs
from comfyui_musicgen.training.data import songs
from comfyui_musicgen.training.export import write
from comfyui_musicgen.training.lm import scored_train
from comfyui_musicgen.training.lm.scored import FRAME_TARGETS, TEXT_TARGETS, UNKNOWN
from comfyui_musicgen.training.lm.text import Texts
from comfyui_musicgen.training.recipe import CLIP_S, CODEC, model_config

# As many codes a second as rows, so that a song is 79 columns; a codebook's codes 0 to 11 are the notes.
TINY = replace(CODEC, ratios=(8, 8, 8, 8), n_filters=2, latent_dim=16, codebook_size=16)
CONFIG = model_config(64, 2, 2, TINY, chords=True)
N_ROWS = CONFIG.melody.n_frames
N_TOKENS = 14  # as many as the recipe's texts have on average, to which the heads that follow rows are set
ROWS_S = N_ROWS * 4096 / 32000
PLAN = scored_train.Plan(60.0, batch_size=8, learning_rate=4e-3, guesses_from=2.0, chords=True)


def shelf_of(split, n):
    """n songs, as codes of an instrument that plays a note of the chord of its time in each frame of each codebook, any of them."""
    rng, chords, number = np.random.default_rng(0), [], 0
    while len(chords) < n:
        piece = songs.song(split, number, CLIP_S)
        bits = piece.chord_frames(ROWS_S, N_ROWS)[0]
        number += 1
        if (bits > 0).all() and len(set(bits.tolist())) > 1:
            chords.append(bits)
    chords = np.stack(chords)
    notes = (chords[:, None, :, None] >> np.arange(12)) & 1
    draws = rng.random((n, 4, N_ROWS, 12)) * notes
    frames = np.full((n, len(FRAME_TARGETS), N_ROWS), UNKNOWN, np.uint8)
    frames[:, list(FRAME_TARGETS).index("over")] = 0
    return scored_train.Shelf(
        torch.from_numpy(draws.argmax(axis=-1).astype(np.int16)), torch.from_numpy(chords),
        torch.zeros(n, N_ROWS, dtype=torch.uint8), torch.from_numpy(frames),
        torch.full((n, 1, N_TOKENS), 5, dtype=torch.int16), np.full((n, 1), N_TOKENS),
        torch.full((n, 1, len(TEXT_TARGETS)), UNKNOWN, dtype=torch.uint8),
    )  # fmt: skip


def trainer_of(tokenizer):
    torch.manual_seed(0)
    return scored_train.Trainer(CONFIG, PLAN, tokenizer, torch.device("cpu"), torch.randn(4, 16, 16))


@pytest.fixture(scope="module")
def shelves():
    return shelf_of("train", 64), shelf_of("held-out", 16)


@pytest.fixture(scope="module")
def trained(shelves, tokenizer):
    trainer, batches = trainer_of(tokenizer), shelves[0].batches(PLAN)
    for step in range(120):
        trainer.train_step(next(batches), step / 260)
    return trainer


def test_rows_are_the_notes_of_the_score_s_chords(shelves):
    shelf, _ = shelves
    piece = next(
        p for p in (songs.song("train", n, CLIP_S) for n in range(20)) if p.chord_frames(ROWS_S, N_ROWS)[0].all()
    )
    batch = shelf.batch(np.arange(4), np.zeros(4, int), N_TOKENS, None, chords=True)
    assert batch.with_rows.tolist() == [1] * 4
    for i, row in enumerate(batch.rows.numpy().astype(int)):
        assert [sum(1 << note for note in np.flatnonzero(each)) for each in row] == shelf.chords[i].tolist()
    bits = piece.chord_frames(ROWS_S, N_ROWS)[0]
    bar = piece.chords[int((piece.first_s + 0.5 * ROWS_S / N_ROWS) / piece.grid.bar_s)]
    assert int(bits[0]) == sum(1 << note for note in set(bar.tones))


def test_one_note_alone_is_no_chord(shelves):
    """Pansori's clips have their melody there, which a melody model may be told."""
    shelf = replace(shelves[0], chords=torch.full_like(shelves[0].chords, 1 << 7))
    batch = shelf.batch(np.arange(2), np.zeros(2, int), N_TOKENS, None, chords=True)
    assert not batch.rows.any() and batch.with_rows.all()


def test_text_and_chords_are_left_out_as_in_musicgen_chord(shelves):
    """All in a fifth of the rows, the chords alone in half of the others; 2,000 draws, within five deviations."""
    shelf, rng = shelves[0], np.random.default_rng(1)
    kinds = np.zeros(4, int)
    for _ in range(250):
        batch = shelf.batch(np.arange(8), np.zeros(8, int), N_TOKENS, rng, chords=True)
        for text, rows in zip(batch.with_text.tolist(), batch.with_rows.tolist(), strict=True):
            kinds[int(2 * text + rows)] += 1
    nothing, rows_only, text_only, both = kinds / kinds.sum()
    assert rows_only == 0 and abs(nothing - 0.2) < 0.05 and abs(text_only - 0.4) < 0.06 and abs(both - 0.4) < 0.06


def test_chords_that_are_left_out_are_zeros_not_the_bias(trained, shelves):
    batch = shelves[1].batch(np.arange(2), np.zeros(2, int), N_TOKENS, None, chords=True)
    batch = replace(batch, with_rows=torch.tensor([1.0, 0.0]))
    with torch.no_grad():
        prefix = trained.average.rows_prefix(batch, trained.average.text.t5(input_ids=batch.ids).last_hidden_state)
        expected = trained.average.melody_projection(batch.rows[0])
    assert torch.equal(prefix[0, :N_ROWS], expected) and not prefix[1, :N_ROWS].any()


def test_held_out_songs_are_likelier_with_their_own_chords(trained, shelves):
    """Nats a code. Chance: 2.48, any of twelve notes. Ceiling: 1.10 to 1.39, any of a chord's three or four.

    Chords of another song must cost half a nat more, and none a tenth: what came before tells much of a chord that stays. Measured:
    1.42, with another's 2.86, without 1.67.
    """
    held_out = shelves[1]
    batch = held_out.batch(np.arange(16), np.zeros(16, int), N_TOKENS, None, chords=True)
    losses = trained.measure([batch])
    assert losses["loss"] < 1.8, losses
    assert losses["other_rows"] > losses["loss"] + 0.5, losses
    assert losses["no_rows"] > losses["loss"] + 0.1, losses


def test_a_run_goes_on_where_it_stopped(shelves, tokenizer, tmp_path):
    first = trainer_of(tokenizer)
    batches = shelves[0].batches(PLAN)
    for _ in range(3):
        first.train_step(next(batches), 0.1)
    first.elapsed_s = 12.5
    runs.save(tmp_path / "lm.pt", first.state())
    second = trainer_of(tokenizer)
    second.restore(runs.load(tmp_path / "lm.pt"))
    assert (second.step, second.elapsed_s, second.plan) == (3, 12.5, PLAN)
    batch = next(shelves[0].batches(PLAN, step=second.step))
    one, other = (trainer.train_step(batch, 0.2)["codebooks"] for trainer in (first, second))
    assert torch.equal(one, other)
    for a, b in zip(first.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_sitting_ends_in_time_and_leaves_its_checkpoint(shelves, tokenizer, tmp_path):
    trainer, rows = trainer_of(tokenizer), []
    check = [shelves[1].batch(np.arange(2), np.zeros(2, int), N_TOKENS, None, chords=True)]
    scored_train.train(
        trainer, shelves[0].batches(PLAN), check, rows.append, limit_s=0.3, checkpoint=tmp_path / "lm.pt"
    )
    left = runs.load(tmp_path / "lm.pt")
    assert left["step"] == trainer.step >= 1 and 0 < left["elapsed_s"] < PLAN.seconds
    assert "held_out_other_rows" in rows[0]


def test_the_file_is_a_chord_model_that_the_engine_follows(trained, tokenizer, tmp_path):
    codec, generator = Codec(TINY), torch.Generator().manual_seed(0)
    for tensor in codec.state_dict().values():
        tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    path = write(codec, trained.average, tokenizer, tmp_path / "chord-tiny.safetensors")
    loaded = load(path)
    assert loaded.config.melody.chords and loaded.config.name == "chord-tiny"
    text, progression = "slow waltz", Progression.parse("C G,F A:min", 120.0, "3/4")
    conditioning = encode_chords(loaded.conditioner, loaded.conditioner.encode_text([text]), progression)
    batch = scored_train.ScoredBatch(
        torch.zeros(1, 4, 8, dtype=torch.long), progression.rows(0.0, N_ROWS, 7.8125)[None],
        torch.tensor([Texts(tokenizer).ids(text)]), torch.ones(1), torch.zeros(0), torch.zeros(0), None, torch.ones(1),
    )  # fmt: skip
    with torch.no_grad():
        ours = trained.average.rows_prefix(batch, trained.average.text.t5(input_ids=batch.ids).last_hidden_state)[0]
    torch.testing.assert_close(conditioning.prefix(0), ours, atol=0.02, rtol=0.02)
    params = GenerationParams(duration_s=2.0, seed=1, cfg=1.0)
    codes = loaded.model.generate(conditioning, params).codes
    notes = progression.rows(0.0, codes.shape[2], 7.8125).bool()
    share = notes[torch.arange(codes.shape[2]), codes[0].clamp(max=11)].float().mean()
    assert share > 0.5, f"{share:.2f} of the codes are notes of the chord of their time; chance 0.25, ceiling 1"
