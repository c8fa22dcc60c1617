"""Prompt Timeline and Blend Prompts without ComfyUI."""

import pytest
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.conditioning import Timeline
from comfyui_musicgen.musicgen.conditioning.vocabulary import Vocabulary
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.nodes import host


class Standing(host.Managed):
    """A module where it is."""

    def __init__(self, module):
        self._standing = module

    @property
    def module(self):
        return self._standing

    def run(self, function, memory_bytes=0):
        return function(self.module)


@pytest.fixture(scope="module")
def conditioner(toys):
    return Standing(loading.load(toys()).conditioner)


def test_a_timeline_is_encoded_with_its_ending(conditioner):
    (timeline,) = NODES["MusicGenTimeline"]().encode(conditioner, "a | 1:00: b @ 0.5", "cadence")
    assert isinstance(timeline, Timeline)
    assert [(entry.start_s, entry.strength, entry.is_last) for entry in timeline.entries] == [
        (0.0, 1.0, False), (60.0, 0.5, False), (8.0, 0.5, True),
    ]  # fmt: skip


def test_words_that_the_model_was_not_taught_are_shown_once(conditioner, monkeypatch):
    shown = []
    monkeypatch.setattr(host, "show_text", shown.append)
    monkeypatch.setattr(
        conditioner.module, "warning", lambda text: f"not {text[0]}" if text[0] != "c" else None, raising=False
    )
    NODES["MusicGenTimeline"]().encode(conditioner, "a | 1: b | 2: a | 3: c")
    assert shown == ["not a\nnot b"]


def test_a_tempo_that_is_kept_is_shown_behind_the_words_that_are_not_known(conditioner, monkeypatch):
    shown = []
    monkeypatch.setattr(host, "show_text", shown.append)
    words = Vocabulary(frozenset({"flute", "drums", "bpm"}), {}, {}, "flute", "flute", begins_anew=True)
    monkeypatch.setattr(conditioner.module, "vocabulary", words)
    (timeline,) = NODES["MusicGenTimeline"]().encode(conditioner, "0: flute, 92 bpm | 9: drums enter")
    assert [leaf.words for leaf in timeline.leaves()] == [("flute, 92 bpm",), ("drums enter, 92 bpm",)]
    (text,) = shown
    assert text.startswith("toy was not taught 'enter'") and text.endswith(
        "\nKept from the text before: drums enter, 92 bpm."
    )


def test_errors_name_the_entry_or_the_input(conditioner):
    with pytest.raises(InputError, match="entry 2, '9 b': a colon is missing behind the time '9'. Write '9: b'"):
        NODES["MusicGenTimeline"]().encode(conditioner, "a | 9 b")
    (one,) = NODES["MusicGenTimeline"]().encode(conditioner, "a")
    with pytest.raises(InputError, match="'ratio' must be a number from 0"):
        NODES["MusicGenBlend"]().blend(one, one, 2.0)
    with pytest.raises(InputError, match="'second' carries no value"):
        NODES["MusicGenBlend"]().blend(one, None, 0.5)


def test_the_audiocraft_engine_refuses_timelines_and_blends(conditioner):
    import importlib

    reference = importlib.import_module("comfyui_musicgen.reference.audiocraft")
    theirs = Standing(reference.Conditioner(conditioner.module.config))
    with pytest.raises(InputError, match="native engine"):
        NODES["MusicGenTimeline"]().encode(theirs, "a | 9: b")
    (one,) = NODES["MusicGenTimeline"]().encode(theirs, "a")
    assert one.texts == ("a",)
    with pytest.raises(InputError, match="'first' comes from another engine"):
        NODES["MusicGenBlend"]().blend(one, one, 0.5)
