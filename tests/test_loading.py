"""Cancel while weights are loaded: heard all the time, nothing left behind, and the very exception comes out."""

import gc
import itertools
import time

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints.containers.safetensors import read_safetensors
from comfyui_musicgen.musicgen.checkpoints.weights.lazy import Stored
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.lm import LM
from comfyui_musicgen.nodes import host
from comfyui_musicgen.tests.toy.diffusion import write_toy_diffusion
from safetensors.torch import save_file

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
PARAMS = GenerationParams(duration_s=0.4, seed=3)


class InterruptProcessingException(Exception):
    """ComfyUI's interruption by its name, as the cores before 0.4 have it: an Exception."""


class Cancel:
    """A check that raises at its `at`-th call; None = never."""

    def __init__(self, at: int | None = None):
        self.n_calls, self.at = 0, at

    def __call__(self) -> None:
        self.n_calls += 1
        if self.n_calls == self.at:
            raise InterruptProcessingException


def language_models() -> int:
    gc.collect()
    return sum(type(item) is LM for item in gc.get_objects())


def interrupted(task) -> None:
    with pytest.raises(InterruptProcessingException):
        task()


@pytest.mark.parametrize(
    ("precision", "format"),
    [("float16", "huggingface"), pytest.param("int8", "audiocraft", marks=pytest.mark.slow)],
)
def test_a_load_ends_at_any_check_and_leaves_nothing(toys, precision, format):
    folder = toys(**SMALL, format=format)
    loaded = loading.load(folder, precision)  # what is imported at the first load is waited for, with checks of its own
    whole = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    never, before = Cancel(), language_models()
    loading.load(folder, precision, check=never)
    assert never.n_calls > 100, "each tensor is a call at least"
    for at in (1, 2, never.n_calls // 2, int(0.95 * never.n_calls)):
        interrupted(lambda at=at: loading.load(folder, precision, check=Cancel(at)))
        assert language_models() == before
    again = loading.load(folder, precision).model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("strength", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_an_interrupted_fine_tune_leaves_the_base_as_it_is(toys, strength):
    base, tuned = loading.load(toys(**SMALL), "int8"), toys(**SMALL, seed=1)
    never, before = Cancel(), language_models()

    def music() -> torch.Tensor:
        return base.model.generate(base.conditioner.encode_text(["a drum"]), PARAMS).codes

    expected = music()
    loading.apply_fine_tune(base.model, base.conditioner, tuned, strength, never)
    for at in (1, never.n_calls // 2, never.n_calls):
        interrupted(lambda at=at: loading.apply_fine_tune(base.model, base.conditioner, tuned, strength, Cancel(at)))
        assert language_models() == before
    assert torch.equal(music(), expected)


def test_a_long_tensor_is_read_in_pieces_with_a_check_each(tmp_path):
    table = torch.randn(2048, 2048)  # 16 MiB
    save_file({"table": table}, tmp_path / "a.safetensors")
    weight = read_safetensors(tmp_path / "a.safetensors")["table"]
    turned = Stored(weight.shape, weight.names, weight.file, weight.offset, weight.stored_as, weight.strides[::-1])
    for item, expected in ((weight, table), (turned, table.t())):
        never, out = Cancel(), torch.empty(2048, 2048)
        item.copy_into(out, never)
        assert never.n_calls >= 16 and torch.equal(out, expected)
        interrupted(lambda item=item, out=out: item.copy_into(out, Cancel(9)))


@pytest.mark.parametrize("stage", ["_import_libraries", "accel.warm_up"])
def test_cancel_does_not_wait_for_imports_and_compilers(toys, monkeypatch, stage):
    owner, name = (loading.accel, "warm_up") if "." in stage else (loading, stage)
    monkeypatch.setattr(owner, name, lambda *_: time.sleep(20))
    calls = itertools.count()
    begun = time.perf_counter()

    def check() -> None:
        if next(calls) and time.perf_counter() - begun > 0.3:
            raise InterruptProcessingException

    interrupted(lambda: loading.load(toys(**SMALL), "float32", check=check))
    assert time.perf_counter() - begun < 10  # 0.5 s on a machine that does nothing else


def test_the_nodes_hear_cancel(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "model_dirs", lambda: [tmp_path])
    (tmp_path / "base").symlink_to(toys(**SMALL))
    (tmp_path / "tuned").symlink_to(toys(**SMALL, seed=1))
    write_toy_diffusion(tmp_path / "bands.th", n_bands=1)
    model, conditioner, _ = NODES["MusicGenLoader"]().load("base", "int8")
    for task in (
        lambda: NODES["MusicGenLoader"]().load("base", "float32"),
        lambda: NODES["MusicGenFineTune"]().apply(model, conditioner, "tuned", 0.5),
        lambda: NODES["MusicGenDiffusionLoader"]().load("bands.th"),
    ):
        monkeypatch.setattr(host, "check_interrupted", Cancel(20))
        interrupted(task)
