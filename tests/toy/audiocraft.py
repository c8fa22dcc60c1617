"""Writes a toy in audiocraft's format: what its exporter makes of a trained model."""

import re
from pathlib import Path

import torch

from ...musicgen.config import CodecConfig, ModelConfig
from ...musicgen.dependencies import require
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

# Names of the tensors of the chord recogniser, from the state dict of the original's.
_RECOGNISER = Path(__file__).parents[1] / "data" / "chord_recogniser.txt"


def write(folder: Path, config: ModelConfig, parts: Parts) -> None:
    """state_dict.bin, compression_state_dict.bin, and the text encoder in a folder of its own."""
    lm = {name: tensor.half() for name, tensor in _lm_state(config, parts).items()}
    torch.save(_package(lm, _lm_settings(config)), folder / "state_dict.bin")
    codec = _package(_codec_state(parts.codec), _codec_settings(config.codec))
    torch.save(codec, folder / "compression_state_dict.bin")
    own = folder / "text_encoder"
    own.mkdir()
    save_safetensors(parts.text, own / "model.safetensors")
    write_json(own / "config.json", {"architectures": ["T5EncoderModel"], **text_config(config.text, parts)})
    write_tokenizer(own)


def _package(state: Weights, settings: dict) -> dict:
    yaml = require("yaml", "Writing audiocraft's checkpoints", "pyyaml")
    text = yaml.safe_dump(settings, sort_keys=False)
    return {"best_state": state, "xp.cfg": text, "version": "1.3.0", "exported": True}


def _lm_state(config: ModelConfig, parts: Parts) -> Weights:
    """The engine's names -> audiocraft's."""
    lm, conditioner = parts.lm, parts.conditioner
    k_range, provider = range(config.lm.n_codebooks), "condition_provider.conditioners."
    state = {f"emb.{k}.weight": lm["embeddings"][k] for k in k_range}
    heads = lm["heads.weight"].chunk(config.lm.n_codebooks)
    state |= {f"linears.{k}.weight": heads[k] for k in k_range}
    state |= {f"out_norm.{part}": lm[f"norm.{part}"] for part in ("weight", "bias")}
    names = {"norm_self": "norm1", "norm_ffn": "norm2", "norm_cross": "norm_cross", "up": "linear1", "down": "linear2"}
    names |= {"out": "self_attn.out_proj", "cross_out": "cross_attention.out_proj"}
    for i in range(config.lm.n_layers):
        ours, theirs = f"layers.{i}.", f"transformer.layers.{i}."
        state[theirs + "self_attn.in_proj_weight"] = lm[ours + "qkv.weight"]
        if config.lm.cross_attention:
            packed = torch.cat([lm[ours + "cross_q.weight"], lm[ours + "cross_kv.weight"]])
            state[theirs + "cross_attention.in_proj_weight"] = packed
        for name, other in names.items():
            for part in ("weight", "bias"):
                if f"{ours}{name}.{part}" in lm:
                    state[f"{theirs}{other}.{part}"] = lm[f"{ours}{name}.{part}"]
    for part in ("weight", "bias"):
        state[f"{provider}description.output_proj.{part}"] = conditioner[f"text_projection.{part}"]
        if config.melody:
            state[f"{provider}self_wav.output_proj.{part}"] = conditioner[f"melody_projection.{part}"]
    if config.melody and config.melody.chords:
        names = _RECOGNISER.read_text(encoding="utf-8").split()
        state |= {f"{provider}self_wav.{name}": torch.ones(2) for name in names}
    elif config.melody:
        state[f"{provider}self_wav.chroma.spec.window"] = torch.hann_window(2**config.melody.radix2_exp)
    return {name: tensor.clone() for name, tensor in state.items()}


def _codec_state(codec: Weights) -> Weights:
    state = {}
    for name, tensor in with_training_buffers(codec).items():
        name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
        name = re.sub(r"^quantizer\.layers\.(\d+)\.codebook\.", r"quantizer.vq.layers.\1._codebook.", name)
        if name.endswith((".conv.weight", ".conv.bias")):
            transposed = name.startswith("decoder") and ".block." not in name and _is_upsampling(codec, name)
            stem, _, part = name.rpartition(".conv.")
            inner = ".convtr.convtr." if transposed else ".conv.conv."
            if part == "weight":
                state[f"{stem}{inner}weight_g"], state[f"{stem}{inner}weight_v"] = gain(tensor), tensor
                continue
            name = f"{stem}{inner}{part}"
        state[name] = tensor
    return state


