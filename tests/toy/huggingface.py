"""Writes a toy in Hugging Face's format: what transformers' `save_pretrained` makes of a MusicGen."""

import math
from pathlib import Path

from ...musicgen.config import CodecConfig, ModelConfig
from .parts import (
    Parts,
    Weights,
    codec_options,
    gain,
    save_safetensors,
    text_config,
    with_training_buffers,
    write_json,
    write_tokenizer,
)


def write(folder: Path, config: ModelConfig, parts: Parts) -> None:
    """config.json, model.safetensors with the text encoder in it, the tokenizer, and the settings beside them."""
    state = _lm_state(config, parts)
    state |= {f"audio_encoder.{name}": tensor for name, tensor in _codec_state(parts.codec).items()}
    state |= {f"text_encoder.{name}": tensor for name, tensor in parts.text.items()}
    save_safetensors(state, folder / "model.safetensors")
    write_json(folder / "config.json", _settings(config, parts))
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": config.lm.cardinality,
            "decoder_start_token_id": config.lm.cardinality,
            "pad_token_id": config.lm.cardinality,
            "do_sample": True,
            "guidance_scale": 3.0,
            "max_length": int(config.segment_s * config.codec.frame_rate_hz),
        },
    )
    write_json(folder / "preprocessor_config.json", _preprocessor(config))
    write_tokenizer(folder)


def _lm_state(config: ModelConfig, parts: Parts) -> Weights:
    """The engine's names -> transformers'."""
    lm, base = parts.lm, "decoder.model.decoder."
    heads = lm["heads.weight"].chunk(config.lm.n_codebooks)
    state = {f"{base}embed_tokens.{k}.weight": lm["embeddings"][k].clone() for k in range(config.lm.n_codebooks)}
    state |= {f"decoder.lm_heads.{k}.weight": head.clone() for k, head in enumerate(heads)}
    state |= {f"{base}layer_norm.{part}": lm[f"norm.{part}"] for part in ("weight", "bias")}
    names = {"norm_self": "self_attn_layer_norm", "norm_ffn": "final_layer_norm", "up": "fc1", "down": "fc2"}
    names |= {"norm_cross": "encoder_attn_layer_norm"}
    names |= {"out": "self_attn.out_proj", "cross_out": "encoder_attn.out_proj", "cross_q": "encoder_attn.q_proj"}
    for i in range(config.lm.n_layers):
        ours, theirs = f"layers.{i}.", f"{base}layers.{i}."
        for letter, rows in zip("qkv", lm[ours + "qkv.weight"].chunk(3), strict=True):
            state[f"{theirs}self_attn.{letter}_proj.weight"] = rows.clone()
        if config.lm.cross_attention:
            for letter, rows in zip("kv", lm[ours + "cross_kv.weight"].chunk(2), strict=True):
                state[f"{theirs}encoder_attn.{letter}_proj.weight"] = rows.clone()
        for name, other in names.items():
            for part in ("weight", "bias"):
                if f"{ours}{name}.{part}" in lm:
                    state[f"{theirs}{other}.{part}"] = lm[f"{ours}{name}.{part}"]
    for part in ("weight", "bias"):
        state[f"enc_to_dec_proj.{part}"] = parts.conditioner[f"text_projection.{part}"]
        if config.melody:
            state[f"audio_enc_to_dec_proj.{part}"] = parts.conditioner[f"melody_projection.{part}"]
    return state


def _codec_state(codec: Weights) -> Weights:
    state = {}
    for name, tensor in with_training_buffers(codec).items():
        if name.endswith(".conv.weight"):
            stem = name.removesuffix("weight") + "parametrizations.weight."
            state[stem + "original0"], state[stem + "original1"] = gain(tensor), tensor
        else:
            state[name] = tensor
    return state


def _settings(config: ModelConfig, parts: Parts) -> dict:
    melody = config.melody
    model_type = "musicgen_melody" if melody else "musicgen"
    architecture = "MusicgenMelodyForConditionalGeneration" if melody else "MusicgenForConditionalGeneration"
    lm = config.lm
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "is_encoder_decoder": True,
        "dtype": "float32",
        **({"num_chroma": melody.n_chroma, "chroma_length": melody.n_frames} if melody else {}),
        "text_encoder": text_config(config.text, parts),
        "audio_encoder": _codec_settings(config.codec),
        "decoder": {
            "model_type": f"{model_type}_decoder",
            "vocab_size": lm.cardinality,
            "hidden_size": lm.dim,
            "num_hidden_layers": lm.n_layers,
            "num_attention_heads": lm.n_heads,
            "ffn_dim": lm.ffn_dim,
            "activation_function": "gelu",
            "num_codebooks": lm.n_codebooks,
            "audio_channels": config.codec.channels,
            "scale_embedding": False,
            "max_position_embeddings": 2048,
            "dropout": 0.1,
            "layerdrop": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "initializer_factor": 0.02,
            "use_cache": True,
            "pad_token_id": lm.cardinality,
            "bos_token_id": lm.cardinality,
            "eos_token_id": None,
            "tie_word_embeddings": False,
        },
    }


def _codec_settings(codec: CodecConfig) -> dict:
    n_codebooks = codec.n_codebooks // codec.channels
    bits = math.ceil(math.log2(codec.codebook_size))
    return {
        "model_type": "encodec",
        **codec_options(codec, "huggingface"),
        "audio_channels": 1,
        "normalize": False,
        "chunk_length_s": None,
        "overlap": None,
        "norm_type": "weight_norm",
        "codebook_dim": codec.latent_dim,
        # kbit/s; transformers reads the number of codebooks from it
        "target_bandwidths": [n_codebooks * bits * math.ceil(codec.frame_rate_hz) / 1000],
    }


def _preprocessor(config: ModelConfig) -> dict:
    common = {"padding_side": "left", "padding_value": 0.0, "return_attention_mask": True}
    if config.melody is None:
        return {
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": config.codec.channels,
            "sampling_rate": config.codec.sample_rate_hz,
            "chunk_length_s": None,
            "overlap": None,
            **common,
        }
    n_fft = 2**config.melody.radix2_exp
    return {
        "feature_extractor_type": "MusicgenMelodyFeatureExtractor",
        "feature_size": config.melody.n_chroma,
        "num_chroma": config.melody.n_chroma,
        "sampling_rate": config.codec.sample_rate_hz,
        "n_fft": n_fft,
        "hop_length": n_fft // 4,
        "chunk_length": int(config.segment_s),
        **common,
    }
