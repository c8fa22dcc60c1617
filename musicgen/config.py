"""Frozen descriptions of a model and of one generation. Checked when made, passed per call."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

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
    n_rows: int = 0  # that every shorter text is filled up to, with rows of zeros; published models: 0


@dataclass(frozen=True)
class MelodyConfig:
    """Chroma features of a melody model, or of a chord model. Source: audiocraft `ChromaStemConditioner`."""

    n_chroma: int = 12
    radix2_exp: int = 14
    n_frames: int = 235  # length that every melody is tiled or cut to
    chords: bool = False  # trained on rows of chords (`ChromaChordConditioner`), and zeros where there are none


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
    anchor_s: float = 0.0  # `GenerationParams.anchor_s` of longer pieces, where none is asked for
    change_s: float | None = None  # of the music before a change of text, what is seen after it; None: all of a window

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


@dataclass(frozen=True)
class Parameter:
    """One setting of a generation, as the sampler node, the command line and the Replicate fields offer it."""

    default: float  # an int where only whole numbers are taken
    low: float  # range that is offered
    high: float
    step: float
    description: str  # with its unit
    note: str = ""  # what an error adds to the range: the unit, or what a special value means
    limits: tuple[float, float] | None = None  # range that the engine takes, where wider than the one offered

    @property
    def is_whole(self) -> bool:
        return isinstance(self.default, int)

    def check(self, name: str, value: float) -> None:
        """InputError unless `value` is a number that the engine takes."""
        low, high = self.limits or (self.low, self.high)
        types = int if self.is_whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:  # NaN is in no range
            allowed = f"a whole number from {low} to {high}" if self.is_whole else f"a number from {low:g} to {high:g}"
            raise InputError(f"'{name}' must be {allowed}{self.note}, got {value!r}")


def check_text(name: str, text: str | None) -> None:
    """InputError for text that no encoding holds: half of a surrogate pair, as broken JSON has."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise InputError(
            f"'{name}' holds {half!a} (U+{ord(half):04X}, half of a character) at position {error.start + 1}. Type it anew."
        ) from error


def _parameter(*values: Any, **options: Any) -> Any:
    entry = Parameter(*values, **options)
    return field(default=entry.default, metadata={"parameter": entry})


@dataclass(frozen=True)
class GenerationParams:
    """One request to the language model. Each line: default, lowest, highest, step, description."""

    duration_s: float = _parameter(
        8.0, 0.1, 3600, 0.1,
        "Length of the whole result in seconds, the continued clip included.",
        note=" seconds", limits=(0.02, 3600),
    )  # fmt: skip
    seed: int = _parameter(
        0, 0, MAX_SEED, 1,
        "Decides the random choices (no unit). Same seed and settings, same music.",
    )  # fmt: skip
    top_k: int = _parameter(
        250, 0, 2048, 1,
        "Choose among this many most likely codes (a count). Lower is safer and more repetitive. 0 = off, all of them. "
        "Ignored while top_p is on.",
        limits=(0, 2**31 - 1),
    )  # fmt: skip
    top_p: float = _parameter(
        0.0, 0, 1, 0.01,
        "Choose among the likeliest codes that together reach this probability (0 to 1). 0 = off, top_k is used.",
        note=" (0 = off)",
    )  # fmt: skip
    temperature: float = _parameter(
        1.0, 0, 10, 0.01,
        "How adventurous the choices are (a factor, 1 = as trained). 0 = always the likeliest code, without chance.",
        note=" (0 = greedy)",
    )  # fmt: skip
    cfg: float = _parameter(
        3.0, 0, 20, 0.1,
        "Classifier-free guidance: how strictly the description is followed (a factor). 1 = off and twice as light to "
        "compute.",
        note=" (1 = off)",
    )  # fmt: skip
    batch_size: int = _parameter(
        1, 1, 64, 1,
        "How many different takes to make at once (a count). On a CPU each is, bit for bit, the take that a smaller batch has in "
        "its place; on a GPU it may differ by rounding.",
    )  # fmt: skip
    extend_stride_s: float = _parameter(
        18.0, 1, 29, 0.1,
        "Only for music longer than the model's window: seconds of new music that each further window adds. Smaller "
        "remembers more of what came before, and takes longer. 18 also stands for the right stride of models with "
        "shorter windows.",
        note=" seconds", limits=(0.02, 3600),
    )  # fmt: skip
    anchor_s: float = _parameter(
        0.0, 0, 17, 0.1,
        "Only for music longer than the model's window: seconds of the piece's beginning that each further window sees "
        "besides the latest music, against drift. Each adds so much less, so it takes longer. 0 = the model's own: 2 for general-mini, else none.",
        note=" seconds (0 = the model's own)", limits=(0, 3600),
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, parameter in PARAMETERS.items():
            parameter.check(name, getattr(self, name))


PARAMETERS: dict[str, Parameter] = {entry.name: entry.metadata["parameter"] for entry in fields(GenerationParams)}


def delays_for(n_codebooks: int, channels: int) -> tuple[int, ...]:
    """The published delay pattern: 0..K-1, each doubled for stereo."""
    return tuple(k // channels for k in range(n_codebooks))


def with_fingerprint(config: ModelConfig, fingerprint: str, name: str | None = None) -> ModelConfig:
    """The configuration of a loaded checkpoint: its codec identified, and under the name it was asked for."""
    return replace(config, name=name or config.name, codec=replace(config.codec, fingerprint=fingerprint))
