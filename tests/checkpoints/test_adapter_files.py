"""Files of adapters: what is found and listed, other spellings of their names, and what is refused with a reason."""

import json
import logging
import math
import shutil
import time
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen.checkpoints import blend, open_checkpoint, open_fine_tune
from comfyui_musicgen.musicgen.checkpoints.open import detect
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.tests.toy.adapters import LAYER, MODULES, SMALL, pairs, write_adapter
from safetensors.torch import load_file, save_file

Q, B = f"base_model.model.{LAYER}self_attn.q_proj.", "base_model.model."


@pytest.fixture
def base(toys):
    return open_checkpoint(toys(**SMALL))


def change(base, path: Path, name: str = "layers.0.qkv.weight", strength: float = 1.0) -> torch.Tensor:
    return blend(base, open_fine_tune(path, base), strength).lm[name].read() - base.lm[name].read()


def product(tensors: dict, module: str = f"{LAYER}self_attn.q_proj") -> torch.Tensor:
    return tensors[f"{B}{module}.lora_B.weight"] @ tensors[f"{B}{module}.lora_A.weight"]


# --- where the strength is told


def test_a_single_file_takes_its_settings_from_beside_it_or_from_its_metadata(base, tmp_path):
    folder, tensors = write_adapter(tmp_path / "a"), pairs()
    text = (folder / "adapter_config.json").read_text()
    (tmp_path / "b").mkdir()
    save_file(tensors, tmp_path / "b" / "style.safetensors")
    (tmp_path / "b" / "style.json").write_text(text)
    metadata = {
        "text": {"adapter_config": text},
        "loose": {"lora_alpha": "8", "r": "4", "use_rslora": "false", "notes": "{"},
    }
    files = [folder, folder / "adapter_model.safetensors", tmp_path / "b" / "style.safetensors"]
    for name, table in metadata.items():
        files.append(tmp_path / f"{name}.safetensors")
        save_file(tensors, files[-1], table)
    for file in files:
        made = change(base, file)
        assert torch.allclose(made[:32], 2 * product(tensors), atol=1e-6) and not made[32:64].any(), file


def test_without_a_word_on_alpha_nothing_is_guessed(base, tmp_path):
    (write_adapter(tmp_path / "a") / "adapter_config.json").unlink()
    save_file(pairs(), tmp_path / "style.safetensors")
    for path, word in ((tmp_path / "a", "adapter_config.json"), (tmp_path / "style.safetensors", "style.json")):
        with pytest.raises(CheckpointError, match=rf"lora_alpha.*{word}"):
            open_fine_tune(path, base)


# --- spellings

SHORT = {f"{B}{name}": name.removeprefix("decoder.") for name in MODULES}
AUDIOCRAFT = {
    "self_attn.out_proj": ("self_attn.out_proj", (32, 32)),
    "linear1": ("fc1", (128, 32)),
    "linear2": ("fc2", (32, 128)),
    "cross_attention.out_proj": ("encoder_attn.out_proj", (32, 32)),
}


def respelled(tensors: dict, old: str, new: str) -> dict:
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("spelling", ["bare", "decoder", "state dict", "module", "lm"])
def test_other_beginnings_and_ends_of_the_names(base, tmp_path, spelling):
    tensors = pairs()
    other = {
        "bare": respelled(tensors, B, ""),
        "decoder": respelled(tensors, f"{B}decoder.", B),
        "state dict": respelled(respelled(tensors, "lora_A.", "lora_A.default."), "lora_B.", "lora_B.default."),
        "module": respelled(tensors, B, "module.base_model.model."),
        "lm": respelled(tensors, B, "lm.base_model.model."),
    }[spelling]
    assert other != tensors
    expected = change(base, write_adapter(tmp_path / "a", tensors))
    assert expected.any() and torch.equal(change(base, write_adapter(tmp_path / "b", other)), expected)


def test_audiocraft_s_names(base, tmp_path):
    theirs = pairs({f"transformer.layers.1.{name}": shape for name, (_, shape) in AUDIOCRAFT.items()})
    ours = pairs({f"decoder.model.decoder.layers.1.{name}": shape for name, shape in AUDIOCRAFT.values()})
    theirs |= pairs({"linears.3": (64, 32)}, seed=1)
    ours |= pairs({"decoder.lm_heads.3": (64, 32)}, seed=1)
    paths = write_adapter(tmp_path / "a", respelled(theirs, B, f"{B}lm.")), write_adapter(tmp_path / "b", ours)
    for name in (
        "layers.1.out.weight",
        "layers.1.up.weight",
        "layers.1.down.weight",
        "layers.1.cross_out.weight",
        "heads.weight",
    ):
        made, expected = (change(base, path, name) for path in paths)
        assert expected.any() and torch.equal(made, expected), name


