"""The T5 encoder inside a checkpoint: its settings and its weights, checked against each other."""

from collections.abc import Mapping
from pathlib import Path

from ...conditioning.tokenizer import read_tokenizer
from ..checkpoint import TextEncoderSource
from ..containers.safetensors import read_folder
from ..containers.torch_zip import TorchFile
from ..settings import Settings
from ..weights.expected import t5_shapes
from ..weights.inventory import Inventory
from ..weights.lazy import Stored, Weight

_SHARED, _EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"  # one tensor, saved under either name
_PICKLE_FILE = "pytorch_model.bin"


def t5_config(settings: Settings) -> dict:
    """Arguments of transformers' T5Config, and nothing else that a file of unknown origin may say."""
    for key in ("dtype", "torch_dtype"):  # without effect: the weights are read in their own
        settings.expect(key, None, "float32", "float16", "bfloat16", default=None)
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


def take_t5(tensors: Mapping[str, Stored], config: Mapping, source: str) -> dict[str, Weight]:
    """The encoder's weights out of `tensors`, which may hold a whole T5. CheckpointError if they do not fit `config`."""
    inventory = Inventory(tensors, source)
    inventory.drop(r"(decoder|lm_head)\..*")
    shared = _SHARED if inventory.has(_SHARED) else _EMBEDDING
    weights = {
        name: inventory.take(shared if name == _SHARED else name, shape)
        for name, shape in t5_shapes(config).items()
        if name != _EMBEDDING
    }
    inventory.drop(_EMBEDDING)
    inventory.check()
    return weights | {_EMBEDDING: weights[_SHARED]}


def read_t5(folder: Path) -> TextEncoderSource:
    """A text encoder in a folder of its own, as transformers saves it; also a whole T5, of which the encoder is taken.

    CheckpointError for one that is damaged or of another kind.
    """
    settings = Settings.from_json(folder / "config.json")
    settings.expect("model_type", "t5")
    config = t5_config(settings)
    if (folder / _PICKLE_FILE).is_file() and not any(folder.glob("model*.safetensors*")):
        file = TorchFile(folder / _PICKLE_FILE)
        tensors = file.tensors(file.contents, "the model")
    else:
        tensors = read_folder(folder)
    weights = take_t5(tensors, config, str(folder))
    return TextEncoderSource(config=config, weights=weights, tokenizer_json=read_tokenizer(folder), origin=str(folder))
