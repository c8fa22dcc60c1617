"""Hugging Face's format: a folder with `config.json` and `model.safetensors`, whole or in shards."""

import logging
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...conditioning.tokenizer import read_tokenizer
from ...config import CodecConfig, LMConfig, MelodyConfig, ModelConfig, TextConfig, delays_for
from ...errors import CheckpointError
from ..checkpoint import Checkpoint, TextEncoderSource
from ..containers.safetensors import WEIGHTS_FILE, read_folder
from ..settings import Settings
from ..weights.expected import conditioner_shapes
from ..weights.inventory import Inventory
from ..weights.lazy import Stored, Weight, identity, zeros
from .codec_options import read_codec
from .t5 import t5_config, take_t5

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
MODEL_TYPES = ("musicgen", "musicgen_melody")
SEGMENT_S = 30.0  # of every published MusicGen; the format does not say
MAX_BANDWIDTH = 10_000  # kbit/s

_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
_TEXT_NAMES = {512: "t5-small", 768: "t5-base", 1024: "t5-large"}
_PUBLISHED_DIMS = {1024, 1536, 2048}  # whose heads are all 64 wide

_LAYER = "decoder.model.decoder.layers.{i}."
LM_NAMES = {
    "embeddings": "decoder.model.decoder.embed_tokens.{k}.weight",
    "heads.weight": "decoder.lm_heads.{k}.weight",
    "norm.weight": "decoder.model.decoder.layer_norm.weight",
    "norm.bias": "decoder.model.decoder.layer_norm.bias",
    "layers.norm_self.weight": _LAYER + "self_attn_layer_norm.weight",
    "layers.norm_self.bias": _LAYER + "self_attn_layer_norm.bias",
    "layers.qkv.weight": tuple(f"{_LAYER}self_attn.{part}_proj.weight" for part in "qkv"),
    "layers.out.weight": _LAYER + "self_attn.out_proj.weight",
    "layers.norm_cross.weight": _LAYER + "encoder_attn_layer_norm.weight",
    "layers.norm_cross.bias": _LAYER + "encoder_attn_layer_norm.bias",
    "layers.cross_q.weight": _LAYER + "encoder_attn.q_proj.weight",
    "layers.cross_kv.weight": tuple(f"{_LAYER}encoder_attn.{part}_proj.weight" for part in "kv"),
    "layers.cross_out.weight": _LAYER + "encoder_attn.out_proj.weight",
    "layers.norm_ffn.weight": _LAYER + "final_layer_norm.weight",
    "layers.norm_ffn.bias": _LAYER + "final_layer_norm.bias",
    "layers.up.weight": _LAYER + "fc1.weight",
    "layers.down.weight": _LAYER + "fc2.weight",
}
PROJECTIONS = {"text_projection": "enc_to_dec_proj", "melody_projection": "audio_enc_to_dec_proj"}


def is_huggingface(folder: Path) -> bool:
    """True for a folder with a MusicGen in this format."""
    return _model_type(folder) in MODEL_TYPES


def is_encodec(folder: Path) -> bool:
    """True for a folder with an EnCodec by itself."""
    return _model_type(folder) == "encodec"


def _model_type(folder: Path) -> str | None:
    """The `model_type` of config.json; None without a readable one."""
    path = folder / CONFIG_FILE
    try:
        return str(Settings.from_json(path).get("model_type", None)) if path.is_file() else None
    except CheckpointError:
        return None


