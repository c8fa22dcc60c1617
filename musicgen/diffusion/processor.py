"""Rescaling of a diffused band to the levels of the audio."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .bands import apply_filter, weighted
from .config import ProcessorConfig


class Processor(nn.Module):
    """Filter that gives each frequency band its level in training. Source: audiocraft `MultiBandProcessor`."""

    counts: Tensor  # [1] samples of the training
    sum_x: Tensor  # [n_bands]
    sum_x2: Tensor  # [n_bands]
    sum_target_x2: Tensor  # [n_bands]
    filters: Tensor  # [n_bands - 1, 1, n_taps]

    def __init__(self, config: ProcessorConfig):
        super().__init__()
        self.config = config
        self.register_buffer("counts", torch.empty(1))
        for name in ("sum_x", "sum_x2", "sum_target_x2"):
            self.register_buffer(name, torch.empty(config.n_bands))
        self.register_buffer("filters", torch.empty(config.n_bands - 1, 1, config.n_taps))

    def gains(self) -> Tensor:
        """Gains [n_bands] of the frequency bands."""
        mean = self.sum_x / self.counts
        deviation = (self.sum_x2 / self.counts - mean**2).clamp(min=0).sqrt()
        # audiocraft calls it target_std and takes no root: the models were trained with the variance.
        return (deviation / (self.sum_target_x2 / self.counts)) ** self.config.power_std

    def check(self, source: str) -> None:
        """CheckpointError, naming `source`, unless the levels are numbers."""
        if not self.gains().isfinite().all():
            raise CheckpointError(f"{source}: the levels of its processor (counts, sum_x, ...) are empty or damaged")

    def forward(self, x: Tensor, tick: Callable[[], None]) -> Tensor:
        """Rescale x [B, L]; tick is called between blocks."""
        taps = weighted(self.filters[:, 0], self.gains())
        return apply_filter(x, taps, tick).add_((self.sum_x / self.counts).sum())
