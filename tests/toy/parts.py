"""What both formats of a toy share: its weights by part, its tiny T5 with a tokenizer of bytes, its files."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...musicgen.checkpoints.formats.codec_options import OPTIONS
from ...musicgen.config import CodecConfig, TextConfig
from ...musicgen.dependencies import require

Weights = dict[str, Tensor]

_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2: those of T5
_N_HEADS, _HEAD_DIM, _FFN_DIM, _N_BUCKETS = 2, 32, 64, 32


@dataclass(frozen=True)
class Parts:
    """Weights under the engine's names; the codec's with weight norm folded in, the text encoder's T5's own."""

    lm: Weights
    conditioner: Weights
    codec: Weights
    text: Weights
    text_layers: int


def gain(weight: Tensor) -> Tensor:
    """Norm over all dimensions but the first: weight norm's g for which v is the weight itself."""
    return weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))


def with_training_buffers(codec: Weights) -> Weights:
    """The codec with what training leaves beside each codebook, as published files have it."""
    state = dict(codec)
    for name, embed in codec.items():
        if name.endswith(".codebook.embed"):
            stem = name.removesuffix("embed")
            state[stem + "inited"] = torch.ones(1)
            state[stem + "cluster_size"] = torch.ones(len(embed))
            state[stem + "embed_avg"] = embed.clone()
    return state


def codec_options(codec: CodecConfig, format: str) -> dict[str, object]:
    """Key -> value of each of the codec's options in `format`; audiocraft's keys are dotted."""
    values = {option.field: getattr(codec, option.field) for option in OPTIONS}
    if format == "audiocraft":
        values["conv_shortcut"] = not values["conv_shortcut"]
    plain = {field: list(value) if isinstance(value, tuple) else value for field, value in values.items()}
    return {option.key(format): plain[option.field] for option in OPTIONS}


# --- text encoder


def text_config(text: TextConfig, parts: Parts) -> dict:
    """transformers' T5Config of the text encoder."""
    return {
        "_name_or_path": text.name,
        "model_type": "t5",
        "d_model": text.dim,
        "d_kv": _HEAD_DIM,
        "d_ff": _FFN_DIM,
        "num_heads": _N_HEADS,
        "num_layers": parts.text_layers,
        "num_decoder_layers": parts.text_layers,
        "vocab_size": len(_vocabulary()),
        "relative_attention_num_buckets": _N_BUCKETS,
        "relative_attention_max_distance": 128,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-06,
        "initializer_factor": 1.0,
        "feed_forward_proj": "relu",
        "is_encoder_decoder": False,
        "use_cache": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": True,
    }


def text_weights(dim: int, n_layers: int, generator: torch.Generator) -> Weights:
    """Weights of transformers' T5EncoderModel, with the spreads of its own initialization."""

    def noise(*shape: int, std: float) -> Tensor:
        return std * torch.randn(shape, generator=generator)

    inner = _N_HEADS * _HEAD_DIM
    weights = {"shared.weight": noise(len(_vocabulary()), dim, std=1.0)}
    for i in range(n_layers):
        attention, ffn = f"encoder.block.{i}.layer.0.", f"encoder.block.{i}.layer.1."
        weights[attention + "SelfAttention.q.weight"] = noise(inner, dim, std=(dim * _HEAD_DIM) ** -0.5)
        weights[attention + "SelfAttention.k.weight"] = noise(inner, dim, std=dim**-0.5)
        weights[attention + "SelfAttention.v.weight"] = noise(inner, dim, std=dim**-0.5)
        weights[attention + "SelfAttention.o.weight"] = noise(dim, inner, std=inner**-0.5)
        if i == 0:
            weights[attention + "SelfAttention.relative_attention_bias.weight"] = noise(_N_BUCKETS, _N_HEADS, std=1.0)
        weights[attention + "layer_norm.weight"] = torch.ones(dim)
        weights[ffn + "DenseReluDense.wi.weight"] = noise(_FFN_DIM, dim, std=dim**-0.5)
        weights[ffn + "DenseReluDense.wo.weight"] = noise(dim, _FFN_DIM, std=math.sqrt(1 / _FFN_DIM))
        weights[ffn + "layer_norm.weight"] = torch.ones(dim)
    return weights | {"encoder.final_layer_norm.weight": torch.ones(dim)}


def _vocabulary() -> dict[str, int]:
    """T5's special tokens, then one token a byte, so that no two texts have the same tokens."""
    # Byte-level BPE writes each byte as a printable character: itself, or one from 256 upwards.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [chr(256 + i) for i in range(256 - len(printable))]
    tokens = [_PAD, _END, _UNKNOWN, *map(chr, printable), *others]
    return {token: i for i, token in enumerate(tokens)}


def write_tokenizer(folder: Path) -> None:
    """A tokenizer for transformers' AutoTokenizer: one token a byte, `</s>` at the end."""
    special = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    end = {"SpecialToken": {"id": _END, "type_id": 0}}
    single, pair = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": token, **special} for i, token in enumerate((_PAD, _END, _UNKNOWN))],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [single, end],
                "pair": [single, end, pair, end],
                "special_tokens": {_END: {"id": _END, "ids": [1], "tokens": [_END]}},
            },
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": _UNKNOWN,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": _vocabulary(),
                "merges": [],
            },
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": _PAD,
            "eos_token": _END,
            "unk_token": _UNKNOWN,
            "padding_side": "right",
            "model_max_length": 512,
            "clean_up_tokenization_spaces": False,
        },
    )


# --- files


def write_json(path: Path, table: Mapping) -> None:
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def save_safetensors(weights: Weights, path: Path) -> None:
    library = require("safetensors.torch", "Writing toy checkpoints", "safetensors")
    library.save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata={"format": "pt"})
