"""Audiocraft's settings (`xp.cfg`) -> our configurations. Anything that no published model uses is refused by name."""

from ...config import CodecConfig, LMConfig, MelodyConfig, TextConfig
from ...errors import CheckpointError
from ..settings import Settings
from .codec_options import read_codec

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
    """True: text is attended to. False: it is put in front of the codes, together with the melody."""
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


def text_config(settings: Settings) -> TextConfig:
    settings.expect("conditioners.description.model", "t5")
    text = settings.section("conditioners.description.t5")
    text.expect("finetune", False, default=False)
    text.expect("normalize_text", False, default=False)
    name = text.expect("name", *TEXT_DIMS)
    return TextConfig(name=name, dim=TEXT_DIMS[name])


def melody_config(settings: Settings, sample_rate_hz: int, segment_s: float) -> MelodyConfig | None:
    if settings.get("conditioners.self_wav", None) is None:
        return None
    kind = settings.expect("conditioners.self_wav.model", "chroma_stem", "chroma_chord")
    chroma = settings.section(f"conditioners.self_wav.{kind}")
    for key, value in chroma.table.items():
        if key not in _CHROMA_OPTIONS and value is not None:
            raise chroma.wrong(key, value, "a model without this setting")
    chroma.expect("sample_rate", sample_rate_hz)
    if kind == "chroma_stem":  # the other does not read it: rows of chords have several notes
        chroma.expect("argmax", True, default=False)
    exponent = chroma.integer("radix2_exp", most=20)
    n_samples, window = int(sample_rate_hz * segment_s), 2**exponent
    return MelodyConfig(
        n_chroma=chroma.integer("n_chroma", most=256),
        radix2_exp=exponent,
        n_frames=1 + max(n_samples, window) // max(window // 4, 1),
        chords=kind == "chroma_chord",
    )


def is_stereo(settings: Settings) -> bool:
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
    n_codebooks = settings.integer("rvq.n_q", most=64)
    if n_active is not None and not 1 <= n_active <= n_codebooks:
        raise settings.wrong("rvq.n_q", n_codebooks, f"a codec of at least {n_active} codebooks")
    return read_codec(settings, "audiocraft", (n_active or n_codebooks) * channels, channels)
