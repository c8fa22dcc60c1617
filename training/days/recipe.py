"""Sizes for two cores: those of `onegpu.recipe.Recipe`, and over how much music each step goes."""

from dataclasses import dataclass, replace

from ..onegpu.recipe import Recipe
from ..recipe import CODEC


@dataclass(frozen=True)
class Days:
    """What a run of several days is made of. Times of training are hours of audio, so that a slow day changes nothing."""

    recipe: Recipe
    codec_hours: float  # of audio, over which the codec's learning rate falls
    lm_hours: float
    decoder_hours: float = 8.0  # likewise, of the decoder alone
    codec_rate: float = 3e-4  # peak learning rates, for batches of a few rows
    decoder_rate: float = 4e-4
    lm_rate: float = 1.2e-3
    average: float = 0.999  # of the language model's weights, per step
    guesses_from: float = 0.7  # share of its training from which some rows see its guesses
    guessed: float = 0.25  # share of these rows
    # The beat is learnt first, from text alone, and kept up with lessons; what else a text says is learnt from openings, bars
    # without a past. A step of either is as many frames as one of whole clips.
    first_lessons: int = 600
    cycle: tuple[str, ...] = (
        *("lesson", "opening", "clip", "lesson", "opening", "opening", "lesson", "opening"),
        *("lesson", "opening", "clip", "lesson", "opening", "clip", "lesson", "opening"),
    )
    opening_frames: int = 125
    pool_clips: int = 32  # whose crops are mixed
    shard_clips: int = 64

    @property
    def codec_steps(self) -> int:
        """After which the codec is done."""
        return self._codec_steps(self.codec_hours)

    @property
    def decoder_steps(self) -> int:
        """After which the decoder alone is done."""
        return self._codec_steps(self.decoder_hours)

    def _codec_steps(self, hours: float) -> int:
        return round(3600 * hours / (self.recipe.codec_batch * self.recipe.codec_crop_s))

    @property
    def lm_steps(self) -> int:
        return round(3600 * self.lm_hours / self.lm_batch_s)

    def kind(self, step: int) -> str:
        """What the language model learns from in a step: "lesson", "opening" or "clip"."""
        return "lesson" if step < self.first_lessons else self.cycle[step % len(self.cycle)]

    @property
    def opening_batch(self) -> int:
        return self.recipe.lm_batch * self.recipe.n_frames // self.opening_frames

    @property
    def lm_batch_s(self) -> float:
        """Audio that the language model learns from in a step."""
        return self.recipe.lm_batch * self.recipe.clip_length / self.recipe.codec.sample_rate_hz


DAYS = Days(
    Recipe(
        codec=replace(CODEC, n_filters=24), dim=256, n_heads=4, n_layers=6, n_clips=20_000, n_held_out=256,
        codec_batch=4, codec_crop_s=1.0, lm_batch=4, first_clips=0, adversary_filters=2, encode_batch=4,
    ),
    codec_hours=7.0, lm_hours=220.0,
)  # fmt: skip
