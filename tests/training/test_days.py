"""The recipe for several days at toy sizes: an interrupted run gives what an uninterrupted one does, codes are made once, and the file plays."""

import argparse
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.codec import Codec
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.loading import load
from comfyui_musicgen.training import runs
from comfyui_musicgen.training.codec import adversarial
from comfyui_musicgen.training.codec.spectral import si_sdr_db
from comfyui_musicgen.training.codec.train import through
from comfyui_musicgen.training.codec.widen import widened
from comfyui_musicgen.training.days import cli, codec, codes, handed_on, lm
from comfyui_musicgen.training.days.crops import Crops
from comfyui_musicgen.training.days.place import Place, synthesizer
from comfyui_musicgen.training.days.recipe import DAYS, Days
from comfyui_musicgen.training.lm import scored_train
from comfyui_musicgen.training.lm.team import together
from comfyui_musicgen.training.lm.text import t5_table, train_tokenizer
from comfyui_musicgen.training.onegpu.recipe import MAX_BYTES, REHEARSAL, VOCABULARY

_STEP_S = 2 * 0.2  # of a codec's batch
TINY = Days(
    replace(
        REHEARSAL, codec=replace(REHEARSAL.codec, n_filters=2, codebook_size=4, latent_dim=8), codec_crop_s=0.2, n_clips=4,
        n_held_out=2, dim=32, n_layers=2, adversary_filters=2,
    ),
    codec_hours=16 * _STEP_S / 3600, decoder_hours=6 * _STEP_S / 3600, lm_hours=12 * 20 / 3600, first_lessons=2, pool_clips=2, shard_clips=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def handlers():
    """A time box takes the process's signal handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def play(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return (0.1 * np.sin(np.arange(320_000) * rng.uniform(0.02, 0.2)) + 0.01 * rng.normal(size=320_000)).astype(
        np.float32
    )


def tokenizer(place: Place) -> None:
    """Without the thousands of texts that the recipe's is learnt from."""
    place.out.mkdir(parents=True, exist_ok=True)
    text = train_tokenizer(texts=iter(["solo piano, 120 bpm", "북 독주"]), vocabulary=300)
    (place.out / "tokenizer.json").write_text(text, "utf-8")


def killed_at(monkeypatch: pytest.MonkeyPatch, trainer: type, method: str, *steps: int) -> None:
    """SIGTERM to this process after each of these steps."""
    plain = getattr(trainer, method)

    def step(self, *arguments):
        result = plain(self, *arguments)
        if self.step in steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(trainer, method, step)


def assert_same(a: Any, b: Any, path: str = "") -> None:
    if torch.is_tensor(a):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(pair[0], pair[1], f"{path}/{i}")
    else:
        assert a == b, path


@pytest.fixture(scope="module")
def codec_place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("whole"))
    codec.train(place, TINY, 5.0, play, play)
    return place


def test_a_codec_that_was_killed_twice_is_the_codec_that_was_not(codec_place, tmp_path, monkeypatch):
    place, done = Place(tmp_path), []
    killed_at(
        monkeypatch, adversarial.Trainer, "train_step", 4, 13
    )  # while vectors for k-means are collected; and after
    for _ in range(3):
        codec.train(place, TINY, 5.0, play, play)
        done.append(runs.load(place.codec)["step"])
    assert done == [4, 13, TINY.codec_steps]
    states = [runs.load(each.codec) for each in (place, codec_place)]
    assert states[0]["quantizes"]
    assert_same(*states)


def test_crops_follow_from_their_number():
    first, second = Crops(TINY, play), Crops(TINY, play)
    last = 2 * first.per_pool
    row = [first.batch(i) for i in range(last + 1)]
    assert torch.equal(second.batch(last), row[last]) and not torch.equal(row[0], row[first.per_pool])
    heard = torch.cat(row[: first.per_pool])
    assert len(heard.unique(dim=0)) == len(heard)
    for crops in (first, second):
        crops.close()


def test_a_crop_of_silence_is_drawn_again():
    def ended(number: int) -> np.ndarray:
        samples = play(number)
        samples[160_000:] = 0.0
        return samples

    crops = Crops(TINY, ended)
    peaks = torch.cat([crops.batch(i) for i in range(crops.per_pool)]).abs().amax(dim=1)
    assert (peaks > 0.01).float().mean() > 0.97
    crops.close()


