"""The recipe, at toy sizes: a codec learns, its codes teach a language model, and the engine opens what comes out."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.conditioning.chroma import chroma
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.lm.delay import delay
from comfyui_musicgen.tests.training.tiny_training import TINY, model
from comfyui_musicgen.training import export, runs
from comfyui_musicgen.training.codec import crops
from comfyui_musicgen.training.codec import train as codec_training
from comfyui_musicgen.training.codec.quantization import QuantizerTraining
from comfyui_musicgen.training.codec.spectral import mel_distance, si_sdr_db
from comfyui_musicgen.training.codec.train import CodecTraining
from comfyui_musicgen.training.data.pieces import clip, start
from comfyui_musicgen.training.lm import auxiliary, codes, examples
from comfyui_musicgen.training.lm import train as lm
from comfyui_musicgen.training.lm.examples import HIDDEN, Batch, Examples, without_melody
from comfyui_musicgen.training.lm.rollouts import Rollouts
from comfyui_musicgen.training.lm.text import Texts
from comfyui_musicgen.training.recipe import SHARPNESS, model_config

PLAN = CodecTraining(audio_hours=0.01, batch_size=2, crop_s=0.25, learning_rate=2e-3)


@pytest.fixture(scope="module")
def codec_run(tmp_path_factory):
    """The checkpoint of a codec that was trained for a few steps, its quantizer included."""
    trainer = codec_training.Trainer(TINY, PLAN, torch.device("cpu"))
    data = crops.batches(PLAN.crop_s, TINY.sample_rate_hz, 0, PLAN.batch_size, 0)
    one = next(data)
    losses = [trainer.train_step(one) for _ in range(30)]
    with torch.no_grad():
        latents = trainer.codec.encoder(crops.held_out(4, 2.0, TINY.sample_rate_hz)[:, None])
    trainer.quantizer.start(latents.transpose(1, 2).reshape(-1, TINY.latent_dim), trainer.generator)
    losses += [trainer.train_step(next(data)) for _ in range(4)]
    path = tmp_path_factory.mktemp("codec") / codec_training.CHECKPOINT
    runs.save(path, trainer.state())
    return trainer, losses, path


@pytest.fixture(scope="module")
def shards(codec_run, tmp_path_factory):
    folder, codec = tmp_path_factory.mktemp("codes"), codec_training.finished(codec_run[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes, "SHARD_CLIPS", 4)
        for split in ("train", "held-out"):
            assert codes.write_shards(folder, codec, split, 8, 5.0, (2, 2)) == 1
            assert codes.write_shards(folder, codec, split, 8, 5.0) == 2
    return folder


def test_the_codec_learns(codec_run):
    losses = [step["loss"] for step in codec_run[1]]
    assert np.mean(losses[26:30]) < 0.9 * np.mean(losses[:3])


def test_a_decoder_trained_alone_leaves_every_code(codec_run):
    _, _, path = codec_run
    trainer = codec_training.Trainer(TINY, PLAN, torch.device("cpu"))
    trainer.restore(runs.load(path))
    trainer.freeze_encoder()
    waves = crops.held_out(2, 0.5, TINY.sample_rate_hz)
    before = codec_training.shipped(trainer.codec, TINY)
    losses = [trainer.train_step(waves)["wave"] for _ in range(6)]
    after = codec_training.shipped(trainer.codec, TINY)
    assert torch.equal(codes.encode(before, waves), codes.encode(after, waves))
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    kept = codec_training.Trainer(TINY, PLAN, torch.device("cpu"))
    kept.restore(trainer.state())
    assert kept.plan.decoder_only and kept.begun_s == trainer.begun_s


def test_a_decoder_is_not_trained_alone_before_there_are_codebooks():
    trainer = codec_training.Trainer(TINY, PLAN, torch.device("cpu"))
    with pytest.raises(InputError, match="no codebooks yet"):
        trainer.freeze_encoder()


def test_a_resumed_run_goes_on_exactly(codec_run):
    trainer, _, path = codec_run
    again = codec_training.Trainer(TINY, replace(PLAN, seed=5), torch.device("cpu"))
    again.restore(runs.load(path))
    waves = crops.held_out(2, 0.5, TINY.sample_rate_hz)
    assert again.train_step(waves)["loss"] == trainer.train_step(waves)["loss"]
    trainer.restore(runs.load(path))


def test_the_shipped_codec_is_the_trained_one(codec_run):
    trainer, _, path = codec_run
    waves = crops.held_out(1, 1.0, TINY.sample_rate_hz)
    with torch.no_grad():
        trained = trainer.codec.encoder(waves[:, None])
        shipped = codec_training.finished(path).encoder(waves[:, None])
    assert torch.allclose(trained, shipped, atol=0.02 * float(trained.abs().max()))


def test_codebooks_move_to_what_they_stand_for():
    codec = codec_training.Codec(TINY)
    quantizer, generator = QuantizerTraining(codec.quantizer), torch.Generator().manual_seed(0)
    centres = torch.randn(8, 16, generator=generator) * 4
    vectors = centres.repeat(40, 1) + 0.01 * torch.randn(320, 16, generator=generator)
    quantizer.start(vectors, generator)
    moved = quantizer(vectors.t()[None], torch.tensor([1]), generator)
    assert (moved.latents - vectors.t()[None]).abs().max() < 0.1
    everything = quantizer(vectors.t()[None], torch.tensor([4]), generator)
    assert (everything.latents - vectors.t()[None]).pow(2).mean() < (moved.latents - vectors.t()[None]).pow(2).mean()


def test_distances_are_zero_for_the_same_and_grow_with_noise():
    waves = crops.held_out(2, 1.0, 32000)
    noisy = waves + 0.01 * torch.randn(waves.shape, generator=torch.Generator().manual_seed(0))
    assert mel_distance(waves, waves, 32000) == 0 and mel_distance(noisy, waves, 32000) > 0.1
    assert torch.allclose(si_sdr_db(0.3 * noisy, waves), si_sdr_db(noisy, waves), atol=1e-3)
    assert (si_sdr_db(noisy, waves) > 5).all()


def test_shards_hold_what_the_codec_and_the_chroma_give(codec_run, shards):
    shard = codes.read_shard(codes.shard_path(shards, "train", 1))
    made = clip("train", 5, 10.0, TINY.sample_rate_hz)
    codec = codec_training.finished(codec_run[2])
    codec.config = replace(codec.config, fingerprint="x")
    expected = codec.encode(Audio(torch.from_numpy(made.samples)[None, None], TINY.sample_rate_hz)).codes[0].numpy()
    assert shard.labels[1] == made.label
    assert (shard.codes[1] == expected).mean() > 0.99  # chunks differ by rounding, which may tip a tie
    frames = chroma(torch.from_numpy(made.samples), TINY.sample_rate_hz, model_config(64, 1, 1).melody).argmax(1)
    assert np.array_equal(shard.chroma[1, 0], frames.numpy()[: shard.chroma.shape[2]])


def test_batches_hold_texts_of_one_length_and_every_kind_of_conditioning(shards, tokenizer):
    data = Examples.read(shards, "train").batches(Texts(tokenizer), 2, 0)
    kinds = set()
    for _ in range(60):
        batch = next(data)
        assert len({len(ids) for ids in batch.ids}) == 1
        kinds |= {(bool(t), bool(c.any())) for t, c in zip(batch.with_text, batch.chroma, strict=True)}
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}


def test_batches_for_training_hide_parts_and_those_for_measuring_nothing(shards, tokenizer):
    read, texts = Examples.read(shards, "train"), Texts(tokenizer)
    batches = list(itertools.islice(read.batches(texts, 2, 0), 6))
    codes_, shown = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("codes", "shown"))
    changed = (shown != codes_).any(dim=1)
    assert 0.02 < changed.float().mean() < 0.9
    assert (shown == HIDDEN).any() and ((shown != HIDDEN).all(dim=1) & changed).any()
    (batch, *_) = batches
    assert read.fixed(texts, 2, 1)[0].shown is None
    for codes_, known in zip(batch.codes.numpy(), batch.known.frames.numpy(), strict=True):
        (index,) = np.flatnonzero((read.codes == codes_).all(axis=(1, 2)))
        taught = set(known[4].tolist()) - {auxiliary.NOTHING}  # the line itself, whatever the batch is conditioned on
        assert taught <= set(read.chroma[index, 1].tolist())
        assert bool(taught) == (read.labels[index].mode is not None)


def test_frames_where_pulses_begin_weigh_more_and_strokes_most(tokenizer):
    known = torch.full((1, len(auxiliary.FRAME_TARGETS), 12), auxiliary.NOTHING)
    known[0, 0] = torch.tensor([5] * 6 + [6] * 6)
    known[0, 3] = torch.tensor([0] * 6 + [2] * 2 + [0] * 4)
    known = auxiliary.Known(known, torch.full((1, 2), auxiliary.NOTHING))
    weights = auxiliary.code_weights(known)[0]
    assert weights.tolist() == [4, 4, 1, 1, 1, 6, 6, 6, 1, 1, 1, 1]
    of_strokes = auxiliary.code_weights(known, torch.tensor([True]))[0]
    assert of_strokes.tolist() == [0] * 5 + [6] * 3 + [0] * 4
    small = model(tokenizer, 64, 2, 1)
    codes_ = torch.randint(32, (1, 4, 12), generator=torch.Generator().manual_seed(1))
    chroma_ = torch.zeros(1, small.config.melody.n_frames, dtype=torch.long)
    batch = Batch(codes_, chroma_, ((5, 1),), torch.tensor([True]), None, known)
    with torch.no_grad():
        losses, logits = small(batch), small.logits(small.prefix(batch), delay(codes_, (0, 1, 2, 3), 32)[..., :-1])
    for k in range(4):
        each = torch.nn.functional.cross_entropy(logits[0, k, k : k + 12], codes_[0, k], reduction="none")
        assert torch.isclose(losses.codebooks[k], each.mean(), atol=1e-4)
        assert torch.isclose(losses.weighted[k], (each * weights).sum() / weights.sum(), atol=1e-4)


@pytest.mark.slow
def test_lessons_are_of_the_beat_alone_and_are_learnt(shards, tokenizer):
    plan = lm.LMTraining(dim=64, n_heads=2, n_layers=3, batch_size=4, learning_rate=3e-3)
    trainer = lm.Trainer(model_config(64, 2, 3, TINY), plan, tokenizer, torch.device("cpu"))
    data = Examples.read(shards, "train").lessons(Texts(tokenizer), 4, 0)
    batch = next(data)
    assert (batch.codes == HIDDEN).all() and batch.with_text.all() and not batch.chroma.any()
    assert (batch.known.frames[:, :2] != auxiliary.NOTHING).all() and batch.known.frames[:, 3].any()
    assert (batch.known.frames[:, 4] == auxiliary.NOTHING).all(), "no clip, no melody"
    heads, last = trainer.model.lm.heads.weight.clone(), trainer.model.lm.layers[2].up.weight.clone()
    one = [trainer.lesson(batch)["lesson"] for _ in range(40)]
    assert one[-1] < 0.85 * one[0]
    assert trainer.step == 40 and trainer.audio_s == 0, "no clip was heard"
    assert torch.equal(heads, trainer.model.lm.heads.weight), "the heads of the codes are not taught by it"
    assert torch.equal(last, trainer.model.lm.layers[2].up.weight), "nor the layers above the one that is asked"


def test_what_is_learnt_last_is_heard_more_often(shards, tokenizer):
    read, texts = Examples.read(shards, "train"), Texts(tokenizer)
    hard = [{label.jangdan, label.instrument} & {"jinyangjo", "hwimori", "gayageum"} for label in read.labels]
    assert 0 < sum(map(bool, hard)) < len(hard)
    n_rows = sum(2 if some else 1 for some in hard)
    heard = np.zeros(len(hard), int)
    for batch in itertools.islice(read.batches(texts, 1, 0), n_rows):
        (index,) = np.flatnonzero((read.codes == batch.codes[0].numpy()).all(axis=(1, 2)))
        heard[index] += 1
    assert heard.tolist() == [2 if some else 1 for some in hard], "each in its turn before any comes again"
    asked = [label.jangdan for label, _ in itertools.islice(read.tasks(texts, 0), 400)]
    assert asked.count("hwimori") > 1.3 * asked.count("jungmori")


def test_its_own_music_is_seen_where_the_text_tells_the_beat_and_never_to_be_predicted(shards, tokenizer):
    plan = lm.LMTraining(dim=64, n_heads=2, n_layers=2, batch_size=2)
    trainer = lm.Trainer(model_config(64, 2, 2, TINY), plan, tokenizer, torch.device("cpu"))
    read, texts, kept = Examples.read(shards, "train"), Texts(tokenizer), Rollouts()
    labels, asked = zip(*itertools.islice(read.tasks(texts, 0), 3), strict=True)
    assert all(label.jangdan for label in labels) and not any(batch.chroma.any() for batch in asked)
    written = trainer.write(asked, 5, 3.0)
    assert written.shape == (3, *read.codes.shape[1:]) and written.max() < TINY.codebook_size
    assert torch.equal(written, trainer.write(asked, 5, 3.0)) and not torch.equal(written, trainer.write(asked, 6, 3.0))
    trainer.train_step(next(read.batches(texts, 2, 0)))  # nothing that was made in writing is in the way

    mark = 31  # stands out: no clip is made of one code alone
    for label in filter(lambda label: label.jangdan, read.labels):
        kept.add([label], np.full((1, *read.codes.shape[1:]), mark))
    seen, spans, half = 0, 0, read.codes.shape[2] // 2
    for batch in itertools.islice(read.batches(texts, 2, 0, kept), 60):
        for row in range(2):
            (index,) = np.flatnonzero((read.codes == batch.codes[row].numpy()).all(axis=(1, 2)))
            own = (batch.shown[row] == mark).all(dim=0)
            spans += bool(own.any() and not own[half:].all())
            if own[half:].all():
                seen += 1
                assert batch.with_text[row] and read.first_pulses[index] == 0 and read.labels[index].jangdan
                assert bool(batch.of_strokes[row]) == (read.labels[index].instrument != "none")
    assert seen > 5 and spans > 5
    lessons = list(itertools.islice(read.lessons(texts, 2, 0, kept), 200))
    assert all((batch.codes == HIDDEN).all() for batch in lessons)
    assert {True, False} == {bool((row == HIDDEN).all()) for batch in lessons for row in batch.shown}


def test_codes_of_another_synthesizer_are_refused(shards, monkeypatch):
    monkeypatch.setattr(examples, "start", lambda split, number: start(split, number + 1))
    with pytest.raises(InputError, match="codes' anew"):
        Examples.read(shards, "train")


def test_the_language_model_learns_and_the_engine_opens_it(codec_run, shards, tokenizer, tmp_path):
    plan = lm.LMTraining(dim=64, n_heads=2, n_layers=2, batch_size=2, learning_rate=3e-3, average=0.5)
    trainer = lm.Trainer(model_config(64, 2, 2, TINY), plan, tokenizer, torch.device("cpu"))
    texts = Texts(tokenizer)
    batches = list(itertools.islice(Examples.read(shards, "train").batches(texts, 2, 0), 12))
    first = [trainer.train_step(batch) for batch in batches]
    second = [trainer.train_step(batch) for batch in batches]
    for name in ("loss", "auxiliary"):  # batches differ in what there is to know: each is held against itself
        before, after = (np.array([step[name] for step in steps]) for steps in (first, second))
        assert (after < before).mean() > 0.8 and after.mean() < before.mean()
    check = Examples.read(shards, "held-out").fixed(texts, 2, 1)
    assert set(trainer.measure(check)) >= {"loss", "loss0", "loss3", "pulses", "jangdan", "no_melody", "no_text"}

    target = export.write(
        codec_training.finished(codec_run[2]), trainer.average, tokenizer, tmp_path / "mini.safetensors"
    )
    loaded = loading.load(target)
    assert loaded.config.name == "mini" and loaded.config.melody is not None
    heads = loaded.model.lm.heads.state_dict()["weight"].float()
    assert torch.allclose(heads, SHARPNESS * trainer.average.lm.heads.weight, atol=1e-3) and heads.any()
    ours, null = trainer.average, without_melody(check[0])
    text = "slow pansori, a deep voice over the buk"
    conditioning = loaded.conditioner.encode_text([text])
    batch = Batch(null.codes[:1], null.chroma[:1], (tuple(texts.ids(text)),), torch.tensor([True]))
    with torch.no_grad():
        assert torch.allclose(conditioning.prefix(0), ours.prefix(batch)[0], atol=0.02)
    melody = Audio(torch.from_numpy(clip("train", 2, 3.0, 32000).samples)[None, None], 32000)
    conditioning = loaded.conditioner.encode_melody(conditioning, melody, "off")
    made = loaded.model.generate(conditioning, GenerationParams(duration_s=0.5, top_k=20))
    assert loaded.codec.decode(made).samples.shape == (1, 1, 16000)


@pytest.mark.slow
def test_an_evaluation_measures_everything(codec_run, tokenizer, tmp_path, monkeypatch, capsys):
    from comfyui_musicgen.training.evaluate import measure as evaluate
    from comfyui_musicgen.training.evaluate import report

    small = model(tokenizer, 64, 2, 1)
    path = export.write(codec_training.finished(codec_run[2]), small, tokenizer, tmp_path / "small.safetensors")
    monkeypatch.setattr(report, "_CRITIC_CLIPS", 16)
    for name, value in (("DURATION_S", 2.5), ("CONTINUED_S", 5.5), ("_CODEC_S", 1.0), ("COLLAPSE_S", 0.5)):
        monkeypatch.setattr(evaluate, name, value)
    findings = {finding.name: finding for finding in report.report(path, tmp_path / "out", 2, 3, 3.0, 1, ())}
    assert len(findings) >= 20 and not [f for f in findings.values() if np.isnan(f.value)]
    assert findings["melody: chroma cosine with the melody"].good is False
    assert len(list((tmp_path / "out").glob("*.png"))) == 3 and (tmp_path / "out" / "evaluation.json").is_file()
    assert "goal 0.6: missed" in capsys.readouterr().out


@pytest.mark.slow
def test_the_critic_hears_what_is_played():
    from comfyui_musicgen.training.evaluate import listening

    critic = listening.train_critic(160, 5.0, 32000)
    clips = [clip("held-out", number, 5.0, 32000) for number in range(40)]
    heard = [critic.hear(torch.from_numpy(made.samples), 32000) for made in clips]
    pairs = list(zip(heard, clips, strict=True))
    assert np.mean([h.player == c.label.instrument for h, c in pairs]) > 0.8
    assert np.mean([h.buk == c.label.buk for h, c in pairs]) > 0.8
    rhythmic = [(torch.from_numpy(c.samples), c.label) for c in clips if c.label.buk]
    close = [abs(listening.tempo_bpm(s, 32000, label.jangdan) / label.bpm - 1) < 0.08 for s, label in rhythmic]
    assert np.mean(close) > 0.85


def test_a_critic_behind_a_codec_is_taught_some_clips_as_that_gives_them():
    from comfyui_musicgen.training.evaluate import listening

    coded = []
    listening.train_critic(10, 1.0, 32000, lambda samples: (coded.append(samples), 0.5 * samples)[1])
    assert len(coded) == 4 and all(samples.shape == (32000,) for samples in coded)


def test_what_is_too_large_is_not_written(codec_run, tokenizer, tmp_path):
    with pytest.raises(export.InputError, match="Train smaller"):
        codec = codec_training.finished(codec_run[2])
        export.write(codec, model(tokenizer, 64, 1, 1), tokenizer, tmp_path / "m.safetensors", max_bytes=1000)
    assert not list(tmp_path.iterdir())
