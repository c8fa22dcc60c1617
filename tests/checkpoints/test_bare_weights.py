"""Weights of a language model without settings: a fine-tune of a base that they fit, and of no other."""

import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints import open_checkpoint, open_fine_tune
from comfyui_musicgen.musicgen.checkpoints.formats.bare import PUBLISHED
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.nodes import host
from safetensors.torch import load_file, save_file

from ..store.test_published import MODELS

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


def state_of(folder: Path, format: str) -> dict[str, torch.Tensor]:
    """All tensors of a toy, under the names of its format."""
    if format == "audiocraft":
        return torch.load(folder / "state_dict.bin", weights_only=True)["best_state"]
    return load_file(folder / "model.safetensors")


def language_model(state: dict) -> dict:
    """What `MusicgenForCausalLM(...).state_dict()` holds of a whole model's tensors."""
    return {name.removeprefix("decoder."): tensor for name, tensor in state.items() if name.startswith("decoder.")}


def saved(state: dict, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def equal(ours: dict, theirs: dict) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name].read(), theirs[name].read()) for name in ours)


@pytest.mark.parametrize("options", [{}, {"stereo": True, "melody": True}], ids=["small", "stereo-melody"])
@pytest.mark.parametrize("suffix", ["safetensors", "bin", "th", "pt"])
@pytest.mark.parametrize("format", ["audiocraft", "huggingface"])
def test_a_state_dict_is_a_fine_tune_of_a_base_that_it_fits(toys, tmp_path, options, suffix, format):
    base = open_checkpoint(toys(**SMALL, **options))
    tuned = toys(**SMALL, **options, seed=1, format=format)
    file = saved(state_of(tuned, format), tmp_path / f"mine.{suffix}")
    read, whole = open_fine_tune(file, base), open_checkpoint(tuned)
    assert equal(read.lm, whole.lm) and equal(read.conditioner, whole.conditioner)
    assert read.config.lm == base.config.lm and read.config.name == "mine"


