"""Names of audiocraft's tensors -> the engine's."""

import re
from collections.abc import Mapping

from ...config import ModelConfig
from ..weights.expected import conditioner_shapes
from ..weights.inventory import Inventory
from ..weights.lazy import Stored, Weight


def plain_name(name: str) -> str:
    """Models trained with torch's own attention have `self_attn.mha.in_proj_weight`: the same without `mha.`"""
    return re.sub(r"(self_attn|cross_attention)\.mha\.", r"\1.", name)


def split_cross_attention(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """`cross_attention.in_proj_weight` as two tensors: the query's rows, and those of key and value."""
    table = {}
    for name, tensor in tensors.items():
        if name.endswith("cross_attention.in_proj_weight") and tensor.shape:
            dim = tensor.shape[0] // 3
            table |= {f"{name}[q]": tensor.rows(0, dim), f"{name}[kv]": tensor.rows(dim, tensor.shape[0])}
        else:
            table[name] = tensor
    return table


_LAYER = "transformer.layers.{i}."
LM_NAMES = {
    "embeddings": "emb.{k}.weight",
    "heads.weight": "linears.{k}.weight",
    "norm.weight": "out_norm.weight",
    "norm.bias": "out_norm.bias",
    "layers.norm_self.weight": _LAYER + "norm1.weight",
    "layers.norm_self.bias": _LAYER + "norm1.bias",
    "layers.qkv.weight": _LAYER + "self_attn.in_proj_weight",
    "layers.out.weight": _LAYER + "self_attn.out_proj.weight",
    "layers.norm_cross.weight": _LAYER + "norm_cross.weight",
    "layers.norm_cross.bias": _LAYER + "norm_cross.bias",
    "layers.cross_q.weight": _LAYER + "cross_attention.in_proj_weight[q]",
    "layers.cross_kv.weight": _LAYER + "cross_attention.in_proj_weight[kv]",
    "layers.cross_out.weight": _LAYER + "cross_attention.out_proj.weight",
    "layers.norm_ffn.weight": _LAYER + "norm2.weight",
    "layers.norm_ffn.bias": _LAYER + "norm2.bias",
    "layers.up.weight": _LAYER + "linear1.weight",
    "layers.down.weight": _LAYER + "linear2.weight",
}
_CONDITIONS = {"text_projection": "description", "melody_projection": "self_wav"}


def take_conditioner(inventory: Inventory, config: ModelConfig) -> dict[str, Weight]:
    weights = {}
    for name, shape in conditioner_shapes(config).items():
        module, _, part = name.partition(".")
        weights[name] = inventory.take(
            f"condition_provider.conditioners.{_CONDITIONS[module]}.output_proj.{part}", shape
        )
    if config.melody:  # a Hann window, which the engine computes
        inventory.drop(r"condition_provider\.conditioners\.self_wav\.chroma\.spec\.window")
    return weights
