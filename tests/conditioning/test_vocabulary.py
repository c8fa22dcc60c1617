"""The words of a model with a card: synonyms are translated, other words are named, an empty text takes the card's own."""

import json
import logging

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.card import read_card, vocabulary_of
from comfyui_musicgen.musicgen.conditioning.vocabulary import Vocabulary
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.store.published import SHIPPED
from comfyui_musicgen.training import card
from comfyui_musicgen.training.data.words import BUK_ALONE, INSTRUMENTS, MOODS

CARD = SHIPPED["pansori-mini"].with_suffix(".card.json")


@pytest.fixture(scope="module")
def mini():
    return loading.load(SHIPPED["pansori-mini"], name="pansori-mini")


@pytest.fixture(scope="module")
def vocabulary(mini):
    return mini.conditioner.vocabulary


@pytest.mark.slow
def test_the_card_that_ships_is_that_of_the_words_it_was_taught(mini):
    assert CARD.read_text(encoding="utf-8") == card.card(mini.codec)


@pytest.mark.parametrize(
    "text", [*BUK_ALONE, *(t for group in (INSTRUMENTS, MOODS) for one in group.values() for t in one)]
)
def test_taught_texts_stay_as_they_are(vocabulary, text):
    assert vocabulary.translate(text) == text and vocabulary.warning(text, "mini") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("대금 독주, 느린 진양조", "daegeum alone, slow jinyangjo"),
        ("가야금", "gayageum"),
        ("진양조 jinyangjo", "jinyangjo"),
        ("Vocalist with DRUMS", "sori singer with the buk drum"),
    ],
)
def test_synonyms_become_the_models_words(vocabulary, text, expected):
    assert vocabulary.translate(text) == expected
    assert vocabulary.warning(expected, "mini") is None


def worded(**changes) -> Vocabulary:
    return Vocabulary(frozenset(), changes.pop("synonyms", {}), {}, "pop", "pop", **changes)


def test_what_was_put_in_for_a_synonym_is_not_read_again():
    vocabulary = worded(synonyms={"no drums": "no drums, no percussion", "no percussion": "no drums, no percussion"})
    for text in ("funk, no drums", "funk, No Percussion"):
        assert vocabulary.translate(text) == "funk, no drums, no percussion"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rock, with an ending", "rock"),
        ("flute that ends", "flute"),
        ("With an ending, strings, final chord, sad", "strings, sad"),
        ("piano 솔로, 끝맺음", "piano 솔로"),
        ("outro", "pop"),
        ("a never-ending story that endsville", "a never-ending story that endsville"),
        ("rock,  loud", "rock,  loud"),
        ("", ""),
    ],
)
def test_what_asks_for_an_end_is_left_out(text, expected):
    endings = ("with an ending", "that ends", "ending", "outro", "final chord", "끝맺음")
    assert worded(endings=endings).before_end(text) == expected
    assert worded().before_end(text) == text


def test_unknown_words_are_named_with_what_comes_nearest(vocabulary):
    warning = vocabulary.warning("solo piano, jazz, daegum", "mini")
    for part in (
        "not taught 'piano', 'jazz', 'daegum'",
        "'gayageum' for 'piano'",
        "'daegeum' for 'daegum'",
        "buk drum",
    ):
        assert part in warning


def test_node_and_engine_say_so(mini, caplog, monkeypatch):
    from comfyui_musicgen.nodes import host

    shown = []
    monkeypatch.setattr(host, "show_text", shown.append)
    with caplog.at_level(logging.WARNING):
        NODES["MusicGenText"]().encode(host.Managed(mini.conditioner, "text_encoder"), "solo piano")
    assert "not taught 'piano'" in caplog.text and "not taught 'piano'" in shown[0]


def test_hangul_alone_plays_what_its_translation_plays(mini):
    korean, english = (mini.conditioner.encode_text([text]) for text in ("가야금 독주", "gayageum alone"))
    assert torch.equal(korean.text[0], english.text[0])


def test_an_empty_text_takes_the_cards_own_unless_something_else_says_what_to_play(mini):
    params = GenerationParams(duration_s=0.5, seed=3)
    empty, own = (mini.conditioner.encode_text([text]) for text in ("", card.DEFAULT_TEXT))
    default = mini.model.generate(own, params)
    assert torch.equal(mini.model.generate(empty, params).codes, default.codes)
    continued = mini.model.generate(empty, GenerationParams(duration_s=1.0, seed=3), default)
    unconditional = mini.model.generate(empty.null(), GenerationParams(duration_s=1.0, seed=3), default)
    assert torch.equal(continued.codes, unconditional.codes), "a clip says what to play"
    assert not empty.text[0].any(), "as a negative, an empty text is none"


def test_a_damaged_card_is_refused_by_name(tmp_path):
    (tmp_path / "m.card.json").write_text(json.dumps({"words": "piano"}))
    with pytest.raises(CheckpointError, match=r"m\.card\.json"):
        vocabulary_of(read_card(tmp_path / "m.safetensors"))
    assert read_card(tmp_path / "other.safetensors") is None
