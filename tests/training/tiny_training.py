"""The recipe's models at sizes that tests can afford."""

from dataclasses import replace

import numpy as np
import torch
from comfyui_musicgen.training.lm.model import MusicGen
from comfyui_musicgen.training.lm.scored import TEXT_TARGETS
from comfyui_musicgen.training.lm.scored_train import Shelf
from comfyui_musicgen.training.lm.text import t5_table
from comfyui_musicgen.training.onegpu.recipe import REHEARSAL
from comfyui_musicgen.training.recipe import CODEC, model_config

TINY = replace(CODEC, n_filters=2, latent_dim=16, codebook_size=32)


def model(tokenizer, dim=240, n_heads=5, n_layers=2):
    torch.manual_seed(0)
    return MusicGen(model_config(dim, n_heads, n_layers, TINY), t5_table(tokenizer))


def one_clip(frames: torch.Tensor) -> Shelf:
    """One clip whose codes are the numbers of their frames."""
    t, f = frames.shape[2], REHEARSAL.n_chroma_frames
    return Shelf(
        torch.arange(t).expand(1, 4, t).short(), torch.zeros(1, f, dtype=torch.int16), torch.zeros(1, f, dtype=torch.uint8),
        frames, torch.zeros(1, 1, 8, dtype=torch.int16), np.ones((1, 1), int), torch.zeros(1, 1, len(TEXT_TARGETS), dtype=torch.uint8),
    )  # fmt: skip
