"""Texts of any kind in the fields of every contract: taken or explained."""

import contextlib

import pytest
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.replicate.contracts import CONTRACTS
from comfyui_musicgen.musicgen.replicate.predict import predict

TEXTS = [
    (version, name)
    for version in ("pansori", "chord", "remixer")
    for name, field in CONTRACTS[version].request.fields().items()
    if field.type == "string"
]


@pytest.mark.parametrize(("version", "name"), TEXTS)
@pytest.mark.parametrize("text", ["\ud800", "\udfff.wav", "x\0y", "x" * 5000])
def test_texts_of_any_kind_are_taken_or_explained(toys, tmp_path, version, name, text):
    values = {"prompt": "x", name: text}
    if version != "remixer":
        values["duration"] = 1
    if name == "text_chords":
        values["bpm"] = 120.0
    with contextlib.suppress(InputError, CheckpointError):
        predict(
            version=version,
            model=toys(),
            models_dir=tmp_path / "models",
            out=tmp_path / "a.wav",
            device="cpu",
            **values,
        )
        assert name == "prompt" and text.isprintable() is ("\0" not in text)


@pytest.mark.parametrize("text", ["calm \ud83c", "\udfb5 calm"])
def test_half_a_character_is_named_before_a_model_is_loaded(tmp_path, text):
    with pytest.raises(InputError, match=r"'prompt' holds '\\ud83c'|'prompt' holds '\\udfb5'"):
        predict(prompt=text, model="no/such", models_dir=tmp_path)
