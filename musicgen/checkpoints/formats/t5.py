"""The T5 encoder inside a checkpoint: its settings and its weights, checked against each other."""

import json
from collections.abc import Mapping
from pathlib import Path

from ...errors import CheckpointError
from ..checkpoint import TextEncoderSource
from ..containers.safetensors import read_folder
from ..settings import Settings
from ..weights.expected import Shapes
from ..weights.inventory import Inventory
from ..weights.lazy import Stored, Weight

_SHARED = "shared.weight"
_TIED = (_SHARED, "encoder.embed_tokens.weight")  # one tensor, of which each version of transformers saves another name


def t5_config(settings: Settings) -> dict:
    """Arguments of transformers' T5Config, and nothing else that a file of unknown origin may say."""
    return {
        "vocab_size": settings.integer("vocab_size", 32128),
        "d_model": settings.integer("d_model", 512, most=2**16),
        "d_kv": settings.integer("d_kv", 64, most=2**16),
        "d_ff": settings.integer("d_ff", 2048),
        "num_layers": settings.integer("num_layers", 6, most=1000),
        "num_heads": settings.integer("num_heads", 8, most=2**12),
        "relative_attention_num_buckets": settings.integer("relative_attention_num_buckets", 32, most=2**16),
        "relative_attention_max_distance": settings.integer("relative_attention_max_distance", 128, most=2**16),
        "layer_norm_epsilon": settings.number("layer_norm_epsilon", 1e-6, most=1.0, least=1e-12),
        "feed_forward_proj": settings.expect("feed_forward_proj", "relu", "gated-gelu", default="relu"),
    }


def t5_shapes(config: Mapping) -> Shapes:
    """Names of transformers' T5EncoderModel."""
    dim, inner, ffn = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    inputs = ("wi",) if config["feed_forward_proj"] == "relu" else ("wi_0", "wi_1")
    shapes: Shapes = {_SHARED: (config["vocab_size"], dim)}
    for i in range(config["num_layers"]):
        attention, feed_forward = f"encoder.block.{i}.layer.0.", f"encoder.block.{i}.layer.1."
        shapes |= {f"{attention}SelfAttention.{part}.weight": (inner, dim) for part in "qkv"}
        shapes[f"{attention}SelfAttention.o.weight"] = (dim, inner)
        if i == 0:
            buckets = (config["relative_attention_num_buckets"], config["num_heads"])
            shapes[f"{attention}SelfAttention.relative_attention_bias.weight"] = buckets
        shapes |= {f"{feed_forward}DenseReluDense.{part}.weight": (ffn, dim) for part in inputs}
        shapes[f"{feed_forward}DenseReluDense.wo.weight"] = (dim, ffn)
        shapes |= {f"{attention}layer_norm.weight": (dim,), f"{feed_forward}layer_norm.weight": (dim,)}
    return shapes | {"encoder.final_layer_norm.weight": (dim,)}


def take_t5(tensors: Mapping[str, Stored], config: Mapping, source: str) -> dict[str, Weight]:
    """The encoder's weights out of `tensors`, which may hold a whole T5. CheckpointError if they do not fit `config`."""
    table = {name: tensor for name, tensor in tensors.items() if not name.startswith(("decoder.", "lm_head."))}
    for name, other in (_TIED, _TIED[::-1]):
        if other in table:
            table.setdefault(name, table[other])
    table.pop(_TIED[1], None)
    inventory = Inventory(table, source)
    weights = {name: inventory.take(name, shape) for name, shape in t5_shapes(config).items()}
    inventory.check()
    return weights | {_TIED[1]: weights[_SHARED]}


def read_t5(folder: Path) -> TextEncoderSource:
    """A text encoder in a folder of its own, as transformers saves it; also a whole T5, of which the encoder is taken.

    CheckpointError for one that is damaged or of another kind.
    """
    settings = Settings.from_json(folder / "config.json")
    settings.expect("model_type", "t5")
    config = t5_config(settings)
    weights = take_t5(read_folder(folder), config, str(folder))
    return TextEncoderSource(config=config, weights=weights, tokenizer_json=read_tokenizer(folder))


def read_tokenizer(folder: Path) -> str:
    """The text of tokenizer.json, which must end every text with T5's `</s>`."""
    path = folder / "tokenizer.json"
    settings = Settings.from_json(path)
    if '"</s>"' not in json.dumps(settings.get("post_processor", None)):
        raise CheckpointError(f"{path} is not the tokenizer of a T5: it does not end texts with </s>")
    return path.read_text(encoding="utf-8")
