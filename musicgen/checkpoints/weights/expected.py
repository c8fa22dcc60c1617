"""Names and shapes of a model's weights, taken from the modules themselves."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from ...beats import BeatTracker
from ...codec import Codec
from ...conditioning import Conditioner
from ...conditioning.text import TextEncoder, t5_encoder
from ...config import CodecConfig, LMConfig, ModelConfig
from ...lm import LM

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(build: Callable[[], nn.Module]) -> Shapes:
    """Name -> shape of each tensor in the state dict of the module that `build` makes, without memory for any."""
    with torch.device("meta"):
        module = build()
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@lru_cache(maxsize=4)
def lm_shapes(config: LMConfig) -> Shapes:
    """The language model's weights. One layer is built: all are equal, and a file may claim a thousand."""
    return _repeat(shapes_of(lambda: LM(replace(config, n_layers=1))), "layers.", 0, config.n_layers)


@lru_cache(maxsize=4)
def codec_shapes(config: CodecConfig) -> Shapes:
    """EnCodec's weights with weight norm folded in, under the names of transformers' EncodecModel."""
    # Causal padding, which `Codec` refuses, has no weights.
    return shapes_of(lambda: Codec(replace(config, causal=False, trim_right_ratio=1.0)))


def beat_tracker_shapes(config: CodecConfig) -> Shapes:
    """The weights of a beat tracker of a codec's codes."""
    return shapes_of(lambda: BeatTracker(config))


def conditioner_shapes(config: ModelConfig) -> Shapes:
    """The projections of the text's and the melody's features to the model's width."""
    return shapes_of(lambda: Conditioner(config, _NoTextEncoder()))


class _NoTextEncoder(TextEncoder):
    """Stands where the text encoder would, whose weights are not asked for."""

    def __init__(self) -> None:
        nn.Module.__init__(self)


def t5_shapes(config: Mapping) -> Shapes:
    """The weights of transformers' T5EncoderModel; `config`: arguments of T5Config. The second of its blocks is repeated."""
    n_layers = config["num_layers"]
    shapes = shapes_of(lambda: t5_encoder({**config, "num_layers": min(n_layers, 2)}))
    return _repeat(shapes, "encoder.block.", 1, n_layers)


def _repeat(shapes: Shapes, prefix: str, last: int, n_layers: int) -> Shapes:
    """`shapes` of a model that ends with layer `last`, with copies of that layer up to `n_layers`."""
    layer = {name: shape for name, shape in shapes.items() if name.startswith(f"{prefix}{last}.")}
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if name not in layer:
            result[name] = shape
        elif name == next(iter(layer)):
            for i in range(last, n_layers):
                result |= {name.replace(f"{prefix}{last}.", f"{prefix}{i}.", 1): shape for name, shape in layer.items()}
    return result
