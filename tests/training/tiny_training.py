"""The recipe's models at sizes that tests can afford."""

from dataclasses import replace

import torch
from comfyui_musicgen.training.lm.model import MusicGen
from comfyui_musicgen.training.lm.text import t5_table
from comfyui_musicgen.training.recipe import CODEC, model_config

TINY = replace(CODEC, n_filters=2, latent_dim=16, codebook_size=32)


def model(tokenizer, dim=240, n_heads=5, n_layers=2):
    torch.manual_seed(0)
    return MusicGen(model_config(dim, n_heads, n_layers, TINY), t5_table(tokenizer))