def _is_upsampling(codec: Weights, name: str) -> bool:
    """Whether a convolution of the decoder is one between its first and its last."""
    index = int(name.split(".")[2])
    last = max(int(other.split(".")[2]) for other in codec if other.startswith("decoder.layers."))
    return 0 < index < last


def _lm_settings(config: ModelConfig) -> dict:
    """What audiocraft 1.3.0's loaders read. Source: its config/solver/musicgen and config/conditioner files."""
    lm, melody = config.lm, config.melody is not None
    return {
        "device": "cuda",
        "dtype": "float32",
        "sample_rate": config.codec.sample_rate_hz,
        "channels": config.codec.channels,
        "compression_model_checkpoint": "//pretrained/facebook/encodec_32khz",
        "compression_model_n_q": None,
        "interleave_stereo_codebooks": {"use": config.codec.channels == 2, "per_timestep": False},
        "dataset": {"segment_duration": config.segment_s},
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
        "attribute_dropout": {},
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": ["self_wav", "description"] if melody else [],
            "cross": [] if melody else ["description"],
            "input_interpolate": [],
        },
        "conditioners": _conditioner_settings(config),
        "lm_model": "transformer_lm",
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {"delays": list(lm.delays), "flatten_first": 0, "empty_initial": 0},
        },
        "transformer_lm": {
            "dim": lm.dim,
            "num_heads": lm.n_heads,
            "num_layers": lm.n_layers,
            "hidden_scale": lm.ffn_dim // lm.dim,
            "n_q": lm.n_codebooks,
            "card": lm.cardinality,
            "dropout": 0.0,
            "emb_lr": None,
            "activation": "gelu",
            "norm_first": True,
            "bias_ff": False,
            "bias_attn": False,
            "bias_proj": False,
            "past_context": None,
            "causal": True,
            "custom": False,
            "memory_efficient": True,
            "attention_as_float32": False,
            "layer_scale": None,
            "positional_embedding": "sin",
            "xpos": False,
            "checkpointing": "none",
            "weight_init": "gaussian",
            "depthwise_init": "current",
            "zero_bias_init": True,
            "norm": "layer_norm",
            "cross_attention": False,
            "qk_layer_norm": False,
            "qk_layer_norm_cross": False,
            "attention_dropout": None,
            "kv_repeat": 1,
            "two_step_cfg": False,
        },
        # As in the published files: an entry that must not be resolved in order to read the others.
        "dora": {"dir": "/checkpoint/${oc.env:USER}/experiments"},
    }


def _conditioner_settings(config: ModelConfig) -> dict:
    text = {"name": config.text.name, "finetune": False, "word_dropout": 0.3, "normalize_text": False}
    description = {"model": "t5", "t5": text}
    if config.melody is None:
        return {"description": description}
    chroma = {
        "sample_rate": "${sample_rate}",
        "n_chroma": config.melody.n_chroma,
        "radix2_exp": config.melody.radix2_exp,
        "argmax": True,
        "match_len_on_eval": False,
        "eval_wavs": None,
        "n_eval_wavs": 100,
        "cache_path": None,
    }
    kind = "chroma_stem"
    if config.melody.chords:  # as in the original's chord2music.yaml
        kind, chroma["cache_path"] = "chroma_chord", "cache"
    return {"self_wav": {"model": kind, kind: chroma}, "description": description}


def _codec_settings(codec: CodecConfig) -> dict:
    options = {key: value for key, value in codec_options(codec, "audiocraft").items() if key.startswith("seanet.")}
    return {
        "device": "cuda",
        "sample_rate": codec.sample_rate_hz,
        "channels": 1,
        "compression_model": "encodec",
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": "${sample_rate}",
            "channels": "${channels}",
            "causal": codec.causal,
            "renormalize": False,
        },
        "seanet": {
            **{key.removeprefix("seanet."): value for key, value in options.items() if key.count(".") == 1},
            "channels": "${channels}",
            "causal": "${encodec.causal}",
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "norm": "weight_norm",
            "norm_params": {},
            "disable_norm_outer_blocks": 0,
            "decoder": {
                "trim_right_ratio": codec.trim_right_ratio,
                "final_activation": None,
                "final_activation_params": None,
            },
            "encoder": {},
        },
        "rvq": {
            "n_q": codec.n_codebooks // codec.channels,
            "q_dropout": False,
            "bins": codec.codebook_size,
            "decay": 0.99,
            "kmeans_init": True,
            "kmeans_iters": 50,
            "threshold_ema_dead_code": 2,
            "orthogonal_reg_weight": 0.0,
            "orthogonal_reg_active_codes_only": False,
        },
        "no_quant": {},
    }
