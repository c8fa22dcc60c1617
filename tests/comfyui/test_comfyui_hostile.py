"""A stranger's checkpoint in a real ComfyUI: its prompt is refused by name, and the next good prompt runs."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.tests.comfyui.test_comfyui import workflow
from comfyui_musicgen.tests.hostile import kinds
from comfyui_musicgen.tests.hostile.test_cases import CASES, SEED, format_of

# Each stopped the prompt worker of 0.11.0, made music of random weights, or ran for minutes.
WORST = ("00-server-wedge", "03-text-encoder-silently-random", "tokenizer-regex_catastrophic_hf")
N_GENERATED = 40  # of each kind


@pytest.fixture
def stranger(comfy, toys):
    """Copies of a toy in the server's models/musicgen, removed at the end."""
    made = []

    def copy(name: str, format: str) -> Path:
        made.append(comfy.base / "models" / "musicgen" / name)
        return Path(shutil.copytree(toys(format=format), made[-1]))

    yield copy
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


def attempt(comfy, name: str) -> str:
    """The error of a prompt with the model `name`; "" if it made music."""
    try:
        prompt = workflow("text_to_music", MusicGenLoader__model=name, MusicGenSampler__duration_s=0.1)
        assert comfy.run(prompt).saved
    except client.ClientError as error:
        return str(error)
    return ""


def serves(comfy, seed: int) -> None:
    """A good prompt, never taken from the cache, makes music."""
    assert comfy.run(workflow("text_to_music", MusicGenSampler__duration_s=0.1, MusicGenSampler__seed=seed)).saved


@pytest.mark.parametrize(
    "case", [case if case in WORST else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_a_good_prompt_runs_after_a_hostile_checkpoint(comfy, stranger, case):
    folder = stranger(case, format_of(case))
    shutil.copytree(kinds.CASES / case, folder, dirs_exist_ok=True)
    assert str(folder) in attempt(comfy, case)
    serves(comfy, 1000 + CASES.index(case))


def test_a_good_prompt_runs_after_a_tokenizer_that_panics_as_it_is_loaded(comfy, stranger):
    folder = stranger("panics", "huggingface")
    shutil.copy(kinds.CASES / "00-server-wedge" / "tokenizer-panics-at-load.json", folder / "tokenizer.json")
    assert str(folder) in attempt(comfy, "panics")
    serves(comfy, 2000)


def put(kind: str, data: bytes, folder: Path) -> None:
    """The generated file in its place in a checkpoint."""
    if kind == "pickle":
        with zipfile.ZipFile(folder / "state_dict.bin", "w") as file:
            file.writestr("archive/data.pkl", data)
            file.writestr("archive/version", "3\n")
    elif kind == "yaml":
        buffer = io.BytesIO()
        torch.save({"best_state": {}, "xp.cfg": data.decode("utf-8", "replace")}, buffer)
        (folder / "state_dict.bin").write_bytes(buffer.getvalue())
    else:
        name = {"tokenizer": "tokenizer.json", "config": "config.json", "safetensors": "model.safetensors"}[kind]
        (folder / name).write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_good_prompt_runs_after_each_generated_file(comfy, stranger, kind):
    answers = []
    for i in range(N_GENERATED):
        name = f"generated-{kind}-{i}"
        folder = stranger(name, "audiocraft" if kind in ("pickle", "yaml") else "huggingface")
        put(kind, kinds.from_seed(kind, SEED + i), folder)
        answers.append(attempt(comfy, name))
        assert not answers[-1] or name in answers[-1], answers[-1]
        serves(comfy, 3000 + i)
        shutil.rmtree(folder)
    assert any(answers)