WRAPPED = {
    "compiled": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "parallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "nested": lambda state: {"model": OrderedDict(state), "step": 300},
    "lightning": lambda state: {"state_dict": {f"lm.{name}": tensor for name, tensor in state.items()}, "epoch": 2},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("format", ["audiocraft", "huggingface"])
def test_what_training_wraps_around_the_names_is_taken_off(toys, tmp_path, wrapper, format):
    base, tuned = open_checkpoint(toys(**SMALL)), toys(**SMALL, seed=1, format=format)
    file = saved(WRAPPED[wrapper](state_of(tuned, format)), tmp_path / "mine.pt")
    assert equal(open_fine_tune(file, base).lm, open_checkpoint(tuned).lm)


def test_without_a_projection_the_base_s_own_is_used(toys, tmp_path):
    base, tuned = open_checkpoint(toys(**SMALL)), toys(**SMALL, seed=1, format="huggingface")
    file = saved(language_model(state_of(tuned, "huggingface")), tmp_path / "decoder.safetensors")
    read = open_fine_tune(file, base)
    assert equal(read.lm, open_checkpoint(tuned).lm) and equal(read.conditioner, base.conditioner)


def test_transformers_own_language_model_is_read(toys, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.MusicgenDecoderConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=128, num_codebooks=4
    )
    model = transformers.MusicgenForCausalLM(config)
    read = open_fine_tune(saved(model.state_dict(), tmp_path / "a.bin"), open_checkpoint(toys(**SMALL)))
    layer = model.model.decoder.layers[1]
    assert torch.equal(read.lm["layers.1.up.weight"].read(), layer.fc1.weight)
    assert torch.equal(read.lm["layers.1.cross_q.weight"].read(), layer.encoder_attn.q_proj.weight)


DAMAGE = {
    "width": ({"dim": 16}, {}, ["emb.0.weight is [65, 16], not [65, 32]", "width 16, 2 layers"]),
    "layers": ({"n_layers": 3}, {}, ["not expected (transformer.layers.2.", "3 layers"]),
    "fewer": ({"n_layers": 1}, {}, ["missing (transformer.layers.1."]),
    "stereo": ({"stereo": True}, {}, ["not expected (emb.4.weight", "8 codebooks"]),
    "melody": ({"melody": True}, {}, ["missing (", "cross_attention", "the text in front of the codes"]),
    "one": ({}, {"transformer.layers.1.linear2.weight": torch.zeros(32, 64)}, ["linear2.weight is [32, 64], not [32, 128]"]),
    "lost": ({}, {"out_norm.bias": None}, ["missing (out_norm.bias)"]),
    "more": ({}, {"adapter.weight": torch.zeros(3)}, ["not expected (adapter.weight)"]),
    "kind": ({}, {"out_norm.weight": torch.zeros(32, dtype=torch.int64)}, ["out_norm.weight holds int64"]),
    "half": ({}, {"condition_provider.conditioners.description.output_proj.bias": None}, ["output_proj.bias"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_does_not_fit_is_named(toys, tmp_path, kind):
    options, changes, words = DAMAGE[kind]
    state = {**state_of(toys(**{**SMALL, **options, "seed": 1}), "audiocraft"), **changes}
    file = saved({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "mine.th")
    with pytest.raises(CheckpointError) as error:
        open_fine_tune(file, open_checkpoint(toys(**SMALL)))
    for word in [str(file), "no settings", "do not fit the model", *words]:
        assert word in str(error.value)


def test_the_model_loader_says_what_such_a_file_is(toys, tmp_path, monkeypatch):
    file = saved(state_of(toys(**SMALL, format="huggingface"), "huggingface"), tmp_path / "mine.safetensors")
    monkeypatch.setattr(host, "model_dirs", lambda: [tmp_path])
    assert ModelStore([tmp_path]).list() == [] and ModelStore([tmp_path]).list("weights") == ["mine.safetensors"]
    for load in (lambda: loading.load(file), lambda: NODES["MusicGenLoader"]().load("mine.safetensors", "float32")):
        with pytest.raises(CheckpointError, match=r"without settings \(width 32.*as a\s+fine-tune of a base"):
            load()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_size_is_named(tmp_path, name):
    """Tensors of the true shapes, without their memory: one number stands for all."""
    from comfyui_musicgen.musicgen.checkpoints.formats.bare import BareWeights
    from comfyui_musicgen.musicgen.checkpoints.weights.lazy import Weight

    config = MODELS[name].config()
    lm = config.lm
    shapes = {f"emb.{k}.weight": (lm.cardinality + 1, lm.dim) for k in range(lm.n_codebooks)}
    shapes |= {f"transformer.layers.{i}.linear1.weight": (lm.ffn_dim, lm.dim) for i in range(lm.n_layers)}
    shapes["condition_provider.conditioners.description.output_proj.weight"] = (lm.dim, config.text.dim)
    if lm.cross_attention:
        shapes["transformer.layers.0.cross_attention.out_proj.weight"] = (lm.dim, lm.dim)
    weights = BareWeights(tmp_path, "audiocraft", {key: Weight(shape, (key,)) for key, shape in shapes.items()})
    assert f": {name} has such shapes" in weights.described()
    assert set(PUBLISHED) == set(MODELS)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_node_makes_the_very_music_of_the_whole_fine_tune(toys, tmp_path, monkeypatch, precision):
    base, whole = (loading.load(toys(**SMALL, seed=seed), precision) for seed in (0, 1))
    saved(state_of(toys(**SMALL, seed=1), "audiocraft"), tmp_path / "mine.pt")
    monkeypatch.setattr(host, "model_dirs", lambda: [tmp_path])
    managed = host.Managed(base.model, "model"), host.Managed(base.conditioner, "text_encoder")
    model, conditioner = (item.module for item in NODES["MusicGenFineTune"]().apply(*managed, "mine.pt", 1.0))
    params = GenerationParams(duration_s=0.4, seed=3)
    mine = model.generate(conditioner.encode_text([""]), params).codes  # text encoders of two toys differ
    theirs = whole.model.generate(whole.conditioner.encode_text([""]), params).codes
    assert torch.equal(mine, theirs)


def test_predict_takes_them_as_replicate_weights(toys, tmp_path, monkeypatch):
    from comfyui_musicgen.musicgen.replicate.predict import predict

    shutil.copytree(toys(**SMALL), tmp_path / "models" / "musicgen" / "base")
    file = saved(state_of(toys(**SMALL, seed=1), "audiocraft"), tmp_path / "mine.pt")
    fields = {"prompt": "a drum", "duration": 1, "seed": 3, "normalization_strategy": "clip"}
    common = {"model": "base", "models_dir": tmp_path / "models", "precision": "float32"}
    plain = predict(**common, **fields, out=tmp_path / "a.wav").file.read_bytes()
    tuned = predict(**common, **fields, replicate_weights=str(file), out=tmp_path / "b.wav").file.read_bytes()
    assert plain != tuned
