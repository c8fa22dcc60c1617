"""Teaching the model to keep a key: it learns what it would draw if it were told, on its own continuations of clips."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.lm import Stream
from comfyui_musicgen.musicgen.lm.delay import delay
from comfyui_musicgen.musicgen.lm.sampling import guide
from comfyui_musicgen.musicgen.store.published import SHIPPED
from comfyui_musicgen.tests.training.tiny_training import model
from comfyui_musicgen.training import export, runs, shipped
from comfyui_musicgen.training.cli import main
from comfyui_musicgen.training.data.modes import MODES
from comfyui_musicgen.training.lm import codes as coded
from comfyui_musicgen.training.lm import keeping
from comfyui_musicgen.training.lm import train as lm
from comfyui_musicgen.training.lm.examples import Batch, Examples, without_text
from comfyui_musicgen.training.lm.keeping import Continued
from comfyui_musicgen.training.lm.text import Texts
from comfyui_musicgen.training.recipe import SHARPNESS
from safetensors import safe_open


@pytest.fixture(scope="module")
def mini_shards(tmp_path_factory):
    """Sixteen clips in pansori-mini's codes, made by the recipe's own command."""
    folder = tmp_path_factory.mktemp("codes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coded, "SHARD_CLIPS", 8)
        given = [
            "codes",
            "--codec",
            str(SHIPPED["pansori-mini"]),
            "--clips",
            "16",
            "--held-out",
            "8",
            "--out",
            str(folder),
        ]
        assert main([*given, "--threads", "1"]) == 0
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for name, value in {"_AT_ONCE": 2, "_PROMPT_S": (0.5, 0.6), "_CONTINUED_S": 1.5}.items():
        monkeypatch.setattr(keeping, name, value)


@pytest.fixture
def small(tokenizer):
    return model(tokenizer, 64, 2, 2)


def a_batch(small, n_rows=2, n_frames=20):
    generator = torch.Generator().manual_seed(1)
    return Batch(
        torch.randint(32, (n_rows, 4, n_frames), generator=generator),
        torch.zeros(n_rows, small.config.melody.n_frames, dtype=torch.long),
        ((5, 6, 1),) * n_rows,
        torch.ones(n_rows, dtype=torch.bool),
    )


def test_chances_are_those_that_the_engine_draws_from(small):
    batch, config = a_batch(small), small.config.lm
    with torch.no_grad():
        made = keeping.chances(small, batch)
        nothing, columns = torch.zeros(0, 64), delay(batch.codes, config.delays, 32)[..., :-1]
        conditional, null = (
            small.lm(columns, [Stream(row, nothing) for row in small.prefix(way(batch))])
            for way in (lambda b: b, without_text)
        )
    expected = (guide(torch.cat([conditional, null]), keeping.GUIDANCE) * SHARPNESS).softmax(dim=-1)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_chances_of_what_is_never_drawn_are_none(small, monkeypatch):
    monkeypatch.setattr(keeping, "SAMPLING", replace(keeping.SAMPLING, top_k=5))
    with torch.no_grad():
        made = keeping.chances(small, a_batch(small))
    assert torch.equal((made > 0).sum(dim=-1), torch.full(made.shape[:-1], 5))
    assert torch.allclose(made.sum(dim=-1), torch.ones(made.shape[:-1]))


# Twelve codes, each of which nearly always sounds with the pitch class of its number.
TONES = torch.full((12, 12), 1e-3).fill_diagonal_(1.0)
TONES = TONES / TONES.sum(dim=1, keepdim=True)
C_MAJOR_CHORD = torch.tensor([[pitch in (0, 4, 7) for pitch in range(12)]])


def told(learnt, sounding):
    """What is to be drawn after many frames of one tone."""
    codes = torch.full((1, keeping._HEARD + 2), sounding)
    return keeping.taught(learnt[None, None], codes, C_MAJOR_CHORD, TONES)[0, 0]


def test_who_is_told_the_key_changes_to_its_tones_and_no_more_often():
    learnt = torch.full((12,), 0.3 / 11)
    learnt[4] = 0.7  # E goes on
    wanted = told(learnt, 4)
    assert torch.isclose(wanted.sum(), torch.tensor(1.0))
    assert abs(float(wanted[4]) - 0.7) < 0.01
    assert wanted[0] > 0.12 and wanted[7] > 0.12 and wanted[[1, 2, 3, 5, 6]].max() < 0.002
    # A tone outside is left as often as it was: to leave it sooner is to have another rhythm.
    learnt = torch.full((12,), 0.3 / 11)
    learnt[6] = 0.7
    wanted = told(learnt, 6)
    assert abs(float(wanted[6]) - 0.7) < 0.01 and wanted[[0, 4, 7]].sum() > 0.28


def test_where_no_mode_is_known_nothing_is_taught():
    learnt = torch.rand(12).softmax(0)
    codes = torch.full((1, keeping._HEARD + 2), 4)
    wanted = keeping.taught(learnt[None, None], codes, torch.zeros(1, 12, dtype=torch.bool), TONES)
    torch.testing.assert_close(wanted[0, 0], learnt)


def test_the_share_of_the_mode_is_that_of_its_codes():
    made = torch.zeros(1, 2, 12)
    made[0, 0, 0] = made[0, 1, 1] = 1.0
    assert abs(float(keeping.inside(made, C_MAJOR_CHORD, TONES)) - 0.5) < 0.01


def test_what_is_written_on_the_cpu_is_taught_on_the_models_device():
    learnt, codes = torch.rand(1, 1, 12, device="meta"), torch.full((1, keeping._HEARD + 2), 4)
    wanted = keeping.taught(learnt, codes, C_MAJOR_CHORD, TONES.to("meta"))
    assert wanted.shape == learnt.shape and wanted.device.type == "meta"
    assert keeping.inside(wanted, C_MAJOR_CHORD, TONES.to("meta")).device.type == "meta"


def test_a_model_learns_what_it_would_draw_if_told_the_key(small):
    learnt = copy.deepcopy(small).eval()
    tones = (10 * torch.randn(32, 12, generator=torch.Generator().manual_seed(2))).softmax(dim=1)
    own = Continued(a_batch(small, n_frames=30), torch.tensor([[True] * 4 + [False] * 8] * 2), 10)
    first, before = keeping.distance(small, learnt, own, tones)
    assert before["is"] == pytest.approx(before["was"], abs=1e-5) and before["wanted"] > before["was"] + 0.05
    optimizer = torch.optim.Adam(small.parameters(), lr=3e-3)
    for _ in range(30):
        far, _ = keeping.distance(small, learnt, own, tones)
        optimizer.zero_grad()
        far.backward()
        optimizer.step()
    last, after = keeping.distance(small, learnt, own, tones)
    assert last < first and after["is"] > before["is"] + 0.8 * (before["wanted"] - before["was"])
    assert after["was"] == before["was"] and after["wanted"] == before["wanted"]  # what was learnt stays the teacher


@pytest.mark.slow
def test_prompts_are_begun_by_clips_and_carried_on_by_the_model(mini_shards):
    trainer = shipped.trainer_of(SHIPPED["pansori-mini"], lm.LMTraining())
    examples, texts = Examples.read(mini_shards, "train"), Texts(trainer.tokenizer_json)
    made = next(keeping.continued(trainer.model, examples, texts, 1, 0))
    again = next(keeping.continued(trainer.model, examples, texts, 1, 0))
    for own, same in zip(made, again, strict=True):
        assert torch.equal(own.batch.codes, same.batch.codes)
        [clip] = [
            i
            for i, codes in enumerate(examples.codes[..., : own.n_prompt])
            if (codes == own.batch.codes[0, :, : own.n_prompt].numpy()).all()
        ]
        assert torch.equal(own.in_mode, keeping.mode_of([examples.labels[clip]]))


def test_codes_are_known_by_the_tones_that_they_sounded_with(mini_shards):
    examples = Examples.read(mini_shards, "train")
    tones = keeping.tones_of_codes(examples, 1024)
    assert torch.allclose(tones.sum(dim=1), torch.ones(1024)) and (tones > 0).all()
    shares = []
    for codes, label in zip(examples.codes, examples.labels, strict=True):
        if label.mode in MODES and label.jangdan:
            shares.append(float(keeping.mode_of([label]).float()[0] @ tones[codes[0].astype(int)].mean(dim=0)))
    assert np.mean(shares) > 0.6


# --- from a model that ships


def test_a_run_begins_with_just_what_ships(tmp_path):
    trainer = shipped.trainer_of(SHIPPED["pansori-mini"], lm.LMTraining())
    again = export.write(
        shipped.codec_of(SHIPPED["pansori-mini"]),
        trainer.average,
        trainer.tokenizer_json,
        tmp_path / SHIPPED["pansori-mini"].name,
    )
    (told, tensors), (told_again, tensors_again) = _contents(SHIPPED["pansori-mini"]), _contents(again)
    assert told_again == told and tensors_again.keys() == tensors.keys()
    assert all(torch.equal(tensors_again[name], tensor) for name, tensor in tensors.items())


def _contents(path):
    """The metadata without the digest, which follows the order of the tensors, and the tensors by name."""
    with safe_open(path, "pt") as file:
        told = {key: value for key, value in file.metadata().items() if key != "sha256"}
        return told, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no mapping)


def test_a_model_of_another_recipe_is_refused(toys):
    with pytest.raises(InputError, match="not made by this recipe"):
        shipped.trainer_of(toys(), lm.LMTraining())


def test_keep_trains_what_ships_and_leaves_a_checkpoint(mini_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(keeping, "_LOG_STEPS", 1)
    monkeypatch.setattr(runs.TimeBox, "over", property(lambda box: (tmp_path / "keeping.csv").exists()))
    given = [
        "keep",
        str(SHIPPED["pansori-mini"]),
        "--codes",
        str(mini_shards),
        "--out",
        str(tmp_path),
        "--batch-size",
        "1",
    ]
    assert main([*given, "--threads", "1"]) == 0
    assert "wanted" in capsys.readouterr().out
    before = shipped.trainer_of(SHIPPED["pansori-mini"], lm.LMTraining()).model.state_dict()
    after = lm.opened(tmp_path / lm.CHECKPOINT).model.state_dict()
    assert any(name.startswith("lm.") and not torch.equal(before[name], after[name]) for name in before)
