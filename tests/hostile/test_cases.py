"""Files that 0.11.0 did not take well: each is an error that names the file, quickly, and a good file loads after it."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.foreign import guarded
from comfyui_musicgen.tests.hostile import kinds
from comfyui_musicgen.tests.hostile.fuzz import CORPUS
from safetensors.torch import load_file, save_file

CASES = sorted(path.name for path in kinds.CASES.iterdir())
SEED = int(os.environ.get("HOSTILE_SEED", "0"))  # another one every week is welcome
N_GENERATED = 40  # of each of the five kinds

pytestmark = pytest.mark.skipif(not kinds.CASES.is_dir(), reason="the cases are not in this copy")


@pytest.fixture
def toy(toys, tmp_path):
    """A copy of a small toy, to be damaged."""

    def copy(format: str) -> Path:
        return Path(shutil.copytree(toys(format=format), tmp_path / "toy"))

    return copy


def load_and_encode(folder: Path) -> torch.Tensor:
    return loading.load(folder, "float32").conditioner.encode_text(["a drum", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"]).text[0]


def format_of(case: str) -> str:
    return "audiocraft" if case.startswith(("text_encoder-", "03-")) else "huggingface"


def refused(folder: Path) -> str:
    with kinds.bounded(), pytest.raises(CheckpointError) as error:
        load_and_encode(folder)
    assert str(folder) in str(error.value)
    return str(error.value)


NAMED = {
    "config_audio_encoder.trim_right_ratio_24": "trim_right_ratio",
    "config_bandwidths__1e_308_": "target_bandwidths",
    "config_text_encoder.layer_norm_epsilon_0": "layer_norm_epsilon",
    "text_encoder-cfg_dtype": "dtype",
    "text_encoder-cfg_layers_1e9": "num_layers",
    "text_encoder-cfg_nan_eps": "layer_norm_epsilon",
    "tokenizer-big_ids_hf": "1000258",
    "tokenizer-regex_catastrophic_hf": "Split",
    "tokenizer-regex_replace_grow_hf": "regular expression",
    "tokenizer_config-class_BertTokenizer": "BertTokenizer",
}


@pytest.mark.parametrize("case", CASES)
def test_what_0_11_did_not_take_well_is_refused_by_name(toy, case):
    folder = toy(format_of(case))
    assert torch.isfinite(load_and_encode(folder)).all()
    shutil.copytree(kinds.CASES / case, folder, dirs_exist_ok=True)
    assert NAMED.get(case, "") in refused(folder)


def test_a_tokenizer_that_panics_as_it_is_loaded_is_refused(toy):
    folder = toy("huggingface")
    shutil.copy(kinds.CASES / "00-server-wedge" / "tokenizer-panics-at-load.json", folder / "tokenizer.json")
    refused(folder)


def test_no_weight_of_the_text_encoder_is_ever_made_up(toy):
    folder = toy("audiocraft")
    tensors = load_file(folder / "text_encoder" / "model.safetensors")
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    del tensors[name]
    save_file(tensors, folder / "text_encoder" / "model.safetensors")
    assert f"1 tensor missing ({name})" in refused(folder)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_generated_files_of_the_same_kinds_cost_little_and_raise_nothing_foreign(kind):
    outcomes = [kinds.attempt(kind, kinds.from_seed(kind, SEED + i)) for i in range(N_GENERATED)]
    assert "refused" in outcomes


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_once_failed_is_read_or_refused(path):
    kinds.attempt(path.name.partition("-")[0], path.read_bytes())


# --- the guard itself


class PanicException(BaseException):
    """As the libraries written in Rust raise it."""


class InterruptProcessingException(BaseException):
    """As ComfyUI raises it."""


@pytest.mark.parametrize("error", [PanicException("unwrap"), ValueError(), MemoryError(), RecursionError(), OSError()])
def test_the_guard_names_the_file_whatever_is_raised(error):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"), guarded("tokenizer.json"):
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, InterruptProcessingException, GeneratorExit])
def test_the_guard_lets_interruptions_pass(error):
    with pytest.raises(error), guarded("tokenizer.json"):
        raise error


def test_an_interruption_that_is_an_exception_passes_as_well():
    older = type("InterruptProcessingException", (Exception,), {})
    with pytest.raises(older), guarded("tokenizer.json"):
        raise older
