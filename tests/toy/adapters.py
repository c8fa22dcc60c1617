"""Adapters of toy models, made by PEFT itself: the oracle that the engine's reading of them is held to."""

import copy
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]
# The targets of ylacombe/musicgen-dreamboothing.
TARGETS = [
    *ATTENTION, "fc1", "fc2", "enc_to_dec_proj", "audio_enc_to_dec_proj",
    *(f"{kind}.{k}" for kind in ("lm_heads", "embed_tokens") for k in range(8)),
]  # fmt: skip
PLAIN = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS}
_PATH = r"decoder\.model\.decoder\.layers\.0\.self_attn\.v_proj"
_NORMS = ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"]
_TABLES = [f"{kind}.{k}" for kind in ("lm_heads", "embed_tokens") for k in range(4)]

# name -> (options of the toy, of LoraConfig)
CASES: dict[str, tuple[dict, dict]] = {
    "plain": ({}, PLAIN),
    "melody": ({"melody": True}, PLAIN),
    "stereo": ({"stereo": True}, PLAIN),
    "rslora": ({}, {**PLAIN, "use_rslora": True}),
    "patterns": ({}, {**PLAIN, "rank_pattern": {"q_proj": 2, "layers.1.fc1": 6}, "alpha_pattern": {"k_proj": 3, _PATH: 5}}),
    "dora": ({}, {**PLAIN, "use_dora": True}),
    "dora-attention": ({"melody": True}, {**PLAIN, "use_dora": True, "target_modules": ATTENTION}),
    "bias-all": ({}, {**PLAIN, "bias": "all"}),
    "bias-lora-only": ({}, {**PLAIN, "bias": "lora_only"}),
    "lora-bias": ({}, {**PLAIN, "lora_bias": True, "target_modules": ["enc_to_dec_proj"]}),
    "modules-to-save": ({}, {**PLAIN, "target_modules": ATTENTION, "modules_to_save": ["enc_to_dec_proj", *_TABLES, *_NORMS]}),
    "all-norms": ({}, {**PLAIN, "target_modules": ["fc1"], "modules_to_save": ["layer_norm"]}),  # of T5 as well
    "all-linear": ({"melody": True}, {**PLAIN, "target_modules": "all-linear"}),
    "saved-projections": ({"melody": True}, {**PLAIN, "target_modules": ["fc2"], "modules_to_save": ["enc_to_dec_proj", "audio_enc_to_dec_proj"]}),
}  # fmt: skip


@functools.cache
def peft() -> Any:
    return pytest.importorskip(
        "peft", reason="peft is not installed (tests/requirements.txt): nothing is compared with it"
    )


def base_model(folder: Path) -> nn.Module:
    """transformers' model of a toy in Hugging Face's format."""
    transformers = pytest.importorskip("transformers")
    kind = "MusicgenMelody" if '"musicgen_melody"' in (folder / "config.json").read_text() else "Musicgen"
    return getattr(transformers, f"{kind}ForConditionalGeneration").from_pretrained(folder).eval()


def make_adapter(
    model: nn.Module,
    folder: Path,
    seed: int = 0,
    name: str = "default",
    part: Callable[[nn.Module], nn.Module] | None = None,
    noise: float = 0.1,
    **options: Any,
) -> Any:
    """An adapter of a copy of `model` in `folder`, every trained number moved by noise -> PEFT's model in evaluation.

    part: what of the model is wrapped, such as its decoder.
    """  # fmt: skip
    model = copy.deepcopy(model)
    config = peft().LoraConfig(**options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped = peft().get_peft_model(part(model) if part else model, config, adapter_name=name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(folder)
    return wrapped.eval()


def merged(wrapped: Any) -> dict[str, Tensor]:
    """The weights after PEFT's own merge, under transformers' names; those of a wrapped decoder without `decoder.`."""
    return copy.deepcopy(wrapped).merge_and_unload().state_dict()


def other_form(folder: Path, target: Path, wanted: str) -> Path:
    """A copy of an adapter's folder with its tensors in another form: "float16", "bfloat16" or "bin"."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    tensors = load_file(target / "adapter_model.safetensors")
    if wanted == "bin":
        (target / "adapter_model.safetensors").unlink()
        torch.save(tensors, target / "adapter_model.bin")
    else:
        save_file(
            {key: value.to(getattr(torch, wanted)) for key, value in tensors.items()},
            target / "adapter_model.safetensors",
        )
    return target


def logits_of(model: Any, ids: list[int], codes: Tensor) -> Tensor:
    """[1, K, S, cardinality] of transformers' model, or PEFT's around it: codes [1, K, S] under a text."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        made = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), decoder_input_ids=codes[0])
    return made.logits[None, :, -codes.shape[-1] :]


# --- adapters written by hand, for what PEFT would not write, and where it is not needed

LAYER = "decoder.model.decoder.layers.0."
MODULES = {  # of a toy of SMALL -> (out, in)
    f"{LAYER}self_attn.q_proj": (32, 32),
    f"{LAYER}self_attn.v_proj": (32, 32),
    f"{LAYER}fc1": (128, 32),
    "decoder.lm_heads.2": (64, 32),
}


def pairs(modules: dict[str, tuple[int, int]] = MODULES, rank: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Random A and B of linear modules, under PEFT's names."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (n_out, n_in) in modules.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = 0.3 * torch.randn(rank, n_in, generator=generator)
        tensors[f"base_model.model.{name}.lora_B.weight"] = 0.3 * torch.randn(n_out, rank, generator=generator)
    return tensors


def write_adapter(folder: Path, tensors: dict[str, Tensor] | None = None, settings: dict | str | None = None) -> Path:
    """A folder as PEFT's; settings: changes of the plain ones, or the whole text."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(pairs() if tensors is None else tensors, folder / "adapter_model.safetensors")
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    text = settings if isinstance(settings, str) else json.dumps({**plain, **(settings or {})})
    (folder / "adapter_config.json").write_text(text)
    return folder