def test_an_unfinished_codec_makes_no_codes_unless_asked(tmp_path, monkeypatch):
    place = Place(tmp_path)
    with pytest.raises(InputError, match="days codec"):
        codec.frozen(place, TINY)  # the checkout's has other sizes
    killed_at(monkeypatch, adversarial.Trainer, "train_step", 12)
    codec.train(place, TINY, 5.0, play, play)
    with pytest.raises(InputError, match="12 of 16 steps"):
        codec.frozen(place, TINY)
    early = codec.frozen(place, TINY, early=True)
    codec.train(place, TINY, 5.0, play, play)
    assert_same(codec.frozen(place, TINY).state_dict(), early.state_dict())


def test_a_new_run_may_begin_with_a_finished_codec(codec_place, tmp_path):
    first = codec.frozen(codec_place, TINY)
    crops = Crops(TINY, play)
    trainer = codec.begun(Place(tmp_path), TINY, crops, first)
    assert trainer.step == 0 and trainer.quantizes
    waves = crops.batch(3)
    assert torch.allclose(*(through(each, waves, 4) for each in (trainer.finished(), first)), atol=2e-3)
    trainer.train_step(waves, 0.1)
    assert not torch.equal(
        trainer.finished().quantizer.layers[0].codebook.embed, first.quantizer.layers[0].codebook.embed
    )
    crops.close()
    with pytest.raises(InputError, match="other sizes"):
        trainer.begin_with(Codec(DAYS.recipe.codec))


def test_a_run_may_begin_with_a_narrower_codec_and_sounds_like_it(codec_place):
    narrow = codec.frozen(codec_place, TINY)
    wide = widened(narrow, replace(narrow.config, n_filters=5))
    crops = Crops(TINY, play)
    waves = crops.batch(3)
    crops.close()
    with torch.no_grad():
        latents = [each.encoder(waves[:, None]) for each in (wide, narrow)]
        sounds = [each.decoder(latents[1])[:, 0] for each in (wide, narrow)]
    assert si_sdr_db(*(each.flatten(1) for each in latents)).min() > 30 and si_sdr_db(*sounds).min() > 30
    assert wide.config.n_filters == 5 and widened(narrow, narrow.config) is narrow
    new = wide.encoder.state_dict()["layers.0.conv.weight"][2:]
    assert new.std() > 0.3 * wide.encoder.state_dict()["layers.0.conv.weight"][:2].std()  # they have something to say
    for other in (replace(narrow.config, n_filters=1), replace(narrow.config, n_filters=5, latent_dim=16)):
        with pytest.raises(InputError, match="n_filters"):
            widened(narrow, other)


def test_a_codec_to_begin_with_is_a_checkpoint_a_frozen_one_or_a_model_that_ships(codec_place):
    first = codec.frozen(codec_place, TINY).state_dict()
    for path in (codec_place.codec, codec_place.frozen):
        assert_same(codec.opened(path).state_dict(), first)
    root = Path(__file__).parents[2]
    assert codec.opened(root / "pretrained/pansori-mini.safetensors").config.n_filters == 16
    with pytest.raises(InputError, match="to begin with"):
        codec.opened(codec_place.out / "none.pt")


def test_where_none_was_trained_the_codec_of_the_checkout_codes(codec_place, tmp_path):
    first = codec.frozen(codec_place, TINY)
    file = tmp_path / "codec.safetensors"
    codec.ship(first, file)
    ours = codec.frozen(Place(tmp_path / "new"), TINY, shipped=file)
    assert ours.config == first.config
    assert_same(ours.state_dict(), first.state_dict())  # a finished codec is one of float16
    assert codec.opened(codec.SHIPPED).config == DAYS.recipe.codec


def test_a_checkpoint_of_other_sizes_is_refused(codec_place):
    wider = replace(TINY, recipe=replace(TINY.recipe, codec=replace(TINY.recipe.codec, n_filters=4)))
    with pytest.raises(InputError, match="other sizes"):
        codec.train(codec_place, wider, 5.0, play, play)


@pytest.fixture(scope="module")
def coded(codec_place):
    tokenizer(codec_place)
    codec.frozen(codec_place, TINY)
    assert codes.write(codec_place, TINY, 5.0, lambda: None, n_processes=2) == 2
    return codec_place


