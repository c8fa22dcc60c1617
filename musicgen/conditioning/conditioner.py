"""The conditioner: encoders with their projections into the language model's width."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ModelConfig
from ..errors import InputError
from .text import TextEncoder


@dataclass(frozen=True)
class Conditioning:
    """What B rows are conditioned on, in the width D of `model`. On the CPU; shared, never altered in place.

    The null rows of classifier-free guidance follow from it: zeros in place of the text, and `null_melody`
    in place of the melody.
    """

    text: tuple[Tensor, ...]  # a row each, [n, D] float32; the empty text is one zero vector
    melody: Tensor | None  # [F, D], the same for every row; None for models without melody conditioning
    null_melody: Tensor | None  # [F, D], what stands for no melody
    model: str  # name of the checkpoint, for messages

    @property
    def n_rows(self) -> int:
        return len(self.text)

    @property
    def dim(self) -> int:
        return self.text[0].shape[-1]

    def null(self) -> "Conditioning":
        """The reference's null rows: texts of zeros, as long as the ones they stand for; no melody."""
        return Conditioning(tuple(torch.zeros_like(row) for row in self.text), self.null_melody, self.null_melody, self.model)


class Conditioner(nn.Module):
    """Texts -> Conditioning. Source: audiocraft `ConditioningProvider` with its `output_proj` layers."""

    def __init__(self, config: ModelConfig, text_encoder: TextEncoder):
        super().__init__()
        self.config = config
        self.text_encoder = text_encoder
        dim = config.lm.dim
        self.text_projection = nn.Linear(config.text.dim, dim)
        if config.melody:
            self.melody_projection = nn.Linear(config.melody.n_chroma, dim)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str | None]) -> Conditioning:
        """One row a text. None and "" are the same: no text (a space is a text, as in the reference)."""
        if not texts:
            raise InputError("no text was given; give one text (it may be empty) for each clip")
        for text in texts:
            if text is not None and not isinstance(text, str):
                raise InputError(f"'text' must be a string, got {type(text).__name__}")
        null = self._null_melody()
        return Conditioning(tuple(self._row(text) for text in texts), null, null, self.config.name)

    def _row(self, text: str | None) -> Tensor:
        if not text:
            # audiocraft encodes "" as one token, then multiplies the projection, bias and all, by zero.
            return torch.zeros(1, self.config.lm.dim)
        return self.text_projection(self.text_encoder(text)).cpu()

    def _null_melody(self) -> Tensor | None:
        """The chroma of silence, projected: its one-hot argmax falls on the first bin in every frame."""
        melody = self.config.melody
        if melody is None:
            return None
        silence = F.one_hot(torch.zeros(1, dtype=torch.long), melody.n_chroma).float()
        row = self.melody_projection(silence.to(self.melody_projection.weight.device)).cpu()
        return row.expand(melody.n_frames, -1)