@pytest.mark.parametrize("dots", [True, False])
@pytest.mark.parametrize("alpha", [2.0, None])
def test_kohya_s_names(base, tmp_path, dots, alpha):
    tensors = {}
    for name, tensor in pairs().items():
        module, _, kind = name.removeprefix(B).rpartition(".lora_")
        module = f"lora_unet_{module if dots else module.replace('.', '_')}"
        tensors[f"{module}.lora_{'down' if kind[0] == 'A' else 'up'}.weight"] = tensor
        if alpha is not None:
            tensors[f"{module}.alpha"] = torch.tensor(alpha)
    save_file(tensors, tmp_path / "kohya.safetensors")
    scale = 1.0 if alpha is None else alpha / 4
    assert torch.allclose(change(base, tmp_path / "kohya.safetensors")[:32], scale * product(pairs()), atol=1e-6)


def test_patterns_decide_the_scale_of_each_module(base, tmp_path):
    settings = {
        "alpha_pattern": {"q_proj": 4, r"decoder\.model\.decoder\.layers\.\d+\.fc1": 16, "k_proj": 9},
        "use_rslora": True,
    }
    path = write_adapter(tmp_path / "a", settings=settings)
    tensors = pairs()
    assert torch.allclose(change(base, path)[:32], 4 / math.sqrt(4) * product(tensors), atol=1e-6)
    assert torch.allclose(
        change(base, path)[64:], 8 / math.sqrt(4) * product(tensors, f"{LAYER}self_attn.v_proj"), atol=1e-6
    )
    assert torch.allclose(change(base, path, "layers.0.up.weight"), 8 * product(tensors, f"{LAYER}fc1"), atol=2e-6)


# --- lists


def test_a_folder_of_adapters_is_never_a_model(toys, tmp_path):
    root, whole = tmp_path / "musicgen", toys(**SMALL, format="huggingface")
    write_adapter(root / "trained")
    shutil.copy(whole / "config.json", root / "trained")  # as dreamboothing leaves it
    shutil.copy(root / "trained" / "adapter_config.json", root / "trained" / "checkpoint.json")
    write_adapter(root / "loras" / "style")
    write_adapter(root / "several" / "one")
    write_adapter(root / "several" / "two")
    shutil.copy(whole / "config.json", root / "several")
    save_file(pairs(), root / "loras" / "file.safetensors")
    torch.save(pairs(), root / "loras" / "file.bin")
    save_file({"unet.lora_A.weight": torch.ones(2, 2)}, root / "loras" / "picture.safetensors")
    shutil.copytree(whole, root / "base")
    shutil.copy(root / "trained" / "adapter_config.json", root / "base")  # a remnant
    store = ModelStore([root])
    assert store.list() == ["base"]
    assert store.list("weights") == [
        *("base", "loras/file.bin", "loras/file.safetensors", "loras/style", "several/one", "several/two", "trained")
    ]
    assert detect(root / "trained") is None and detect(root / "several") is None
    for name in ("trained", "several", "loras/file.bin"):
        with pytest.raises(CheckpointError, match="Apply MusicGen Fine-Tune"):
            store.open(store.find(name))
    with pytest.raises(CheckpointError, match=r"an adapter \(LoRA\), no whole model"):
        store.check("trained")
    with pytest.raises(CheckpointError, match="2 adapters: one, two"):
        open_fine_tune(root / "several", open_checkpoint(whole))


def test_the_folder_loras_need_not_be_named(tmp_path):
    root = tmp_path / "musicgen"
    write_adapter(root / "loras" / "style")
    write_adapter(root / "loras" / "both")
    write_adapter(root / "both")
    store = ModelStore([root])
    assert store.find("style", "weights") == store.find("loras/style", "weights") == root / "loras" / "style"
    assert store.find("both", "weights") == root / "both"
    store.check("style", "weights")
    with pytest.raises(CheckpointError, match="no model 'style'"):
        store.find("style")


