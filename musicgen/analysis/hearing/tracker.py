"""Beats and downbeats by beat-this, with a checkpoint that the user has. The package brings none, and none is downloaded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from ...dependencies import require
from ...errors import InputError
from ...foreign import guarded


def track_with_model(
    mono: Tensor, rate_hz: int, checkpoint: Path, check: Callable[[float], None]
) -> tuple[np.ndarray, np.ndarray]:
    """(beats, downbeats) in seconds of mono samples [L]. check(share done) is called at each layer of the network.

    InputError without the file, DependencyError without beat-this, CheckpointError for a file of another kind; nothing of the
    file is run. Source: Foscarin, Schlueter and Widmer 2024, "Beat this! Accurate beat tracking without DBN postprocessing".
    """
    if not checkpoint.is_file():
        raise InputError(
            f"'beat_model' must be a file with a checkpoint of beat-this, but there is none at {str(checkpoint)!r}. The package "
            "brings no weights: download a checkpoint, or leave 'beat_model' empty for the built-in tracker."
        )
    inference = require("beat_this.inference", "Tracking beats with a checkpoint of beat-this", "beat-this")
    check(0.0)
    with guarded(str(checkpoint), "is no checkpoint of beat-this"):
        tracker = inference.Audio2Beats(checkpoint_path=str(checkpoint), device="cpu", dbn=False)
    for module in tracker.model.modules():
        module.register_forward_pre_hook(lambda module, inputs: check(0.5))
    beats_s, downbeats_s = tracker(mono.numpy(), rate_hz)
    return np.asarray(beats_s, dtype=float), np.asarray(downbeats_s, dtype=float)