def test_codes_are_made_once_and_are_the_codecs(coded):
    before = {path: path.stat().st_mtime_ns for path in coded.codes.iterdir()}
    assert len(before) == 3

    def never():
        raise AssertionError("there is nothing to play")

    codes.write(coded, TINY, 5.0, never, n_processes=1)
    assert {path: path.stat().st_mtime_ns for path in coded.codes.iterdir()} == before
    gone = coded.shard("train", 1)
    kept = dict(np.load(gone))
    gone.unlink()
    codes.write(coded, TINY, 5.0, lambda: None, n_processes=1)
    made = dict(np.load(gone))
    assert all(np.array_equal(kept[name], made[name]) for name in kept) and kept["codes"].shape == (2, 4, 500)
    shelf = codes.read(coded, "train", torch.device("cpu"))
    assert len(shelf) == 4 and torch.equal(shelf.codes[2:], torch.from_numpy(kept["codes"]))


def test_coding_that_is_ended_leaves_whole_shards_alone(coded, tmp_path):
    place = Place(tmp_path)
    for name in ("codec-frozen.pt", "tokenizer.json"):
        (tmp_path / name).write_bytes((coded.out / name).read_bytes())
    assert codes.write(place, TINY, 0.0, lambda: None, n_processes=1) == 0
    assert not list(place.codes.iterdir())


def test_a_language_model_that_was_killed_is_the_one_that_was_not_and_plays(coded, tmp_path, monkeypatch):
    whole = lm.train(coded, TINY, 5.0).state()
    place = Place(tmp_path)
    for path in (coded.frozen, coded.out / "tokenizer.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "codes").symlink_to(coded.codes)
    killed_at(monkeypatch, scored_train.Trainer, "train_step", 6, 11)  # before rows see guesses, and after
    done = []
    for _ in range(3):
        lm.train(place, TINY, 5.0)
        done.append(runs.load(place.lm)["step"])
    assert done == [6, 11, TINY.lm_steps]
    assert_same(runs.load(place.lm), whole)
    path = lm.export(place, TINY, tmp_path / "tiny.safetensors")
    loaded = load(path)
    made = loaded.model.generate(loaded.conditioner.encode_text(["solo piano"]), GenerationParams(duration_s=0.5))
    audio = loaded.codec.decode(made)
    assert audio.samples.shape == (1, 1, 16_000) and float(audio.samples.std()) > 1e-6


def test_export_wants_a_language_model(tmp_path):
    for write in (lm.export, lm.hand_on):
        with pytest.raises(InputError, match="days lm"):
            write(Place(tmp_path), TINY, tmp_path / "x.safetensors")


def test_where_there_is_no_checkpoint_the_language_model_of_the_checkout_goes_on(coded, tmp_path, monkeypatch):
    file = tmp_path / "lm.safetensors"
    short = replace(TINY, lm_hours=TINY.lm_hours / 2)
    trained = Place(tmp_path / "first")
    new = Place(tmp_path / "new")
    for place in (trained, new):
        place.out.mkdir()
        place.frozen.write_bytes(coded.frozen.read_bytes())
        place.codes.symlink_to(coded.codes)
    (trained.out / "tokenizer.json").write_bytes((coded.out / "tokenizer.json").read_bytes())
    state = lm.train(trained, short, 5.0).state()
    lm.hand_on(trained, short, file)
    for name, call in (("read", handed_on.read), ("tokenizer_of", handed_on.tokenizer_of)):
        monkeypatch.setattr(handed_on, name, lambda call=call: call(file))
    trainer = lm.begun(new, TINY, torch.device("cpu"))
    assert trainer.step == short.lm_steps and trainer.tokenizer_json == trained.tokenizer()
    for model in (trainer.model, trainer.average):
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, state["average"][name], atol=1e-3, rtol=1e-3)
    assert lm.train(new, TINY, 5.0).step == TINY.lm_steps
    new.lm.unlink()
    other = lm.begun(new, replace(TINY, recipe=replace(TINY.recipe, n_layers=1)), torch.device("cpu"))
    assert other.step == 0, "of other sizes: begun anew"