# --- what is refused

SETTINGS = {
    "kind": ({"peft_type": "LOHA"}, "'LOHA' are not read, only LORA"),
    "pissa": ({"init_lora_weights": "pissa"}, "'pissa', which takes parts of the base's weights away.*Save it with PEFT"),
    "pissa-fast": ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16"),
    "olora": ({"init_lora_weights": "olora"}, "'olora'"),
    "number": ({"init_lora_weights": 1}, "'1'"),
    "conv1d": ({"fan_in_fan_out": True}, "'fan_in_fan_out' is True"),
    "replication": ({"layer_replication": [[0, 2]]}, "'layer_replication'"),
    "parameters": ({"target_parameters": ["fc1.weight"]}, "'target_parameters'"),
    "bdlora": ({"use_bdlora": {"nblocks": 2}}, "'use_bdlora'"),
    "alpha-text": ({"lora_alpha": "16"}, "'lora_alpha' is '16', but only a number"),
    "alpha-nan": ({"lora_alpha": math.nan}, "'lora_alpha' is nan"),
    "alpha-huge": ({"lora_alpha": 1e300}, "'lora_alpha'"),
    "rank-huge": ({"r": 10**12}, "'r' is 1000000000000"),
    "rank-list": ({"r": [4]}, "'r' is a list"),
    "rslora-text": ({"use_rslora": "yes"}, "'use_rslora' is 'yes'"),
    "pattern-list": ({"alpha_pattern": ["q_proj"]}, "'alpha_pattern' is a list"),
    "pattern-value": ({"alpha_pattern": {"q_proj": "9"}}, "'alpha_pattern' is '9'"),
    "pattern-bomb": ({"alpha_pattern": {"(a+)+b": 9}}, "a simple pattern"),
    "pattern-slow": ({"alpha_pattern": {".*.*.*.*.*x": 9}}, "a simple pattern"),
    "pattern-broken": ({"alpha_pattern": {"(": 9}}, "a pattern that can be read"),
    "pattern-many": ({"alpha_pattern": {f"m{n}": n for n in range(60_000)}}, "'alpha_pattern' is a table of 60000"),
    "no-table": ("[]", "no table of settings"),
    "no-json": ("{", "not readable JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_cannot_be_followed_are_named(base, tmp_path, case):
    settings, words = SETTINGS[case]
    path = write_adapter(tmp_path / "a", settings=settings)
    begun = time.process_time()
    with pytest.raises(CheckpointError, match=words) as error:
        open_fine_tune(path, base)
    assert str(tmp_path / "a") in str(error.value) and time.process_time() - begun < 2


def test_a_setting_of_the_future_is_named_in_a_warning(base, tmp_path, caplog):
    path = write_adapter(tmp_path / "a", settings={"use_future": {"a": 1}, "use_other": None, "eva_config": {"rho": 2}})
    with caplog.at_level(logging.WARNING):
        open_fine_tune(path, base)
    assert "'use_future' is not known" in caplog.text and "use_other" not in caplog.text and "eva" not in caplog.text


def without(name: str) -> dict:
    return {key: tensor for key, tensor in pairs().items() if key != name}


WIDE = {f"{LAYER}self_attn.q_proj": (48, 48)}
DEEP = {"decoder.model.decoder.layers.48.fc1": (128, 32)}
TENSORS = {
    "no-a": (without(f"{Q}lora_A.weight"), "1 tensor missing .*q_proj.lora_A"),
    "no-b": (without(f"{Q}lora_B.weight"), "1 tensor missing .*q_proj.lora_B"),
    "transposed": ({**pairs(), f"{Q}lora_B.weight": torch.ones(4, 32)}, r"q_proj.lora_B is \[4, 32\], not \[32, 4\]"),
    "ranks": ({**pairs(), f"{Q}lora_B.weight": torch.ones(32, 3)}, r"lora_B is \[32, 3\], not \[32, 4\]"),
    "foreign-width": (pairs(WIDE), r"lora_A is \[4, 48\], not \[4, 32\].*made for a model of width 48"),
    "49th-layer": (pairs(DEEP), r"2 tensors have no place in it .*layers\.48\.fc1\.lora_A.*49 layers: no published"),
    "codebook": (pairs({"decoder.lm_heads.4": (64, 32)}), "no place in it .*lm_heads.4.*5 codebooks"),
    "melody": (pairs({"audio_enc_to_dec_proj": (32, 12)}), "no place in it .*audio_enc_to_dec_proj.*in front of the codes"),
    "whole-numbers": ({**pairs(), f"{Q}lora_A.weight": torch.ones(4, 32, dtype=torch.int64)}, "lora_A holds int64"),
    "one-dimension": ({**pairs(), f"{Q}lora_A.weight": torch.ones(128)}, "lora_A is"),
    "no-numbers": ({**pairs(), f"{Q}lora_A.weight": torch.full((4, 32), math.nan)}, "q_proj.lora_A.weight' holds values that are no numbers"),
    "infinite": ({**pairs(), f"{Q}lora_B.weight": torch.full((32, 4), math.inf)}, "no numbers"),
    "rank-zero": ({**pairs(), f"{Q}lora_A.weight": torch.ones(0, 32), f"{Q}lora_B.weight": torch.ones(32, 0)}, r"lora_A is \[0, 32\]"),
    "rank-too-large": (pairs({f"{LAYER}self_attn.q_proj": (32, 32)}, rank=33), "rank 33 is more than the 32 x 32 matrix"),
    "bias": ({**pairs(), f"{Q}lora_B.bias": torch.ones(32)}, "no place in it .*lora_B.bias"),
    "norm": ({**pairs(), f"{B}{LAYER}final_layer_norm.lora_A.weight": torch.ones(4, 32)}, "not expected .*final_layer_norm.lora_A"),
    "embedding": (pairs({"decoder.model.decoder.embed_tokens.0": (32, 65)}), "missing .*lora_embedding_A"),
    "magnitude": ({**pairs(), f"{Q}lora_magnitude_vector": torch.ones(31)}, r"magnitude is \[31\], not \[32\]"),
    "codec": ({**pairs(), f"{B}audio_encoder.encoder.layers.0.lora_A.weight": torch.ones(4, 4)}, "no place in it .*audio_encoder"),
    "foreign": ({**pairs(), "hada_w1_a": torch.ones(2)}, "names that no LoRA has .hada_w1_a"),
    "twice": ({**pairs(), **respelled(pairs(), B, "")}, "twice, under two names"),
    "whole-only": ({f"{B}enc_to_dec_proj.weight": torch.ones(32, 512)}, "none of its tensors is a lora_A"),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_are_named(base, tmp_path, case):
    tensors, words = TENSORS[case]
    path = write_adapter(tmp_path / "a", tensors)
    with pytest.raises(CheckpointError, match=words) as error:
        blend(base, open_fine_tune(path, base), 1.0)
    assert str(tmp_path / "a") in str(error.value)


def test_dora_without_its_magnitudes_is_incomplete(base, tmp_path):
    path = write_adapter(tmp_path / "a", settings={"use_dora": True})
    with pytest.raises(CheckpointError, match=r"missing .*magnitude"):
        blend(base, open_fine_tune(path, base), 1.0)


def test_files_that_are_damaged_or_unsafe(base, tmp_path):
    folder = write_adapter(tmp_path / "a")
    data = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(data[:-7])
    with pytest.raises(CheckpointError, match="damaged"):
        open_fine_tune(folder, base)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"not its weights: it needs adapter_model\.safetensors or adapter_model\.bin"
    ):
        open_fine_tune(folder, base)

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({**pairs(), "bomb": Bomb()}, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="Nothing in it was run"):
        open_fine_tune(folder, base)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_that_changes_nothing_says_so(base, tmp_path, caplog):
    tensors = {name: tensor * (0 if "lora_B" in name else 1) for name, tensor in pairs().items()}
    with caplog.at_level(logging.WARNING):
        assert not change(base, write_adapter(tmp_path / "a", tensors)).any()
    assert "changes nothing" in caplog.text


@pytest.mark.parametrize("strength", [-2.1, 2.1, math.nan, True, "1"])
def test_strengths_of_adapters_reach_from_minus_2_to_2(base, tmp_path, strength):
    adapter = open_fine_tune(write_adapter(tmp_path / "a"), base)
    with pytest.raises(InputError, match="'strength' must be a number from -2 to 2"):
        blend(base, adapter, strength)
    assert blend(base, adapter, 0) is base
    assert load_file(tmp_path / "a" / "adapter_model.safetensors").keys() == pairs().keys()
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["r"] == 4
