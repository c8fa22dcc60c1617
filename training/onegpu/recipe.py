"""Sizes of the model that one GPU trains in a quarter of an hour: a file of at most 40 MB."""

from dataclasses import dataclass, replace

from ...musicgen.config import CodecConfig, ModelConfig
from ..lm.scored import FRAME_TARGETS, TEXT_TARGETS
from ..recipe import CLIP_S, CODEC, melody_of, model_config

NAME, CHORD_NAME = "general-mini", "chord-mini"
MAX_BYTES = 40_000_000
N_TEXTS, N_TOKENS = 12, 56  # descriptions of a clip, and the most tokens of one
N_ROWS = 40  # that texts are filled up to: longer than nearly all, so that a frame has one position whatever the text
VOCABULARY = 1800
PANSORI_EVERY = 5  # every fifth clip
EMPTY_TEXT_ID = 1  # of the end of a text


@dataclass(frozen=True)
class Recipe:
    """What a run is made of. The rehearsal is the same with small numbers."""

    codec: CodecConfig
    dim: int
    n_heads: int
    n_layers: int
    n_clips: int  # at most, held-out ones included
    n_held_out: int
    codec_batch: int
    codec_crop_s: float
    lm_batch: int
    first_clips: int  # before the codec begins
    adversary_filters: int = 16
    encode_batch: int = 48
    chords: bool = False  # the language model follows chords, as musicgen-chord does, and no melodies

    @property
    def name(self) -> str:
        return CHORD_NAME if self.chords else NAME

    @property
    def model(self) -> ModelConfig:
        config = model_config(self.dim, self.n_heads, self.n_layers, self.codec, self.chords)
        return replace(config, name=self.name, text=replace(config.text, n_rows=N_ROWS))

    @property
    def clip_length(self) -> int:
        return round(CLIP_S * self.codec.sample_rate_hz)

    @property
    def n_frames(self) -> int:
        return self.clip_length // self.codec.hop

    @property
    def n_chroma_frames(self) -> int:
        return melody_of(self.model).n_frames


FULL = Recipe(
    codec=replace(CODEC, n_filters=24, lstm_layers=1), dim=384, n_heads=6, n_layers=5, n_clips=30_000, n_held_out=256,
    codec_batch=48, codec_crop_s=1.2, lm_batch=160, first_clips=600,
)  # fmt: skip
TRIAL = replace(FULL, n_clips=1500, n_held_out=64, first_clips=200)  # the full sizes for a minute
REHEARSAL = Recipe(
    codec=replace(CODEC, n_filters=4, lstm_layers=1, codebook_size=16, latent_dim=16), dim=64, n_heads=2, n_layers=2,
    n_clips=14, n_held_out=4, codec_batch=2, codec_crop_s=0.6, lm_batch=2, first_clips=6, adversary_filters=4,
    encode_batch=2,
)  # fmt: skip

N_FRAME_TARGETS, N_TEXT_TARGETS = len(FRAME_TARGETS), len(TEXT_TARGETS)