def test_options_change_the_sizes_that_they_name():
    parser = argparse.ArgumentParser()
    cli.add(parser, Path("out"))
    days = cli.recipe_of(parser.parse_args(["codes", "--audio-hours", "3", "--clips", "640"]))
    assert days.codec_hours == 3.0 and days.recipe.n_clips == 640 and days.lm_hours == DAYS.lm_hours
    assert cli.recipe_of(parser.parse_args(["lm", "--audio-hours", "3"])).lm_hours == 3.0
    assert cli.recipe_of(parser.parse_args(["codec", "--learning-rate", "1e-4"])).codec_rate == 1e-4
    for line, said in (
        ("lm --audio-hours -1", "above 0"),
        ("export --audio-hours 1", "not for export"),
        ("codec --learning-rate 0", "above 0"),
        ("codes --learning-rate 1e-4", "not for codes"),
        ("codes --clips 1", "shard"),
    ):
        with pytest.raises(InputError, match=said):
            cli.recipe_of(parser.parse_args(line.split()))


def test_the_sizes_fit_the_file():
    n = sum(tensor.numel() for tensor in Codec(DAYS.recipe.codec).state_dict().values())
    table = t5_table(train_tokenizer(texts=iter(["a"]), vocabulary=300))
    model = scored_train.ScoredMusicGen(DAYS.recipe.model, table)
    n += sum(t.numel() for part in (model.lm.state_dict(), model.text.weights()) for t in part.values())
    n += VOCABULARY * DAYS.recipe.model.text.dim
    assert 2 * n < MAX_BYTES


def test_a_missing_soundfont_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no soundfont .*none\.sf3"):
        synthesizer(Path(tmp_path / "none.sf3"), DAYS.recipe.codec)


def test_openings_are_bars_of_their_clips_at_times_with_their_melody(coded):
    shelf, n = codes.read(coded, "train", torch.device("cpu")), 125
    clips, rng = np.arange(len(shelf)), np.random.default_rng(3)
    starts, told = set(), []
    for _ in range(8):
        batch = shelf.openings(clips, np.zeros(len(clips), int), 3, rng, False, n)
        assert batch.codes.shape == (len(clips), 4, n) and batch.frames.shape[2] == n and batch.hidden is None
        assert (batch.rows.sum(dim=-1) == 1).all()
        told += batch.rows[..., 1:].flatten(1).any(dim=1).tolist()
        for row, clip in enumerate(clips):
            whole = shelf.codes[clip].unfold(1, n, 1).permute(1, 0, 2)  # [T - n + 1, K, n]
            (at,) = torch.where((whole == batch.codes[row]).all(dim=2).all(dim=1))
            assert any(
                first == 0 or tuple(shelf.frames[clip, :2, first].tolist()) == (0, 0) for first in at.tolist()
            ), "a bar line"
            starts |= {(clip, int(at[0]))}
    assert len(starts) > len(shelf), "not only where clips begin"
    assert 0 < sum(told) < 0.6 * len(told)


def test_two_processes_take_the_steps_of_one(coded, tmp_path):
    """Of the same rows: only the order of sums, and what a mean over fewer rows weighs, differ."""
    days = replace(TINY, lm_hours=8 * 20 / 3600, guesses_from=1.0)
    states, begun = [], {}
    for n in (1, 2):
        place = Place(tmp_path / str(n))
        place.out.mkdir()
        for path in (coded.frozen, coded.out / "tokenizer.json"):
            (place.out / path.name).write_bytes(path.read_bytes())
        place.codes.symlink_to(coded.codes)
        if n == 1:
            begun = {k: v.clone() for k, v in lm.begun(place, days, torch.device("cpu")).model.state_dict().items()}
        states.append(lm.train(place, days, 5.0, n_processes=n).state())
        assert states[-1]["step"] == days.lm_steps and runs.load(place.lm)["step"] == days.lm_steps
    one, two = (torch.cat([v.flatten() for v in state["model"].values()]) for state in states)
    first = torch.cat([v.flatten() for v in begun.values()])
    assert (one - two).norm() < 0.2 * (one - first).norm() > 0


def test_a_team_whose_member_fails_says_so(capfd):
    def work(member):
        if member.rank:
            raise ValueError("out of tune")
        return "played"

    with pytest.raises(RuntimeError, match="a process of the team has failed"):
        together(2, work)
    assert "out of tune" in capfd.readouterr().err
    assert together(1, work) == "played"


def test_shards_that_answer_other_questions_are_refused(coded, tmp_path):
    shutil.copytree(coded.out, tmp_path / "old")
    place = replace(coded, out=tmp_path / "old")
    path = codes.existing(place, "train")[0]
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files}
    np.savez(path, **{**columns, "texts": columns["texts"][..., :-1]})
    with pytest.raises(InputError, match=f"{path.name} was made for other questions"):
        codes.read(place, "train", torch.device("cpu"))
