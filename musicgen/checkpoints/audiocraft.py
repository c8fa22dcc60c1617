"""Audiocraft's own format: a folder with `state_dict.bin` (language model) and `compression_state_dict.bin` (codec)."""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ..config import CodecConfig, LMConfig, MelodyConfig, ModelConfig, TextConfig
from ..errors import CheckpointError
from .checkpoint import Checkpoint, TextEncoderSource
from .huggingface import is_encodec, open_encodec
from .inventory import Inventory
from .layout import conditioner_shapes, lm_shapes
from .settings import Settings
from .torch_file import TorchFile
from .weight import Weight, join, stack

LM_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"

# Width of each text encoder's hidden states. Source: audiocraft `T5Conditioner.MODELS_DIMS`, with the hub's names.
TEXT_DIMS = {
    "t5-small": 512,
    "t5-base": 768,
    "t5-large": 1024,
    "t5-3b": 1024,
    "t5-11b": 1024,
    "google/flan-t5-small": 512,
    "google/flan-t5-base": 768,
    "google/flan-t5-large": 1024,
    "google/flan-t5-xl": 2048,
    "google/flan-t5-xxl": 4096,
}

# Options of the transformer: (setting, audiocraft's default, the values that every published model has).
_LM_OPTIONS = (
    ("bias_attn", True, (False,)),
    ("bias_ff", True, (False,)),
    ("bias_proj", True, (False,)),
    ("norm_first", False, (True,)),
    ("causal", False, (True,)),
    ("norm", "layer_norm", ("layer_norm",)),
    ("activation", "gelu", ("gelu",)),
    ("positional_embedding", "sin", ("sin",)),
    ("max_period", 10000, (10000,)),
    ("positional_scale", 1.0, (1.0,)),
    ("xpos", False, (False,)),
    ("layer_scale", None, (None,)),
    ("qk_layer_norm", False, (False,)),
    ("qk_layer_norm_cross", False, (False,)),
    ("kv_repeat", 1, (1,)),
    ("past_context", None, (None,)),
)

# Options that change training, speed or memory, but not the result of one forward pass.
_LM_NEUTRAL = {
    *("dropout", "attention_dropout", "emb_lr", "lr", "weight_decay", "checkpointing", "weight_init"),
    *("depthwise_init", "zero_bias_init", "custom", "memory_efficient", "attention_as_float32", "two_step_cfg"),
}
_LM_SIZES = {"dim", "num_heads", "num_layers", "hidden_scale", "n_q", "card", "q_modeling", "cross_attention"}

_CHROMA_OPTIONS = {
    *("sample_rate", "n_chroma", "radix2_exp", "argmax"),
    *("match_len_on_eval", "eval_wavs", "n_eval_wavs", "cache_path"),  # without effect on one generation
}


