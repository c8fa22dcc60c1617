"""The sizes of pansori-mini, chosen for two CPU cores and a file of 32 MB."""

from ..musicgen.config import CodecConfig, LMConfig, MelodyConfig, ModelConfig, TextConfig, delays_for

NAME = "pansori-mini"
CLIP_S = 10.0  # of training clips: the longest window that the model sees

# As published but for the widths: 32 kHz, 50 frames a second, 4 codebooks. Half their entries: the synthesizer's sounds
# are few, and the language model learns 1024 from less music than 2048.
CODEC = CodecConfig(
    sample_rate_hz=32000, ratios=(8, 5, 4, 4), n_codebooks=4, codebook_size=1024, n_filters=16, latent_dim=128
)

TEXT_DIM, TEXT_LAYERS = 192, 2
# What the heads are multiplied by in the file that ships: its temperature 1 is 0.8 of what was learnt. So small a model gives
# too much chance to codes that do not follow; each draws others after it, and guidance adds to it.
SHARPNESS = 1.25
MELODY_RADIX2 = 14  # windows of 16384 samples, as published


def melody_of(config: ModelConfig) -> MelodyConfig:
    """How a model of a recipe sees chroma: all of them do."""
    assert config.melody is not None
    return config.melody


def model_config(
    dim: int, n_heads: int, n_layers: int, codec: CodecConfig = CODEC, chords: bool = False
) -> ModelConfig:
    """A melody model (chroma and text in front of the codes) of a given size; chords: a chord model."""
    hop = 2**MELODY_RADIX2 // 4
    return ModelConfig(
        name=NAME,
        lm=LMConfig(
            dim=dim,
            n_heads=n_heads,
            n_layers=n_layers,
            ffn_dim=4 * dim,
            n_codebooks=codec.n_codebooks,
            cardinality=codec.codebook_size,
            delays=delays_for(codec.n_codebooks, codec.channels),
            cross_attention=False,
        ),
        codec=codec,
        text=TextConfig(f"{NAME}-t5", TEXT_DIM),
        melody=MelodyConfig(
            radix2_exp=MELODY_RADIX2, n_frames=1 + int(CLIP_S * codec.sample_rate_hz) // hop, chords=chords
        ),
        segment_s=CLIP_S,
        extend_stride_s=0.6 * CLIP_S,
    )
