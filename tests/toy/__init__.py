"""Small checkpoints with random weights: the real architecture in the real formats, for tests and first tries."""

import math
import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...musicgen.checkpoints.formats.audiocraft_settings import TEXT_DIMS
from ...musicgen.checkpoints.weights.expected import codec_shapes, conditioner_shapes, lm_shapes
from ...musicgen.config import CodecConfig, LMConfig, MelodyConfig, ModelConfig, TextConfig, delays_for
from ...musicgen.errors import InputError
from . import audiocraft, huggingface
from .parts import Parts, text_weights, write_json

MARKER = "toy.json"
FORMATS = {"audiocraft": audiocraft.write, "huggingface": huggingface.write}
MUSIC = (32000, (8, 5, 4, 4))  # sample rate and ratios of every MusicGen's codec: 50 frames a second
SOUND = (16000, (8, 5, 4, 2))  # of AudioGen's


def write_toy(
    folder: Path,
    stereo: bool = False,
    melody: bool = False,
    format: str = "audiocraft",
    seed: int = 0,
    *,
    dim: int = 64,
    n_heads: int = 4,
    n_layers: int = 3,
    cardinality: int = 2048,
    segment_s: float = 30.0,
    n_filters: int = 8,
    latent_dim: int = 128,
    text_layers: int = 1,
    text: str = "t5-small",
    codec: tuple[int, tuple[int, ...]] = MUSIC,
    chords: bool = False,
) -> Path:
    """Write a checkpoint with its text encoder and tokenizer into `folder`, and return it.

    One seed gives one set of weights in both formats. InputError if `folder` holds anything but an earlier toy.
    Nothing half-written is left behind. Audiocraft itself loads it only if `segment_s` is more than 18.
    chords: a melody model's shapes, trained on rows of chords; audiocraft's format alone.
    text: the name of the encoder, which decides its width. codec: sample rate in Hz, and ratios of its layers.
    """
    if format not in FORMATS:
        raise InputError(f"'format' must be one of {', '.join(FORMATS)}, got {format!r}")
    folder = Path(folder).absolute()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file. Give the name of a new folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise InputError(f"{folder} is not empty and holds no toy checkpoint. Give the name of a new folder.")
    if chords and format != "audiocraft":
        raise InputError(f"chord models have no format {format!r}. Leave 'format' at audiocraft.")
    config = _config(folder.name, stereo, melody or chords, dim, n_heads, n_layers, cardinality, segment_s)
    config = replace(
        config,
        codec=replace(
            config.codec, n_filters=n_filters, latent_dim=latent_dim, sample_rate_hz=codec[0], ratios=codec[1]
        ),
        text=TextConfig(text, TEXT_DIMS[text]),
        melody=config.melody and replace(config.melody, chords=chords),
    )
    parts = _parts(config, text_layers, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.part"
    try:
        draft.mkdir()
        FORMATS[format](draft, config, parts)
        write_json(draft / MARKER, {"about": "untrained random weights: sounds like noise", "seed": seed})
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _config(
    name: str, stereo: bool, melody: bool, dim: int, n_heads: int, n_layers: int, cardinality: int, segment_s: float
) -> ModelConfig:
    channels, (rate_hz, ratios) = 2 if stereo else 1, MUSIC
    return ModelConfig(
        name=name,
        lm=LMConfig(
            dim=dim,
            n_heads=n_heads,
            n_layers=n_layers,
            ffn_dim=4 * dim,
            n_codebooks=4 * channels,
            cardinality=cardinality,
            delays=delays_for(4 * channels, channels),
            cross_attention=not melody,
        ),
        codec=CodecConfig(rate_hz, ratios, 4 * channels, cardinality, channels=channels),
        text=TextConfig("t5-small", TEXT_DIMS["t5-small"]),
        melody=MelodyConfig(n_frames=1 + int(segment_s * rate_hz) // (2**14 // 4)) if melody else None,
        segment_s=segment_s,
    )


# --- weights


def _parts(config: ModelConfig, text_layers: int, seed: int) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    # Published language models are float16: rounding here makes both formats hold the same numbers.
    return Parts(
        lm={name: _lm_weight(name, shape, generator) for name, shape in lm_shapes(config.lm).items()},
        conditioner={name: _lm_weight(name, shape, generator) for name, shape in conditioner_shapes(config).items()},
        codec={name: _codec_weight(name, shape, generator) for name, shape in codec_shapes(config.codec).items()},
        text=text_weights(config.text.dim, text_layers, generator),
        text_layers=text_layers,
    )


def _lm_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        weight = 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
    elif name == "embeddings":
        weight = 0.5 * noise
    elif name.endswith("bias"):
        weight = 0.1 * noise
    else:
        # Logits spread by about 2: sampling has something to choose, and no code is the only choice.
        weight = noise * (2.0 if name == "heads.weight" else 1.0) / math.sqrt(shape[-1])
    return weight.half().float()


def _codec_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Scaled so that the signal keeps its level from layer to layer, and ends well inside -1..1."""
    noise = torch.randn(shape, generator=generator)
    if name.startswith("quantizer"):
        return noise * 0.6 ** int(name.split(".")[2])  # each codebook refines the one before
    if "bias" in name:
        return 0.02 * noise
    if ".lstm." in name:
        return noise / math.sqrt(shape[1])
    n_in = shape[1] * shape[2]
    if name.startswith("decoder") and ".block." not in name and shape[2] > 7:
        n_in = shape[0] * 2  # a transposed convolution: two of its taps meet in each sample
    gain = 0.07 if shape[0] == 1 else 1.2
    return gain * noise / math.sqrt(n_in)
