"""A model that ships, as the start of a run: its checkpoints need not be kept."""

from pathlib import Path

import torch

from ..musicgen.codec import Codec
from ..musicgen.errors import InputError
from ..musicgen.loading import load
from . import runs
from .codec import train as codec_training
from .lm.train import LMTraining, Trainer
from .recipe import SHARPNESS, model_config

SUFFIX = ".safetensors"  # of a model that ships; other files are checkpoints of a run


def codec_of(path: Path) -> Codec:
    """The codec of a run's folder or checkpoint, or of a model that ships: the same numbers, so the same codes."""
    if path.suffix == SUFFIX:
        return load(path, "float32").codec
    return codec_training.finished(path / codec_training.CHECKPOINT if path.is_dir() else path)


@torch.no_grad()
def trainer_of(path: Path, plan: LMTraining) -> Trainer:
    """A run that begins with the language model and the text encoder of `path`, at step 0.

    The heads that ask what else the model knows do not ship: they begin anew (`Trainer.begin_with_heads`).
    InputError for a model of another recipe.
    """
    loaded = load(path, "float32")
    config = loaded.config.lm
    recipe = model_config(config.dim, config.n_heads, config.n_layers)
    if recipe.lm != config or loaded.config.melody != recipe.melody or loaded.config.text.dim != recipe.text.dim:
        raise InputError(f"{path} was not made by this recipe, so that its training cannot go on. Give another model.")
    encoder = loaded.conditioner.text_encoder
    trainer = Trainer(recipe, plan, encoder.tokenizer.text, runs.pick_device())
    for model in (trainer.model, trainer.average):
        model.lm.load_state_dict(loaded.model.lm.state_dict())
        model.lm.heads.weight.div_(SHARPNESS)
        model.text.t5.load_state_dict(encoder.encoder.state_dict())
        for name in ("text_projection", "melody_projection"):
            getattr(model, name).load_state_dict(getattr(loaded.conditioner, name).state_dict())
    return trainer
