"""Hostile adapters: settings in the metadata of their tensors' file."""

import functools
import json
import math
import os
import random
import struct
import tempfile
from pathlib import Path

import torch

from ...musicgen.checkpoints import Checkpoint, TextEncoderSource, Weight, blend
from ...musicgen.checkpoints.formats.peft import open_adapter
from ...musicgen.checkpoints.weights.expected import conditioner_shapes, lm_shapes
from ...musicgen.checkpoints.weights.lazy import Computed
from ...musicgen.config import CodecConfig, LMConfig, ModelConfig, TextConfig
from .values import with_junk

_SETTINGS = {
    "peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": False, "use_dora": False, "init_lora_weights": True, "bias": "none",
    "alpha_pattern": {"q_proj": 4}, "rank_pattern": {"q_proj": 2}, "target_modules": ["q_proj"], "modules_to_save": None,
}  # fmt: skip
_REGEXES = (
    "(a+)+b",
    ".*" * 30,
    "(" * 5000,
    "[",
    "(?R)",
    "\\1",
    "a{99999}",
    "(?<=a)",
    "q_proj|" * 30,
    "\ud800",
    "(.|.)*",
)
_ENDS = (
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_embedding_A",
    ".lora_magnitude_vector",
    ".alpha",
    ".weight",
    ".bias",
    ".lora_B.bias",
)


def make_adapter(rng: random.Random) -> bytes:
    layer, config = "base_model.model.decoder.model.decoder.layers.0.", json.loads(json.dumps(_SETTINGS))
    table: dict = {f"{layer}self_attn.q_proj.lora_A.weight": [4, 32], f"{layer}self_attn.q_proj.lora_B.weight": [32, 4]}
    for _ in range(rng.randrange(3)):
        place = rng.choice(
            (
                f"{layer}fc1",
                f"{layer}self_attn.q_proj",
                "text_encoder.encoder.block.0",
                "decoder.lm_heads.0",
                "lora_unet_a",
            )
        )
        table[place + rng.choice(_ENDS)] = rng.choice(([4, 32], [32], [], [0, 32], [1], [32, 32, 2], [128, 1]))
    text = rng.choice(("", "", "[" * 3000)) + json.dumps(config)
    if rng.random() < 0.4:
        config["alpha_pattern"] = {
            rng.choice(_REGEXES): rng.choice((1, 0, 1e308, -1)) for _ in range(rng.choice((1, 3)))
        }
        text = json.dumps(config)
    elif rng.random() < 0.7:
        text = json.dumps(with_junk(rng, config))
    header: dict = {"__metadata__": {"adapter_config": text}}
    position = 0
    for name, shape in table.items():
        end = position + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, end]}
        position = end
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + rng.choice((bytes(position), rng.randbytes(position)))


def read_adapter(data: bytes) -> None:
    handle, name = tempfile.mkstemp(suffix=".safetensors")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        for weight in blend(_base(), open_adapter(path), 0.5).lm.values():
            weight.read()
    finally:
        path.unlink()


@functools.cache
def _base() -> Checkpoint:
    """A model of zeros, 32 wide."""
    config = ModelConfig(
        "zeros", LMConfig(32, 2, 1, 128, 4, 64, (0, 1, 2, 3), True), CodecConfig(32000, (8, 5, 4, 4), 4, 64), TextConfig("t5-small", 512), None, 30.0
    )  # fmt: skip
    parts: list[dict[str, Weight]] = [
        {name: Computed(shape, (name,), (), functools.partial(torch.zeros, shape)) for name, shape in shapes.items()}
        for shapes in (lm_shapes(config.lm), conditioner_shapes(config))
    ]
    return Checkpoint(Path("zeros"), "converted", config, *parts, {}, TextEncoderSource())
