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
_CHROMA = r"condition_provider\.conditioners\.self_wav\.chroma\."
# The chord recogniser that chord models were trained with: 221 tensors, without its mean and deviation, which are in no
# file. Source: `BTC_model` of jayg996/BTC-ISMIR19.
_RECOGNISER = (
    r"model\.(?:self_attn_layers\.(?:embedding_proj\.weight|layer_norm\.(?:gamma|beta)|self_attn_layers\.[0-7]\.(?:"
    r"linear\.(?:weight|bias)|(?:backward_)?attn_block\.(?:multi_head_attention\.(?:query|key|value|output)_linear\.weight"
    r"|positionwise_convolution\.layers\.[01]\.conv\.(?:weight|bias)|layer_norm_(?:mha|ffn)\.(?:gamma|beta))))"
    r"|output_layer\.(?:output_projection\.(?:weight|bias)|lstm\.(?:weight|bias)_[ih]h_l0(?:_reverse)?))"
)
_CONDITIONS = {"text_projection": "description", "melody_projection": "self_wav"}


def take_conditioner(inventory: Inventory, config: ModelConfig) -> dict[str, Weight]:
    weights = {}
    for name, shape in conditioner_shapes(config).items():
        module, _, part = name.partition(".")
        weights[name] = inventory.take(
            f"condition_provider.conditioners.{_CONDITIONS[module]}.output_proj.{part}", shape
        )
    if config.melody:  # a melody model has a Hann window, which the engine computes
        inventory.drop(_CHROMA + (_RECOGNISER if config.melody.chords else r"spec\.window"))
    return weights