def open_huggingface(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`. CheckpointError for anything missing, damaged or unsupported."""
    settings = Settings.from_json(folder / CONFIG_FILE)
    model_type = settings.expect("model_type", *MODEL_TYPES)
    tensors = read_folder(folder)
    lm = lm_config(settings, cross_attention=model_type == "musicgen")
    channels = settings.section("decoder").integer("audio_channels", 1)
    if channels not in (1, 2):
        raise settings.wrong("decoder.audio_channels", channels, "1 or 2")
    text = settings.section("text_encoder")
    text.expect("model_type", "t5")
    config = ModelConfig(
        name=folder.name,
        lm=lm,
        codec=codec_config(settings.section("audio_encoder"), channels, lm.n_codebooks // channels),
        text=_text_config(text),
        melody=None if lm.cross_attention else _melody_config(settings),
        segment_s=SEGMENT_S,
    )
    inventory = Inventory(tensors, str(folder / WEIGHTS_FILE))
    lm_weights = inventory.take_lm(lm, LM_NAMES)
    # A table of positions in files of older versions. The engine computes audiocraft's, which is more exact.
    inventory.drop(r"decoder\.model\.decoder\.embed_positions\.weights?")
    conditioner = take_conditioner(inventory, config)
    text_encoder = _text_source(folder, text, inventory.take_prefix("text_encoder."))
    part = inventory.split("audio_encoder")
    codec_weights = part.take_codec(config.codec)
    inventory.check()
    part.check()
    origin = str(folder / WEIGHTS_FILE)
    return Checkpoint(folder, "huggingface", config, lm_weights, conditioner, codec_weights, text_encoder, origin)


def open_encodec(folder: Path, channels: int, n_active: int | None) -> tuple[CodecConfig, dict[str, Weight]]:
    """An EnCodec by itself, such as facebook/encodec_32khz, or that of a whole MusicGen, for checkpoints that name one."""
    settings = Settings.from_json(folder / CONFIG_FILE)
    inventory = Inventory(read_folder(folder), str(folder / WEIGHTS_FILE))
    if is_huggingface(folder):
        settings, inventory = settings.section("audio_encoder"), inventory.split("audio_encoder")
    config = codec_config(settings, channels, n_active)
    weights = inventory.take_codec(config)
    inventory.check()
    return config, weights


# --- settings; absent ones have the defaults of transformers, which leaves those out when it saves


def lm_config(settings: Settings, cross_attention: bool) -> LMConfig:
    decoder = settings.section("decoder")
    decoder.expect("activation_function", "gelu", default="gelu")
    decoder.expect("scale_embedding", False, default=False)
    dim = decoder.integer("hidden_size", 1024, most=2**16)
    n_heads = decoder.integer("num_attention_heads", 16, most=2**12)
    if dim in _PUBLISHED_DIMS and n_heads == 16 and dim != 16 * 64:
        # The first conversions of the medium and large models kept the default of 16 heads by mistake.
        logger.warning("%s says 16 heads for a width of %d; its heads are 64 wide: %d", settings.source, dim, dim // 64)
        n_heads = dim // 64
    n_codebooks = decoder.integer("num_codebooks", 4, most=64)
    channels = decoder.integer("audio_channels", 1, most=8)
    return LMConfig(
        dim=dim,
        n_heads=n_heads,
        n_layers=decoder.integer("num_hidden_layers", 24, most=1000),
        ffn_dim=decoder.integer("ffn_dim", 4096),
        n_codebooks=n_codebooks,
        cardinality=decoder.integer("vocab_size", 2048),
        delays=delays_for(n_codebooks, max(channels, 1)),
        cross_attention=cross_attention,
    )


def codec_config(codec: Settings, channels: int, n_active: int | None) -> CodecConfig:
    """EnCodec's shape from transformers' EncodecConfig; `channels` of it side by side, `n_active` codebooks each."""
    codec.expect("model_type", "encodec")
    codec.expect("audio_channels", 1, default=1)
    codec.expect("normalize", False, default=False)
    codec.expect("norm_type", "weight_norm", default="weight_norm")
    codec.expect("chunk_length_s", None, default=None)
    config = read_codec(codec, "huggingface", channels * (n_active or 1), channels)
    codec.expect("codebook_dim", config.latent_dim, None, default=None)
    n_available = _n_codebooks(codec, config)
    if n_active is None:
        return replace(config, n_codebooks=channels * n_available)
    if not 1 <= n_active <= n_available:
        raise CheckpointError(f"{codec.source}: {n_active} codebooks are needed, but the codec has {n_available}")
    return config


def _n_codebooks(codec: Settings, config: CodecConfig) -> int:
    """Number of codebooks of the codec's widest band. Source: transformers `EncodecConfig.num_quantizers`."""
    bandwidths: Any = codec.get("target_bandwidths", [1.5, 3.0, 6.0, 12.0, 24.0])
    sound = isinstance(bandwidths, list) and bandwidths and all(type(item) in (int, float) for item in bandwidths)
    if not sound or not all(0 < item <= MAX_BANDWIDTH for item in bandwidths) or config.codebook_size < 2:
        raise codec.wrong("target_bandwidths", bandwidths, f"a list of numbers above 0, up to {MAX_BANDWIDTH} kbit/s")
    bits = math.ceil(math.log2(config.codebook_size))
    return int(1000 * bandwidths[-1] // (math.ceil(config.sample_rate_hz / config.hop) * bits))


def _text_config(text: Settings) -> TextConfig:
    dim = text.integer("d_model", 512, most=2**16)
    name = text.get("_name_or_path", None)
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+(/[\w.-]+)?", name):
        name = _TEXT_NAMES.get(dim, f"T5 {dim} wide")
    return TextConfig(name=name, dim=dim)


def _melody_config(settings: Settings) -> MelodyConfig:
    return MelodyConfig(
        n_chroma=settings.integer("num_chroma", 12, most=256),
        n_frames=settings.integer("chroma_length", 235, most=2**16),
    )


# --- weights


def take_conditioner(inventory: Inventory, config: ModelConfig) -> dict[str, Weight]:
    weights = {}
    for name, shape in conditioner_shapes(config).items():
        module, _, part = name.partition(".")
        theirs = f"{PROJECTIONS[module]}.{part}"
        melody = config.melody if module == "melody_projection" else None
        n_in = melody.n_chroma if melody else config.text.dim
        if n_in == config.lm.dim and not inventory.has(theirs):
            # transformers leaves a projection out where both sides are equally wide.
            weights[name] = identity(n_in) if part == "weight" else zeros(n_in)
        else:
            weights[name] = inventory.take(theirs, shape)
    return weights


def _text_source(folder: Path, settings: Settings, tensors: dict[str, Stored]) -> TextEncoderSource:
    if not tensors:
        own = folder / "text_encoder"
        return TextEncoderSource(folder=own if own.is_dir() else None)
    config = t5_config(settings)
    weights = take_t5(tensors, config, f"{folder / WEIGHTS_FILE} (text_encoder)")
    has_tokenizer = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    tokenizer_json = read_tokenizer(folder) if has_tokenizer else ""
    return TextEncoderSource(config=config, weights=weights, tokenizer_json=tokenizer_json, origin=str(folder))
