"""Names and shapes of a model's weights, taken from the modules themselves."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from ...codec import Codec
from ...conditioning import Conditioner
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
    single = list(shapes_of(lambda: LM(replace(config, n_layers=1))).items())
    layer = [(name, shape) for name, shape in single if name.startswith("layers.0.")]
    layers = [(f"layers.{i}.{name[9:]}", shape) for i in range(config.n_layers) for name, shape in layer]
    start = single.index(layer[0])
    return dict(single[:start] + layers + single[start + len(layer) :])


@lru_cache(maxsize=4)
def codec_shapes(config: CodecConfig) -> Shapes:
    """EnCodec's weights with weight norm folded in, under the names of transformers' EncodecModel."""
    # Causal padding, which `Codec` refuses, has no weights.
    return shapes_of(lambda: Codec(replace(config, causal=False, trim_right_ratio=1.0)))


def conditioner_shapes(config: ModelConfig) -> Shapes:
    """The projections of the text's and the melody's features to the model's width."""
    return shapes_of(lambda: Conditioner(config, nn.Module()))
