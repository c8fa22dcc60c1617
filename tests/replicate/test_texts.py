"""Texts of any kind in the Replicate fields: taken or explained."""

import contextlib

import pytest
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.replicate.predict import predict, schema


@pytest.mark.parametrize("name", [name for name, field in schema()["properties"].items() if field["type"] == "string"])
@pytest.mark.parametrize("text", ["\ud800", "\udfff.wav", "x\0y", "x" * 5000])
def test_texts_of_any_kind_are_taken_or_explained(toys, tmp_path, name, text):
    values = {"prompt": "x", "duration": 1, name: text}
    with contextlib.suppress(InputError, CheckpointError):
        predict(model=toys(), models_dir=tmp_path / "models", out=tmp_path / "a.wav", device="cpu", **values)
        assert (name, text) == ("prompt", "x\0y")


@pytest.mark.parametrize("text", ["calm \ud83c", "\udfb5 calm"])
def test_half_a_character_is_named_before_a_model_is_loaded(tmp_path, text):
    with pytest.raises(InputError, match=r"'prompt' holds '\\ud83c'|'prompt' holds '\\udfb5'"):
        predict(prompt=text, model="no/such", models_dir=tmp_path)
