"""T5 text encoder: text to the last hidden states of its tokens."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..config import TextConfig
from ..dependencies import require
from ..foreign import guarded
from .tokenizer import Tokenizer


class TextEncoder(nn.Module):
    """A T5 encoder with its tokenizer: str -> [n, t], t its width; `</s>` is the last token.

    Source: audiocraft `T5Conditioner` (no truncation, no text normalization).
    """

    def __init__(self, encoder: nn.Module, tokenizer: Tokenizer):
        super().__init__()
        self.encoder = encoder.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @property
    def dim(self) -> int:
        return self.encoder.get_parameter("shared.weight").shape[1]

    @property
    def device(self) -> torch.device:
        return self.encoder.get_parameter("shared.weight").device

    @torch.inference_mode()
    def forward(self, text: str) -> Tensor:
        """Hidden states of one text, [n, t] float32. InputError for a text of more than 2048 tokens."""
        ids = torch.tensor([self.tokenizer.ids(text)], device=self.device)
        states = self.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        return states.last_hidden_state[0].float()


def filled_up(rows: Tensor, config: TextConfig) -> Tensor:
    """[..., n, D] projected states of a text -> [..., max(n, config.n_rows), D], with zeros after them.

    Codes come after the text: without this, a frame has another position after a longer text, and a model that was trained with
    texts of all lengths lags behind its melody after a short one. audiocraft has such zeros in a batch with a longer text.
    """
    return nn.functional.pad(rows, (0, 0, 0, max(0, config.n_rows - rows.shape[-2])))


def t5_encoder(config: Mapping) -> nn.Module:
    """transformers' T5EncoderModel, its weights not yet filled. `config`: arguments of T5Config, checked already."""
    library = require("transformers.models.t5.modeling_t5", "The text encoder", "transformers")
    with guarded("the settings of the text encoder", "describe no T5"):
        return library.T5EncoderModel(library.T5Config(**config))
