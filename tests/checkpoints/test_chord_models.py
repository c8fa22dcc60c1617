"""Chord models: their checkpoints are read, the recogniser in them is dropped by name, and nothing else is."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints import open_checkpoint
from comfyui_musicgen.musicgen.checkpoints.containers.safetensors import read_with_metadata
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.config import MelodyConfig
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.reference import audiocraft as reference

from ..test_fine_tunes import trainer_file
from .test_audiocraft_checkpoints import edit, values

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
RECOGNISER = (Path(__file__).parents[1] / "data" / "chord_recogniser.txt").read_text(encoding="utf-8").split()
SELF_WAV = "condition_provider.conditioners.self_wav."


@pytest.fixture
def toy(toys, tmp_path):
    def copy(**options) -> Path:
        return Path(shutil.copytree(toys(**SMALL, **{"chords": True, **options}), tmp_path / "toy"))

    return copy


@pytest.mark.parametrize("stereo", [False, True], ids=["mono", "stereo"])
def test_a_chord_model_is_a_melody_model_of_chords(toys, stereo):
    config = open_checkpoint(toys(**SMALL, chords=True, stereo=stereo)).config
    assert config.melody == MelodyConfig(12, 14, 235, chords=True)
    assert config.codec.channels == 1 + stereo and not config.lm.cross_attention


def test_the_tensors_are_those_of_a_melody_model_and_221_more(toys):
    state, melody = (
        torch.load(toys(**SMALL, **options) / "state_dict.bin", weights_only=True)["best_state"]
        for options in ({"chords": True}, {"melody": True})
    )
    assert len(RECOGNISER) == 221
    assert set(state) - set(melody) == {SELF_WAV + name for name in RECOGNISER}
    assert set(melody) - set(state) == {SELF_WAV + "chroma.spec.window"}


def test_weights_are_read_with_and_without_the_recogniser(toy):
    folder = toy()
    before = values(open_checkpoint(folder))

    def forget(package, settings):
        package["best_state"] = {k: v for k, v in package["best_state"].items() if ".chroma." not in k}

    after = values(open_checkpoint(edit(folder, forget)))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "name", ["chroma.model.extra.weight", "chroma.spec.window", RECOGNISER[5] + "2", RECOGNISER[5].replace("0", "8", 1)]
)
def test_any_other_tensor_is_an_error_that_names_it(toy, name):
    folder = edit(toy(), lambda package, settings: package["best_state"].update({SELF_WAV + name: torch.ones(2)}))
    with pytest.raises(CheckpointError, match=f"1 tensor not expected.*{re.escape(name)}"):
        open_checkpoint(folder)


def test_a_melody_model_may_not_hold_the_recogniser(toy):
    name = SELF_WAV + RECOGNISER[0]
    folder = edit(toy(chords=False, melody=True), lambda p, s: p["best_state"].update({name: torch.ones(2)}))
    with pytest.raises(CheckpointError, match="1 tensor not expected"):
        open_checkpoint(folder)


def test_argmax_is_not_read(toy):
    def change(package, settings):
        settings["conditioners"]["self_wav"]["chroma_chord"]["argmax"] = False

    assert open_checkpoint(edit(toy(), change)).config.melody.chords


def test_an_unknown_option_is_refused_by_name(toy):
    def change(package, settings):
        settings["conditioners"]["self_wav"]["chroma_chord"]["vocabulary"] = "large"

    with pytest.raises(CheckpointError, match="chroma_chord.*vocabulary"):
        open_checkpoint(edit(toy(), change))


@pytest.mark.parametrize("stereo", [False, True], ids=["mono", "stereo"])
def test_the_trainers_file_is_read(toys, tmp_path, stereo):
    """As published: `xp.cfg`, hydra's DictConfig, and `model`, in one file that names its codec."""
    folder = toys(**SMALL, chords=True, stereo=stereo)
    path = trainer_file(folder, tmp_path / "musicgen-chord.th")
    ours, theirs = open_checkpoint(path, codec_required=False), open_checkpoint(folder)
    assert ours.config.melody == theirs.config.melody
    for name, weight in theirs.lm.items():
        assert torch.equal(ours.lm[name].read(), weight.read()), name


def test_conversion_keeps_the_kind(toys, tmp_path, capsys):
    for kind, version in (("chords", 2), ("melody", 1)):
        target = tmp_path / f"{kind}.safetensors"
        assert main(["convert", str(toys(**SMALL, **{kind: True})), str(target)]) == 0
        assert f'"version": {version}' in read_with_metadata(target)[1]["musicgen"]
        assert open_checkpoint(target).config.melody.chords is (kind == "chords")
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "chords.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "MusicGen mono chords" in shown and "chords and text, in front of the codes" in shown


def test_a_chord_model_and_a_melody_model_are_no_fine_tunes_of_each_other(toys, tmp_path):
    melody = loading.load(toys(**SMALL, melody=True), "float32")
    tuned = trainer_file(toys(**SMALL, chords=True, seed=1), tmp_path / "chords.th")
    with pytest.raises(CheckpointError, match="melody conditioning of chords, 12"):
        loading.apply_fine_tune(melody.model, melody.conditioner, tuned)
    base = loading.load(toys(**SMALL, chords=True), "float32")
    model, _ = loading.apply_fine_tune(base.model, base.conditioner, tuned, 0.5)
    assert model.config.melody.chords


def test_the_audiocraft_engine_refuses_a_chord_model(toys):
    with pytest.raises(CheckpointError, match="chord model.*native"):
        reference.load(toys(**SMALL, chords=True))
