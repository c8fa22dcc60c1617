"""Timelines and blends in a real ComfyUI."""

import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.audio import read

MODEL = "toy"


def graph(positive, **sampler):
    """A workflow of 1.2 s whose sampler's `positive` is that node."""
    node = lambda id, **inputs: {"class_type": id, "inputs": inputs}  # noqa: E731
    settings = {
        "duration_s": 1.2,
        "seed": 1,
        "top_k": 250,
        "top_p": 0.0,
        "temperature": 1.0,
        "cfg": 3.0,
        "batch_size": 1,
    }
    return {
        "load": node("MusicGenLoader", model=MODEL, precision="float32"),
        "text": node("MusicGenText", conditioner=["load", 1], text="calm flute"),
        "other": node("MusicGenText", conditioner=["load", 1], text="loud drums of a marching band"),
        "one": node("MusicGenTimeline", conditioner=["load", 1], lines="calm flute"),
        "two": node(
            "MusicGenTimeline", conditioner=["load", 1], lines="0: calm flute\n0:00.6: loud drums @ 1.5", ending="cadence"
        ),
        "wrong": node("MusicGenTimeline", conditioner=["load", 1], lines="0: calm flute | drums enter"),
        "half": node("MusicGenBlend", first=["text", 0], second=["other", 0], ratio=0.5),
        "first": node("MusicGenBlend", first=["text", 0], second=["other", 0], ratio=0.0),
        "sample": node("MusicGenSampler", model=["load", 0], positive=[positive, 0], **settings, **sampler),
        "decode": node("MusicGenDecode", codec=["load", 2], codes=["sample", 0], fade_ms=0.0, fade_out_s=0.2),
        "save": node("MusicGenSaveAudio", audio=["decode", 0], filename_prefix="timeline/x", format="wav"),
    }  # fmt: skip


def test_timelines_and_blends_play(comfy):
    def samples(positive, **sampler):
        (saved,) = comfy.run(graph(positive, **sampler)).saved
        return read(comfy.path_of(saved)).samples

    text = samples("text")
    assert torch.equal(samples("one"), text) and torch.equal(samples("first"), text)
    assert torch.equal(samples("text", anchor_s=2.0), text), "it fits into one window"
    two, half = samples("two"), samples("half")
    assert two.shape == half.shape == text.shape
    assert not torch.equal(half, text) and not torch.equal(two, text)
    assert text[..., -100:].abs().max() < 0.01, "faded out"


def test_a_wrong_entry_is_named_on_its_node(comfy):
    with pytest.raises(client.NodeError, match="entry 2, 'drums enter': it has no time"):
        comfy.run(graph("wrong"))
