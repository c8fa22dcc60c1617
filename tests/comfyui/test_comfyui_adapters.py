"""LoRA in a real ComfyUI: an adapter in models/musicgen/loras, as PEFT and a trainer leave it there."""

import json
import shutil

import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.audio import read
from comfyui_musicgen.tests.toy.adapters import pairs, write_adapter

LAYER = "decoder.model.decoder.layers.1."
WIDE = {f"{LAYER}self_attn.q_proj": (64, 64), f"{LAYER}fc2": (64, 256), "decoder.lm_heads.0": (2048, 64)}  # of `toy`


@pytest.fixture(scope="module")
def adapted_comfy(comfy):
    """The server that all share, with two adapters for the time of these tests."""
    loras = comfy.base / "models" / "musicgen" / "loras"
    write_adapter(loras / "style", pairs(WIDE))
    (loras / "style" / "config.json").write_text(json.dumps({"model_type": "musicgen"}))  # as trainers leave it
    write_adapter(loras / "narrow", pairs({f"{LAYER}fc1": (128, 32)}))
    yield comfy
    shutil.rmtree(loras)


def graph(*fine_tunes: tuple[str, float], precision: str = "float32") -> dict:
    """A workflow of 0.5 s with (weights, strength) one after the other."""
    node = lambda id, **inputs: {"class_type": id, "inputs": inputs}  # noqa: E731
    prompt = {"load": node("MusicGenLoader", model="toy", precision=precision)}
    model = "load"
    for index, (weights, strength) in enumerate(fine_tunes):
        inputs = {"model": [model, 0], "conditioner": [model, 1], "weights": weights, "strength": strength}
        model = f"tuned {index}"
        prompt[model] = node("MusicGenFineTune", **inputs)
    prompt["text"] = node("MusicGenText", conditioner=[model, 1], text="calm flute")
    prompt["sample"] = node(
        "MusicGenSampler", model=[model, 0], positive=["text", 0], duration_s=0.5, seed=1, top_k=250, top_p=0.0, temperature=1.0,
        cfg=3.0, batch_size=1,
    )  # fmt: skip
    prompt["decode"] = node("MusicGenDecode", codec=["load", 2], codes=["sample", 0])
    prompt["save"] = node("MusicGenSaveAudio", audio=["decode", 0], filename_prefix="adapters/x", format="wav")
    return prompt


def test_adapters_are_heard_at_their_strength_and_can_be_taken_off(adapted_comfy):
    def samples(*fine_tunes, **options):
        (file,) = adapted_comfy.run(graph(*fine_tunes, **options)).saved
        return read(adapted_comfy.path_of(file)).samples

    plain = samples()
    assert torch.equal(samples(("style", 0.0)), plain)
    heard = [samples(("style", strength)) for strength in (-1.0, 0.5, 1.0)]
    assert not any(torch.equal(sound, plain) for sound in heard)
    assert not torch.equal(heard[1], heard[2])
    assert torch.equal(samples(("loras/style", 1.0)), heard[2])
    assert torch.equal(samples(("style", 0.75), ("style", -0.75)), plain)
    assert not torch.equal(samples(("style", 1.0), precision="int8"), samples(precision="int8"))


def test_an_adapter_is_no_model_in_the_list(adapted_comfy):
    info = adapted_comfy.get("/object_info/MusicGenLoader")["MusicGenLoader"]["input"]["required"]["model"]
    names = info[1]["options"] if isinstance(info[0], str) else info[0]
    assert "toy" in names and not any("style" in name or "narrow" in name for name in names)
    strength = adapted_comfy.get("/object_info/MusicGenFineTune")["MusicGenFineTune"]["input"]["required"]["strength"]
    assert (strength[1]["min"], strength[1]["max"]) == (-2.0, 2.0)


@pytest.mark.parametrize(
    ("weights", "strength", "words"),
    [
        ("narrow", 1.0, r"does not fit the model toy .*lora_A is \[4, 32\], not \[4, 64\].*width 32"),
        ("toy", -0.5, r"only adapters \(LoRA\) take"),
        ("gone", 1.0, "no fine-tune 'gone'"),
    ],
)
def test_what_does_not_fit_is_said(adapted_comfy, weights, strength, words):
    with pytest.raises(client.ClientError, match=words):
        adapted_comfy.run(graph((weights, strength)))