def open_audiocraft(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`. CheckpointError for anything missing, damaged, unsafe or unsupported."""
    for name in (LM_FILE, CODEC_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} has no {name}. A checkpoint in audiocraft's format consists of {LM_FILE} and {CODEC_FILE}; "
                "put both in that folder."
            )
    package = TorchFile(folder / LM_FILE)
    table = package.contents
    if not isinstance(table, dict) or "best_state" not in table or "xp.cfg" not in table:
        raise CheckpointError(
            f"{package.path} is no model exported by audiocraft: it has no 'best_state' with 'xp.cfg'. "
            "Export a training checkpoint with audiocraft.utils.export first."
        )
    settings = Settings.from_audiocraft(table["xp.cfg"], str(package.path))
    lm, stereo = lm_config(settings), _stereo(settings)
    n_active = settings.get("compression_model_n_q", None)
    if n_active is not None:
        n_active = settings.integer("compression_model_n_q", most=64)
    codec, codec_weights = _open_codec(folder, 2 if stereo else 1, n_active)
    segment_s = settings.number("dataset.segment_duration")
    config = ModelConfig(
        name=folder.name,
        lm=lm,
        codec=codec,
        text=_text_config(settings),
        melody=_melody_config(settings, codec.sample_rate_hz, segment_s),
        segment_s=segment_s,
        # The defaults of audiocraft's MusicGen (windows of 30 s) and AudioGen (10 s).
        extend_stride_s=18.0 if segment_s > 18 else segment_s / 5,
    )
    inventory = _inventory(package, _lm_name)
    lm_weights, conditioner = take_lm(inventory, config)
    inventory.check()
    own = folder / "text_encoder"
    text_encoder = TextEncoderSource(folder=own if own.is_dir() else None)
    return Checkpoint(folder, "audiocraft", config, lm_weights, conditioner, codec_weights, text_encoder)


# --- settings


def lm_config(settings: Settings) -> LMConfig:
    """The language model's shape. CheckpointError naming the first option that no published model uses."""
    settings.expect("lm_model", "transformer_lm")
    model = settings.section("transformer_lm")
    for key, default, allowed in _LM_OPTIONS:
        model.expect(key, *allowed, default=default)
    known = _LM_NEUTRAL | _LM_SIZES | {option[0] for option in _LM_OPTIONS}
    for key, value in model.table.items():
        if key not in known and value is not None:
            raise model.wrong(key, value, "a model without this setting")
    cross_attention = _fuser(settings)
    if not cross_attention:
        model.expect("cross_attention", False, default=False)
    dim, n_codebooks = model.integer("dim", most=2**16), model.integer("n_q", most=64)
    return LMConfig(
        dim=dim,
        n_heads=model.integer("num_heads", most=2**12),
        n_layers=model.integer("num_layers", most=1000),
        ffn_dim=int(model.number("hidden_scale", 4) * dim),
        n_codebooks=n_codebooks,
        cardinality=model.integer("card"),
        delays=_delays(settings, n_codebooks),
        cross_attention=cross_attention,
    )


def _delays(settings: Settings, n_codebooks: int) -> tuple[int, ...]:
    ascending = list(range(n_codebooks))
    if settings.get("codebooks_pattern.modeling", None) is None:
        # The oldest configs name the pattern in the model's own settings.
        settings.expect("transformer_lm.q_modeling", "delay")
        return tuple(ascending)
    settings.expect("codebooks_pattern.modeling", "delay")
    for key in ("flatten_first", "empty_initial"):
        settings.expect(f"codebooks_pattern.delay.{key}", 0, default=0)
    return settings.integers("codebooks_pattern.delay.delays", ascending)


def _fuser(settings: Settings) -> bool:
    """Whether text is attended to (True) or put in front together with the melody (False)."""
    fuser = settings.section("fuser")
    for key in ("sum", "input_interpolate"):
        fuser.expect(key, [], default=[])
    fuser.expect("cross_attention_pos_emb", False, default=False)
    conditions = set(settings.section("conditioners").table) - {"args"}
    cross, prepend = fuser.names("cross", []), fuser.names("prepend", [])
    if conditions == {"description"} and cross == ("description",) and not prepend:
        return True
    if conditions in ({"description"}, {"description", "self_wav"}) and set(prepend) == conditions and not cross:
        return False
    raise CheckpointError(
        f"{settings.source}: the conditions {sorted(conditions)} with fuser.cross {list(cross)} and fuser.prepend "
        f"{list(prepend)} are not supported. Known are 'description' as cross-attention, and 'self_wav' with "
        "'description' in front of the music."
    )


def _text_config(settings: Settings) -> TextConfig:
    settings.expect("conditioners.description.model", "t5")
    text = settings.section("conditioners.description.t5")
    text.expect("finetune", False, default=False)
    text.expect("normalize_text", False, default=False)
    name = text.expect("name", *TEXT_DIMS)
    return TextConfig(name=name, dim=TEXT_DIMS[name])


def _melody_config(settings: Settings, sample_rate_hz: int, segment_s: float) -> MelodyConfig | None:
    if settings.get("conditioners.self_wav", None) is None:
        return None
    settings.expect("conditioners.self_wav.model", "chroma_stem")
    chroma = settings.section("conditioners.self_wav.chroma_stem")
    for key, value in chroma.table.items():
        if key not in _CHROMA_OPTIONS and value is not None:
            raise chroma.wrong(key, value, "a model without this setting")
    chroma.expect("sample_rate", sample_rate_hz)
    chroma.expect("argmax", True, default=False)
    exponent = chroma.integer("radix2_exp", most=20)
    n_samples, window = int(sample_rate_hz * segment_s), 2**exponent
    return MelodyConfig(
        n_chroma=chroma.integer("n_chroma", most=256),
        radix2_exp=exponent,
        n_frames=1 + max(n_samples, window) // max(window // 4, 1),
    )


def _stereo(settings: Settings) -> bool:
    if not settings.expect("interleave_stereo_codebooks.use", True, False, default=False):
        return False
    settings.expect("interleave_stereo_codebooks.per_timestep", False, default=False)
    return True


def codec_config(settings: Settings, channels: int, n_active: int | None) -> CodecConfig:
    """EnCodec's shape from its own settings; `channels` of it run side by side, each with `n_active` codebooks."""
    settings.expect("compression_model", "encodec")
    settings.expect("encodec.autoencoder", "seanet")
    settings.expect("encodec.quantizer", "rvq")
    settings.expect("encodec.channels", 1)
    settings.expect("encodec.renormalize", False, default=False)
    net = settings.section("seanet")
    net.expect("channels", 1, default=1)
    net.expect("activation", "ELU", default="ELU")
    net.expect("activation_params", {"alpha": 1.0}, {"alpha": 1}, default={"alpha": 1.0})
    net.expect("norm", "weight_norm")
    net.expect("disable_norm_outer_blocks", 0, default=0)
    net.expect("encoder", {}, default={})
    net.expect("decoder.final_activation", None, default=None)
    causal = bool(net.expect("causal", True, False, default=False))
    n_codebooks = settings.integer("rvq.n_q", most=64)
    if n_active is not None and not 1 <= n_active <= n_codebooks:
        raise settings.wrong("rvq.n_q", n_codebooks, f"a codec of at least {n_active} codebooks")
    return CodecConfig(
        sample_rate_hz=settings.integer("encodec.sample_rate"),
        ratios=net.integers("ratios", least=1),
        n_codebooks=(n_active or n_codebooks) * channels,
        codebook_size=settings.integer("rvq.bins"),
        n_filters=net.integer("n_filters", most=2**12),
        latent_dim=net.integer("dimension", most=2**16),
        n_residual_layers=net.integer("n_residual_layers", most=16, least=0),
        kernel_size=net.integer("kernel_size", most=1000),
        last_kernel_size=net.integer("last_kernel_size", most=1000),
        residual_kernel_size=net.integer("residual_kernel_size", most=1000),
        dilation_base=net.integer("dilation_base", most=1000),
        compress=net.integer("compress", most=1000),
        lstm_layers=net.integer("lstm", most=16),
        causal=causal,
        conv_shortcut=not net.expect("true_skip", True, False, default=True),
        pad_mode=net.expect("pad_mode", "constant", "reflect", "replicate", default="reflect"),
        trim_right_ratio=net.number("decoder.trim_right_ratio", 1.0) if causal else 1.0,
        channels=channels,
    )


# --- weights


def _inventory(package: TorchFile, rename: Callable[[str], str]) -> Inventory:
    """The file's tensors under the names that `rename` gives them."""
    stored = package.tensors(package.contents["best_state"], "best_state")
    tensors = {rename(name): tensor for name, tensor in stored.items()}
    if len(tensors) != len(stored):
        raise CheckpointError(f"{package.path} holds some of its tensors twice, under an old and a new name")
    return Inventory(tensors, str(package.path))


def _lm_name(name: str) -> str:
    """Models trained with torch's own attention have `self_attn.mha.in_proj_weight`: the same without `mha.`"""
    return re.sub(r"(self_attn|cross_attention)\.mha\.", r"\1.", name)


def take_lm(inventory: Inventory, config: ModelConfig) -> tuple[dict[str, Weight], dict[str, Weight]]:
    """Weights of the language model and of the conditioner, from audiocraft's names."""
    lm, take = config.lm, inventory.take
    shapes = lm_shapes(lm)
    weights = {
        "embeddings": stack([take(f"emb.{k}.weight", shapes["embeddings"][1:]) for k in range(lm.n_codebooks)]),
        "heads.weight": join([take(f"linears.{k}.weight", (lm.cardinality, lm.dim)) for k in range(lm.n_codebooks)]),
    }
    for ours in ("norm.weight", "norm.bias"):
        weights[ours] = take(f"out_{ours}", shapes[ours])
    for i in range(lm.n_layers):
        ours, theirs = f"layers.{i}.", f"transformer.layers.{i}."
        for name, other in _LAYER_NAMES.items():
            if ours + name in shapes:
                weights[ours + name] = take(theirs + other, shapes[ours + name])
        if lm.cross_attention:
            packed = take(theirs + "cross_attention.in_proj_weight", (3 * lm.dim, lm.dim))
            weights[ours + "cross_q.weight"] = packed.rows(0, lm.dim)
            weights[ours + "cross_kv.weight"] = packed.rows(lm.dim, 3 * lm.dim)
    conditioner = {}
    for name, shape in conditioner_shapes(config).items():
        condition = "description" if name.startswith("text") else "self_wav"
        part = name.rpartition(".")[2]
        conditioner[name] = take(f"condition_provider.conditioners.{condition}.output_proj.{part}", shape)
    if config.melody:  # a Hann window, which the engine computes
        inventory.drop(r"condition_provider\.conditioners\.self_wav\.chroma\.spec\.window")
    return weights, conditioner


_LAYER_NAMES = {
    "norm_self.weight": "norm1.weight",
    "norm_self.bias": "norm1.bias",
    "qkv.weight": "self_attn.in_proj_weight",
    "out.weight": "self_attn.out_proj.weight",
    "norm_cross.weight": "norm_cross.weight",
    "norm_cross.bias": "norm_cross.bias",
    "cross_out.weight": "cross_attention.out_proj.weight",
    "norm_ffn.weight": "norm2.weight",
    "norm_ffn.bias": "norm2.bias",
    "up.weight": "linear1.weight",
    "down.weight": "linear2.weight",
}


def _open_codec(folder: Path, channels: int, n_active: int | None) -> tuple[CodecConfig, dict[str, Weight]]:
    package = TorchFile(folder / CODEC_FILE)
    table = package.contents
    if isinstance(table, dict) and "pretrained" in table:
        return _open_pointer(folder, table["pretrained"], channels, n_active)
    if not isinstance(table, dict) or "best_state" not in table or "xp.cfg" not in table:
        raise CheckpointError(
            f"{package.path} is no codec exported by audiocraft: it has neither 'best_state' with 'xp.cfg' nor the "
            "name of a published codec"
        )
    config = codec_config(Settings.from_audiocraft(table["xp.cfg"], str(package.path)), channels, n_active)
    inventory = _inventory(package, _codec_name)
    weights = inventory.take_codec(config)
    inventory.check()
    return config, weights


def _codec_name(name: str) -> str:
    """Audiocraft's name of a codec tensor -> that of transformers."""
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook.", name)
    return name.replace(".conv.conv.", ".conv.").replace(".convtr.convtr.", ".conv.")


def _open_pointer(
    folder: Path, name: object, channels: int, n_active: int | None
) -> tuple[CodecConfig, dict[str, Weight]]:
    """The codec that the checkpoint only names: a folder inside it, or beside it."""
    source = folder / CODEC_FILE
    # The name comes from a file of unknown origin: it must not lead to network shares or anywhere else.
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or ".." in PurePosixPath(name).parts:
        raise CheckpointError(f"{source} names a codec in an unusual way: {str(name)[:100]!r}")
    short = PurePosixPath(name).name
    parents = (folder / name, folder / short, folder.parent / short, folder.parent / name, folder.parent.parent / name)
    for candidate in parents:
        if is_encodec(candidate):
            return open_encodec(candidate, channels, n_active)
        if candidate != folder and (candidate / CODEC_FILE).is_file() and "pretrained" not in _contents(candidate):
            return _open_codec(candidate, channels, n_active)
    raise CheckpointError(
        f"{source} holds no weights, only the name of the codec '{name}', which was not found in {folder} or beside "
        f"it. Download config.json and model.safetensors from https://huggingface.co/{name} into "
        f"{folder.parent / short}."
    )


def _contents(folder: Path) -> object:
    return TorchFile(folder / CODEC_FILE).contents
