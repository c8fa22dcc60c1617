"""MusicGen Chords without ComfyUI."""

import numpy as np
import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.conditioning.picture import chroma_picture
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.nodes import host

from .test_timeline_nodes import Standing

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


@pytest.fixture(scope="module")
def load(toys):
    """Factory: a conditioner and a text of it: load(chords=True)."""

    def of(**options):
        conditioner = Standing(loading.load(toys(**SMALL, **options)).conditioner)
        return conditioner, conditioner.module.encode_text(["calm"])

    return of


def encode(conditioner, conditioning, chords="C G,G:7 A:min", bpm=120.0, meter="4/4", strength=1.0):
    return NODES["MusicGenChords"]().encode(conditioner, conditioning, chords, bpm, meter, strength)


def test_outputs_are_conditioning_picture_and_list(load):
    result, picture, chord_list = encode(*load(chords=True), strength=1.5)
    assert result.leaves()[0].melody.strength == 1.5
    assert picture.shape == (1, 12 * 16, 235 * 4, 3) and torch.equal(picture, chroma_picture(result.melody))
    assert chord_list.splitlines() == [
        "0.000\t2.000\tC", "2.000\t3.000\tG", "3.000\t4.000\tG:7", "4.000\t6.000\tA:min"
    ]  # fmt: skip


def test_the_picture_shows_each_note_of_a_chord(load):
    _, picture, _ = encode(*load(chords=True), chords="C N")
    first, second = picture[0, :, 2], picture[0, :, 16 * 4 + 2]  # a pixel of the first row of each bar
    bright = lambda column, note: bool(column[(11 - note) * 16 + 4, 0] > 0.9)  # noqa: E731
    assert [note for note in range(12) if bright(first, note)] == [0, 4, 7]
    assert not any(bright(second, note) for note in range(12))


def test_what_is_played_is_said_on_the_node(load, monkeypatch):
    shown = []
    monkeypatch.setattr(host, "show_text", shown.append)
    encode(*load(chords=True))
    encode(*load(melody=True))
    assert shown[0].startswith("3 bars of 4/4 at 120 bpm: 6 s.") and "anew" in shown[0] and "experiment" not in shown[0]
    assert "experiment" in shown[1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"chords": "C Gm7x"}, "bar 2, 'Gm7x'"), ({"chords": "C/g"}, "bar 1.*'G'"), ({"chords": "a"}, "upper case: 'A'"),
        ({"chords": ""}, "empty"), ({"chords": "C,,G"}, "comma"), ({"chords": None}, "'chords' carries no value"),
        ({"chords": 5}, "'chords' must be a text"), ({"bpm": 0.0}, "'bpm' must be a number from 20"), ({"bpm": "120"}, "'bpm'"),
        ({"bpm": float("nan")}, "'bpm'"), ({"bpm": None}, "'bpm' carries no value"), ({"meter": "7/0"}, "'meter'.*7/0"),
        ({"meter": 4}, "'meter' must be a text"), ({"strength": -1}, "'strength'"), ({"strength": None}, "'strength' carries"),
        ({"conditioning": None}, "'conditioning' carries no value"), ({"conditioning": "x"}, "another engine"),
        ({"conditioner": 3}, "'conditioner' must be"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(load, changed, words):
    conditioner, conditioning = load(chords=True)
    with pytest.raises(InputError, match=words):
        encode(**{"conditioner": conditioner, "conditioning": conditioning, **changed})


def test_numbers_of_other_types_are_taken_from_wires(load):
    result, _, _ = encode(*load(chords=True), bpm=np.int64(90), strength=1)
    assert result.melody.progression.bpm == 90.0


def test_every_widget_takes_a_wire():
    node = NODES["MusicGenChords"]
    assert node.VALIDATE_INPUTS({"chords": "STRING", "bpm": "INT", "meter": "COMBO", "strength": "FLOAT"}) is True
    assert "'bpm' takes FLOAT" in node.VALIDATE_INPUTS({"bpm": "IMAGE"})


def test_a_model_that_follows_no_chords_says_which_do(load):
    with pytest.raises(InputError, match="musicgen-chord"):
        encode(*load())
