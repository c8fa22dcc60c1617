"""Chords in a real ComfyUI, with a chord model."""

import shutil

import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.audio import read

MODEL = "toy-chords"


@pytest.fixture(scope="module")
def chord_comfy(comfy, toys):
    """The server that all share, with a chord model for the time of these tests."""
    folder = comfy.base / "models" / "musicgen" / MODEL
    shutil.copytree(toys(chords=True, n_filters=2, latent_dim=16), folder)
    yield comfy
    shutil.rmtree(folder)


def graph(chords, bpm=240.0, meter="4/4", with_chords=True):
    """A workflow of 1.2 s; the list of chords is wired to the text of `negative`, so that it is seen to be text."""
    node = lambda id, **inputs: {"class_type": id, "inputs": inputs}  # noqa: E731
    return {
        "load": node("MusicGenLoader", model=MODEL, precision="float32"),
        "text": node("MusicGenText", conditioner=["load", 1], text="calm flute"),
        "chords": node(
            "MusicGenChords", conditioner=["load", 1], conditioning=["text", 0], chords=chords, bpm=bpm, meter=meter, strength=1.0
        ),
        "listed": node("MusicGenText", conditioner=["load", 1], text=["chords", 2]),
        "shown": node("PreviewImage", images=["chords", 1]),
        "sample": node(
            "MusicGenSampler", model=["load", 0], positive=["chords" if with_chords else "text", 0], negative=["listed", 0],
            duration_s=1.2, seed=1, top_k=250, top_p=0.0, temperature=1.0, cfg=3.0, batch_size=1,
        ),
        "decode": node("MusicGenDecode", codec=["load", 2], codes=["sample", 0]),
        "save": node("MusicGenSaveAudio", audio=["decode", 0], filename_prefix="chords/x", format="wav"),
    }  # fmt: skip


def test_chords_play_and_are_shown(chord_comfy):
    def samples(*chords, **options):
        result = chord_comfy.run(graph(*chords, **options))
        assert options or "shown" in result.executed
        (file,) = result.saved
        return read(chord_comfy.path_of(file)).samples

    chords, others = samples("C | F/C"), samples("C | F#m7")
    plain = samples("C | F/C", with_chords=False)
    assert chords.shape == others.shape == plain.shape
    assert not torch.equal(chords, others) and not torch.equal(chords, plain)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"chords": "C | Gm | am7"}, "bar 3, 'am7'.*'Am7'"), ({"chords": "C", "meter": "7/0"}, "'meter'.*7/0"),
        ({"chords": "C G,, F"}, "bar 2.*comma"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_on_its_node(chord_comfy, changed, words):
    with pytest.raises(client.NodeError, match=words):
        chord_comfy.run(graph(**changed))


def test_a_tempo_of_zero_is_refused_before_anything_runs(chord_comfy):
    with pytest.raises(client.RejectedError, match="bpm"):
        chord_comfy.run(graph("C", bpm=0.0))
