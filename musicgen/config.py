"""Frozen descriptions of a model and of one generation. Checked when made, passed per call."""

import math
from dataclasses import dataclass, replace

from .errors import CheckpointError, InputError

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")
MAX_SEED = 2**64 - 1
MAX_CODEC_WIDTH = 2**16  # published codecs are 1,024 wide


@dataclass(frozen=True)
class LMConfig:
    """Shape of the language model, a pre-norm decoder over K parallel codebooks.

    Source: audiocraft `LMModel` / `StreamingTransformer` with the options of every published
    checkpoint (no biases, exact GELU, sinusoidal positions).
    """

    dim: int  # D, width of the residual stream
    n_heads: int
    n_layers: int
    ffn_dim: int
    n_codebooks: int  # K: 4 mono, 8 stereo
    cardinality: int  # entries of a codebook; the special token's id is `cardinality`
    delays: tuple[int, ...]  # one per codebook, ascending
    cross_attention: bool  # True: text is attended to; False: conditioning is put in front of the codes

    def __post_init__(self) -> None:
        for name in ("dim", "n_heads", "n_layers", "ffn_dim", "n_codebooks", "cardinality"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CheckpointError(f"language model {name} must be a positive integer, got {value!r}")
        if self.dim % self.n_heads or self.dim % 2 or self.dim < 4:
            raise CheckpointError(
                f"language model width {self.dim} must be even and a multiple of its {self.n_heads} heads"
            )
        if len(self.delays) != self.n_codebooks or list(self.delays) != sorted(self.delays) or self.delays[0] < 0:
            raise CheckpointError(
                f"delays {self.delays} must be {self.n_codebooks} ascending numbers from 0 upwards, one for each codebook"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def max_delay(self) -> int:
        return max(self.delays)


@dataclass(frozen=True)
class CodecConfig:
    """EnCodec of one channel, and how many of them run side by side (2 = stereo, interleaved)."""

    sample_rate_hz: int
    ratios: tuple[int, ...]  # strides of the decoder's up-sampling, first to last
    n_codebooks: int  # of the codec as a whole: 4 mono, 8 stereo
    codebook_size: int
    n_filters: int = 64
    latent_dim: int = 128
    n_residual_layers: int = 1
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2
    compress: int = 2
    lstm_layers: int = 2
    causal: bool = False
    conv_shortcut: bool = False
    pad_mode: str = "reflect"
    trim_right_ratio: float = 1.0
    channels: int = 1  # of the audio: 2 = left and right each through the same codec
    fingerprint: str = ""  # digest of the codebooks, filled in at load

    def __post_init__(self) -> None:
        if self.channels not in (1, 2) or self.n_codebooks % self.channels:
            raise CheckpointError(
                f"a codec has 1 or 2 channels sharing its codebooks evenly, got {self.channels} and {self.n_codebooks}"
            )
        if (width := self.n_filters * 2 ** len(self.ratios)) > MAX_CODEC_WIDTH:
            raise CheckpointError(
                f"a codec of {self.n_filters} filters and {len(self.ratios)} ratios is {width} wide; at most "
                f"{MAX_CODEC_WIDTH} are supported"
            )

    @property
    def hop(self) -> int:
        """Samples in a frame."""
        return math.prod(self.ratios)

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop

    @property
    def identity(self) -> str:
        """Names the codec in messages; codes fit a decoder only if both identities are equal."""
        layout = "stereo" if self.channels == 2 else "mono"
        rate = f"{self.sample_rate_hz / 1000:g} kHz"
        return f"EnCodec {rate} {layout}, {self.n_codebooks} codebooks of {self.codebook_size} [{self.fingerprint or 'no weights'}]"


@dataclass(frozen=True)
class TextConfig:
    """The text encoder that a checkpoint was trained with."""

    name: str  # as on the Hugging Face hub: t5-base, t5-large, google/flan-t5-base
    dim: int  # width of its last hidden state


@dataclass(frozen=True)
class MelodyConfig:
    """Chroma features of a melody model. Source: audiocraft `ChromaStemConditioner`."""

    n_chroma: int = 12
    radix2_exp: int = 14
    n_frames: int = 235  # length that every melody is tiled or cut to


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a checkpoint but its weights."""

    name: str
    lm: LMConfig
    codec: CodecConfig
    text: TextConfig
    melody: MelodyConfig | None = None
    segment_s: float = 30.0  # the longest window that the model was trained on
    extend_stride_s: float = 18.0  # default hop of the windows of longer pieces

    def __post_init__(self) -> None:
        if self.lm.n_codebooks != self.codec.n_codebooks:
            raise CheckpointError(
                f"{self.name}: the language model has {self.lm.n_codebooks} codebooks, its codec {self.codec.n_codebooks}"
            )
        if self.lm.cardinality != self.codec.codebook_size:
            raise CheckpointError(
                f"{self.name}: the language model has {self.lm.cardinality} codes a codebook, its codec {self.codec.codebook_size}"
            )
        if self.segment_s <= 0:
            raise CheckpointError(f"{self.name}: segment duration must be positive, got {self.segment_s}")
        if self.melody and self.lm.cross_attention:
            raise CheckpointError(f"{self.name}: melody conditioning together with cross-attention is not supported")


def _check_number(name: str, value: float, low: float, high: float, hint: str = "") -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        raise InputError(f"'{name}' must be a number from {low:g} to {high:g}{hint}, got {value!r}")


@dataclass(frozen=True)
class GenerationParams:
    """One request to the language model. Ranges are those of the sampler node."""

    duration_s: float = 8.0  # of the whole result, a continued prompt included
    seed: int = 0
    top_k: int = 250  # 0 = off
    top_p: float = 0.0  # 0 = off; otherwise takes precedence over top_k
    temperature: float = 1.0  # 0 = greedy
    cfg: float = 3.0  # classifier-free guidance; 1 = off
    batch_size: int = 1
    extend_stride_s: float = 18.0

    def __post_init__(self) -> None:
        _check_number("duration_s", self.duration_s, 0.02, 3600, " seconds")
        for name, high in (("seed", MAX_SEED), ("top_k", 2**31 - 1), ("batch_size", 64)):
            value = getattr(self, name)
            low = 1 if name == "batch_size" else 0
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"'{name}' must be a whole number from {low} to {high}, got {value!r}")
        _check_number("top_p", self.top_p, 0, 1, " (0 = off)")
        _check_number("temperature", self.temperature, 0, 10, " (0 = greedy)")
        _check_number("cfg", self.cfg, 0, 20, " (1 = off)")
        _check_number("extend_stride_s", self.extend_stride_s, 0.02, 3600, " seconds")


def delays_for(n_codebooks: int, channels: int) -> tuple[int, ...]:
    """The published delay pattern: 0..K-1, each doubled for stereo."""
    return tuple(k // channels for k in range(n_codebooks))


def with_fingerprint(config: ModelConfig, fingerprint: str, name: str | None = None) -> ModelConfig:
    """The configuration of a loaded checkpoint: its codec identified, and under the name it was asked for."""
    return replace(config, name=name or config.name, codec=replace(config.codec, fingerprint=fingerprint))
