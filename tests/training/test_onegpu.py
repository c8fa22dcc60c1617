"""The recipe for one GPU in miniature: music that is what its description says, one step of each training, a file that loads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.codec import Codec
from comfyui_musicgen.musicgen.loading import load
from comfyui_musicgen.tests.training.tiny_training import one_clip
from comfyui_musicgen.training.codec import adversarial
from comfyui_musicgen.training.codec.adversary import spectral_loss
from comfyui_musicgen.training.data import songs
from comfyui_musicgen.training.data.grooves import GENRES, GROOVES
from comfyui_musicgen.training.data.harmony import progression
from comfyui_musicgen.training.data.instruments import INSTRUMENTS
from comfyui_musicgen.training.data.render import levelled
from comfyui_musicgen.training.data.score import DRUM_BANK, FRAME_S, on_frame
from comfyui_musicgen.training.data.songwords import GENRE_WORDS, describe
from comfyui_musicgen.training.export import write
from comfyui_musicgen.training.lm import scored, scored_train
from comfyui_musicgen.training.lm.scored import FRAME_TARGETS, OVER_AFTER_S, TEXT_TARGETS, UNKNOWN
from comfyui_musicgen.training.lm.text import NUMBERS, Texts, train_tokenizer
from comfyui_musicgen.training.onegpu import clips, feed
from comfyui_musicgen.training.onegpu.recipe import FULL, MAX_BYTES, N_ROWS, REHEARSAL
from comfyui_musicgen.training.recipe import CODEC

WINDOW_S = 10.0


@pytest.fixture(scope="module")
def pieces():
    return [songs.song("train", number, WINDOW_S) for number in range(60)]


def test_a_bar_of_every_pattern_is_as_long_as_its_metre():
    for groove in GROOVES.values():
        for pattern in (*groove.drums.values(), *groove.bass, *groove.chords):
            assert len(pattern) == groove.beats * groove.steps


def test_every_player_of_a_groove_is_an_instrument_and_every_progression_can_be_read():
    for groove in GROOVES.values():
        assert {*groove.leads, *groove.comping, *groove.basses, *groove.pads} <= set(INSTRUMENTS)
        assert all(progression(numerals, 0) for numerals in groove.progressions)


def test_genres_and_instruments_are_as_many_as_promised():
    assert len(GROOVES) >= 25 and len(GENRES) >= 12 and len(INSTRUMENTS) >= 24
    assert {groove.metre for groove in GROOVES.values()} >= {"2/4", "3/4", "4/4", "6/8", "12/8"}
    assert set(GENRE_WORDS) == set(GENRES)


def test_a_piece_follows_from_its_number():
    assert songs.song("train", 3, WINDOW_S) == songs.song("train", 3, WINDOW_S)
    assert songs.song("train", 3, WINDOW_S) != songs.song("held-out", 3, WINDOW_S)


def test_notes_lie_on_the_steps_of_the_tempo(pieces):
    for piece in pieces:
        drums = [part for part in piece.parts if part.bank == DRUM_BANK]
        steps = [note.start_s / piece.grid.beat_s * 12 for part in drums for note in part.notes]
        if piece.facts.drums and not piece.grid.swing and steps:
            assert np.median(np.abs(np.array(steps) - np.round(steps))) < 0.2


def test_notes_begin_and_end_with_frames_of_the_codec_at_few_velocities(pieces):
    """Elsewhere every repetition of a tone would be other codes."""
    notes = [note for piece in pieces for part in piece.parts for note in part.notes]
    times = np.array([[note.start_s, note.start_s + note.duration_s] for note in notes]) / FRAME_S
    assert np.abs(times - np.round(times)).max() < 1e-6 and (np.diff(times) > 0.99).all()
    assert {note.velocity for note in notes} <= set(range(16, 127, 16))
    firsts = np.array([piece.first_s for piece in pieces]) / FRAME_S
    assert np.abs(firsts - np.round(firsts)).max() < 1e-6 and firsts.max() > 0
    assert 1 / CODEC.frame_rate_hz == FRAME_S


def test_a_drawn_tempo_has_beats_of_whole_frames_and_a_given_one_is_kept(pieces):
    for piece in pieces:
        frames = piece.grid.beat_s / FRAME_S
        assert abs(frames - round(frames)) < 1e-9 and abs(piece.grid.bpm / piece.facts.bpm - 1) < 0.035
        for step in range(piece.grid.groove.steps):  # a step of each beat lies equally far from the beat
            starts = [
                on_frame(piece.grid.at(7, b * piece.grid.groove.steps + step)) for b in range(piece.grid.groove.beats)
            ]
            assert len({round(t / FRAME_S) - round(frames) * b for b, t in enumerate(starts)}) == 1
    name = next(iter(songs.GROOVES))
    made = songs.compose(name, songs.GROOVES[name], "solo", 10.0, np.random.default_rng(0), 113.0)
    assert made.grid.bpm == made.facts.bpm == 113.0


def test_gains_of_clips_go_in_steps():
    wave = np.sin(np.arange(32_000) * 0.05).astype(np.float32)
    peaks = [
        np.abs(levelled(level * wave, dynamics)).max() / level
        for level in (0.11, 0.3, 0.83)
        for dynamics in ("soft", "loud")
    ]
    steps = 20 * np.log10(np.array(peaks) / np.abs(wave).max()) / 3
    assert np.abs(steps - np.round(steps)).max() < 0.01 and len(set(np.round(steps))) > 3


def test_players_are_those_that_the_facts_name(pieces):
    for piece in pieces:
        names = {part.name for part in piece.parts if part.bank != DRUM_BANK}
        assert names == set(piece.facts.players)
        assert piece.facts.drums == any(part.bank == DRUM_BANK for part in piece.parts)
        if piece.facts.arrangement == "solo":
            assert names == {piece.facts.lead} and not piece.facts.drums


def test_the_end_is_followed_by_silence(pieces):
    for piece in pieces:
        last = max((note.start_s for part in piece.parts for note in part.notes), default=0.0)
        assert last <= piece.end_s + 0.2


def test_about_one_window_in_four_holds_the_end():
    ends = [songs.song("train", number, WINDOW_S).facts.ends for number in range(200)]
    assert 0.15 < np.mean(ends) < 0.4


def test_a_description_does_not_contradict_the_facts(pieces):
    rng = np.random.default_rng(0)
    for piece in pieces:
        for _ in range(10):
            text = describe(piece.facts, rng).lower()
            if "no drums" in text or "without drums" in text:
                assert not piece.facts.drums
            if "bpm" in text:
                assert f"{piece.facts.bpm:.0f} bpm" in text


def test_hangul_is_described_too(pieces):
    rng = np.random.default_rng(0)
    texts = [describe(piece.facts, rng) for piece in pieces for _ in range(5)]
    korean = [text for text in texts if any("가" <= c <= "힣" for c in text)]
    assert 0.1 < len(korean) / len(texts) < 0.4


def test_score_frames_name_the_melody_and_the_chord(pieces):
    piece = next(piece for piece in pieces if piece.facts.lead)
    assert piece.melody_frames(WINDOW_S, 79).max() <= 12
    bits, classes = piece.chord_frames(WINDOW_S, 79)
    assert bits.max() < 1 << 12 and classes.max() <= 24


def test_spectra_tell_a_comb_of_the_frame_rate():
    wave = torch.sin(torch.arange(16000) * 0.05)[None]
    comb = wave.clone()
    comb[:, ::640] += 0.1
    assert spectral_loss(comb, wave, 32000, 17) > 10 * spectral_loss(wave + 1e-5, wave, 32000, 17)


@pytest.fixture(scope="module")
def codec():
    recipe = replace(REHEARSAL, codec=replace(REHEARSAL.codec, codebook_size=4))
    waves = 0.1 * torch.randn(2, 6400, generator=torch.Generator().manual_seed(0))
    plan = adversarial.Plan(1.0, 2, 0.2, quantized_from=0.0, n_filters=2)
    trainer = adversarial.Trainer(recipe.codec, plan, torch.device("cpu"), waves)
    while not trainer.quantizes:
        trainer.train_step(waves, 0.1)
    losses = trainer.train_step(waves, 0.6)
    assert all(torch.isfinite(loss) for loss in losses.values()) and "features" in losses
    return trainer.finished()


def test_a_trained_step_of_both_exports_and_loads(codec, tmp_path):
    tokenizer = train_tokenizer(texts=iter(["solo piano", "피아노 솔로"]), vocabulary=300)
    recipe = replace(REHEARSAL, codec=codec.config)
    device, n, t, f = torch.device("cpu"), 4, recipe.n_frames, recipe.n_chroma_frames
    encode = clips.encoder(tokenizer)
    made = [clips.made(recipe, "train", 5 * i + 4, None) for i in range(n)]
    ids = torch.zeros(n, 1, 8, dtype=torch.int16)
    ids[:, 0, : len(encode("solo piano"))] = torch.tensor(encode("solo piano"), dtype=torch.int16)
    shelf = scored_train.Shelf(
        torch.randint(4, (n, 4, t)).short(),
        torch.from_numpy(np.stack([one.chords for one in made])),
        torch.zeros(n, f, dtype=torch.uint8), torch.from_numpy(np.stack([one.frames for one in made])),
        ids, np.full((n, 1), len(encode("solo piano"))), torch.from_numpy(np.stack([one.targets[:1] for one in made])),
    )  # fmt: skip
    plan = scored_train.Plan(1.0, 2)
    codebooks = torch.stack([layer.codebook.embed for layer in codec.quantizer.layers])
    trainer = scored_train.Trainer(recipe.model, plan, tokenizer, device, codebooks)
    for done, batch in zip((0.1, 0.9), shelf.batches(plan), strict=False):
        losses = trainer.train_step(batch, done)
        assert all(torch.isfinite(loss).all() for loss in losses.values())
    path = write(codec, trainer.average, tokenizer, tmp_path / "tiny.safetensors", MAX_BYTES)
    assert load(path).config.lm == recipe.model.lm


def test_a_shelf_grows_by_clips_that_are_rendered_meanwhile(codec):
    recipe = replace(REHEARSAL, codec=codec.config, n_clips=4)
    encode = clips.encoder(train_tokenizer(texts=iter(["buk alone"]), vocabulary=300))
    pool = clips.Clips(recipe, first_number=100)
    pool.start(lambda: None, encode, 1)
    try:
        assert pool.wait(4, 30.0) == 4
    finally:
        pool.stop()
    device = torch.device("cpu")
    shelf = feed.coded(pool, codec, np.array([0]), device)
    grown = feed.Growth(pool, codec, device)(shelf)
    assert len(grown) == 5 and torch.equal(grown.codes[0], grown.codes[1])
    batch = next(grown.batches(scored_train.Plan(1.0, 1), lambda shelf: shelf))
    assert batch.codes.shape == (1, 4, recipe.n_frames) and batch.rows.shape == (1, recipe.n_chroma_frames, 12)


def test_the_full_size_fits_the_file():
    n = sum(t.numel() for t in Codec(FULL.codec).state_dict().values())
    trainer = scored_train.ScoredMusicGen(
        FULL.model, scored_train.t5_table(train_tokenizer(texts=iter(["a"]), vocabulary=300))
    )
    n += sum(t.numel() for t in trainer.lm.state_dict().values()) + sum(
        t.numel() for t in trainer.text.weights().values()
    )
    n += 1800 * FULL.model.text.dim
    assert 2 * n < MAX_BYTES


def test_what_a_text_says_is_what_the_piece_is(pieces):
    """Drums and an end are asked of every text: each description says them, or that they are missing."""
    names = list(TEXT_TARGETS)
    for piece in pieces:
        texts = [f"flute, {piece.facts.bpm:.0f} bpm", "flute"]
        named, unnamed = (dict(zip(names, row.tolist(), strict=True)) for row in clips.said(piece.facts, texts))
        assert named.pop("tempo") == clips.tempo_class(piece.grid.bpm) and unnamed.pop("tempo") == UNKNOWN
        assert named == unnamed and named["ends"] == piece.facts.ends
        assert list(songs.ARRANGEMENTS)[named["arrangement"]] == piece.facts.arrangement
        assert (named["genre"] == UNKNOWN) == (piece.facts.arrangement == "solo")
    assert {piece.facts.ends for piece in pieces} == {True, False}


def test_the_first_frames_and_the_last_chord_weigh_most():
    table = scored_train.t5_table(train_tokenizer(texts=iter(["a"]), vocabulary=300))
    model = scored_train.ScoredMusicGen(REHEARSAL.model, table)
    n, over, frames = 100, list(FRAME_TARGETS).index("over"), torch.zeros(3, len(FRAME_TARGETS), 100, dtype=torch.long)
    after = round(OVER_AFTER_S * REHEARSAL.codec.frame_rate_hz)
    frames[1, over, 60 + after :] = 1  # the last bar line is at frame 60
    frames[2, over] = 1  # ended before the clip begins: nothing weighs but its own beginning
    batch = scored_train.ScoredBatch(*[torch.zeros(3, 4, n, dtype=torch.long)] * 4, frames, torch.zeros(3, 5))
    decisive = model._decisive(batch, n + 3)
    assert (decisive[:, 0] == 1).all() and torch.equal(decisive[0], decisive[2])
    assert decisive[1, 60] == 1 and decisive[1, 59] < 0.01 and (decisive[1, 60:].diff() < 0).all()


def test_codes_around_a_tone_that_begins_weigh_more():
    tones = torch.full((1, 60), 12)
    tones[0, 20:30], tones[0, 30:] = 3, 12  # one tone, then rest: its end weighs as anything else
    weights = scored._near_onsets(tones, 63)[0]
    assert weights.shape == (63,) and weights.nonzero().flatten().tolist() == list(range(16, 26))


def test_an_opening_at_times_has_the_melody_from_its_own_first_frame_on():
    t, n = REHEARSAL.n_frames, 64
    frames = torch.zeros(1, len(FRAME_TARGETS), t, dtype=torch.uint8)
    frames[0, list(FRAME_TARGETS).index("tone")] = torch.arange(t) // 50  # another tone each second
    frames[0, list(FRAME_TARGETS).index("phase")] = 5
    frames[0, list(FRAME_TARGETS).index("phase"), 250] = 0  # a bar line in the middle
    batch = one_clip(frames).openings(np.zeros(n, int), np.zeros(n, int), 1, np.random.default_rng(0), False, 125)
    tones, middle = batch.rows.argmax(dim=-1), batch.codes[:, 0, 0] == 250
    told = batch.rows[..., 1:].any(dim=-1).any(dim=-1)
    assert 0.15 < told.float().mean() < 0.55 and 0.2 < middle.float().mean() < 0.8
    assert (tones[told & middle][:, :7] == 5).float().mean() > 0.8 and (
        tones[told & ~middle][:, :7] == 0
    ).float().mean() > 0.8
    assert not tones[~told].any()


def test_a_frame_has_one_position_whatever_the_text():
    """After 'flute' the music lagged 0.26 s behind its melody, after 22 words it came 0.3 s before."""
    table = scored_train.t5_table(train_tokenizer(texts=iter(["a"]), vocabulary=300))
    model, f = scored_train.ScoredMusicGen(REHEARSAL.model, table), REHEARSAL.n_chroma_frames
    frames = torch.zeros(2, len(FRAME_TARGETS), REHEARSAL.n_frames, dtype=torch.uint8)
    for n in (1, 2, 7, N_ROWS):
        batch = one_clip(frames[:1]).batch(np.zeros(1, int), np.zeros(1, int), min(n, 8), None)
        batch = replace(batch, ids=torch.ones(1, n, dtype=torch.long))
        prefix = model.rows_prefix(batch, model.text.t5(input_ids=batch.ids).last_hidden_state)
        assert prefix.shape[1] == f + N_ROWS and prefix[:, f : f + n].any() and not prefix[:, f + n :].any()


def test_numbers_are_tokens_of_their_own():
    """A small encoder reads digits in no order: 142 bpm was read as 124, 160 as 106."""
    texts = Texts(train_tokenizer(texts=iter(["solo piano, 120 bpm"]), vocabulary=300))
    tokens = [texts.ids(f"solo piano, {bpm} bpm") for bpm in NUMBERS]
    assert {len(ids) for ids in tokens} == {len(tokens[0])}
    differing = {i for ids in tokens for i, (a, b) in enumerate(zip(ids, tokens[0], strict=True)) if a != b}
    assert len(differing) == 1 and len({tuple(ids) for ids in tokens}) == len(NUMBERS)
    assert texts.ids("1978") != texts.ids("1987") and len(texts.ids("3/4")) == 5  # space, 3, /, 4, end


def test_a_lesson_asks_of_frames_anywhere_in_the_clips():
    table = scored_train.t5_table(train_tokenizer(texts=iter(["a"]), vocabulary=300))
    model, cardinality = scored_train.ScoredMusicGen(REHEARSAL.model, table), REHEARSAL.model.lm.cardinality
    frames = torch.zeros(1, len(FRAME_TARGETS), REHEARSAL.n_frames, dtype=torch.uint8)
    batch = one_clip(frames).batch(np.zeros(1, int), np.zeros(1, int), 1, None)
    prefix = model.rows_prefix(batch, model.text.t5(input_ids=batch.ids).last_hidden_state)
    hidden = torch.full((1, 4, 300), cardinality)
    every = model._through_layers(prefix, hidden, 1)[0]
    for column in (0, 7, 299):  # no column sees a later one, and each has the position of its frame
        alone = model._through_layers(prefix, hidden[..., :1], 1, torch.tensor([column]))[0]
        assert torch.allclose(alone[:, : prefix.shape[1]], every[:, : prefix.shape[1]], atol=1e-5)
        same = torch.allclose(alone[:, -1], every[:, prefix.shape[1]], atol=1e-4)
        assert same == (column == 0)
    asked = []
    model.auxiliary.forward = lambda hidden, texts, batch: (
        asked.append((hidden, batch.frames)) or (torch.zeros(()),) * 3
    )
    frames[0, 0] = torch.arange(REHEARSAL.n_frames) % 200
    batch = one_clip(frames).batch(np.zeros(1, int), np.zeros(1, int), 1, None)
    model.lesson(batch, torch.tensor([3, 50, 180]))
    assert asked[0][0].shape[1] == 3 and asked[0][1][0, 0].tolist() == [3, 50, 180]


def test_a_clip_seen_from_within_has_its_melody_there():
    t = REHEARSAL.n_frames
    frames = torch.zeros(1, len(FRAME_TARGETS), t, dtype=torch.uint8)
    tone, over = (list(FRAME_TARGETS).index(name) for name in ("tone", "over"))
    frames[0, tone] = torch.arange(t) // 50 % 11 + 1  # another tone each second
    whole = one_clip(frames).batch(np.zeros(1, int), np.zeros(1, int), 1, None)
    part = scored.later(whole, 64, 10)
    assert torch.equal(part.codes, whole.codes[..., 64:]) and part.rows.shape == whole.rows.shape
    assert (part.frames[:, over, : scored.UNTAUGHT_FRAMES] == UNKNOWN).all() and not part.frames[:, over, -50:].any()
    told = part.rows.argmax(dim=-1)[0, :60]
    played = part.frames[0, tone, (torch.arange(60) * 6.4).round().long()]
    assert (told == played).float().mean() > 0.9 and not part.rows[0, -10:, 1:].any()


def test_lessons_are_of_texts_that_name_the_tempo():
    frames = torch.zeros(1, len(FRAME_TARGETS), REHEARSAL.n_frames, dtype=torch.uint8)
    shelf = one_clip(frames)
    n = 8
    texts = torch.full((n, 3, shelf.texts.shape[2]), UNKNOWN, dtype=torch.uint8)
    texts[:, 1, 0] = 40  # one of three
    many = replace(
        shelf, texts=texts, lengths=np.ones((n, 3), int), ids=torch.ones(n, 3, 8, dtype=torch.int16),
        **{name: getattr(shelf, name).expand(n, *getattr(shelf, name).shape[1:]) for name in ("codes", "chords", "mix", "frames")},
    )  # fmt: skip
    plan = scored_train.Plan(0.0, batch_size=4)
    timed, any_text = (many.batches(plan, timed=timed) for timed in (True, False))
    assert all((next(timed).texts[:, 0] == 40).all() for _ in range(8))
    assert not all((next(any_text).texts[:, 0] == 40).all() for _ in range(8))
    assert {next(timed).codes.shape[2] for _ in range(8)} == {REHEARSAL.n_frames}, (
        "their clips begin where the texts say"
    )
