"""Short pieces of synthesized clips for the codec, mixed so that a batch holds many clips."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..data.pieces import clip

_SOURCE_S = 5.0  # length of the clips that are cut
_POOL = 96  # crops to draw from


class Crops(IterableDataset):
    """Endless crops [L] float32. The numbers of the clips begin at `first_clip`, and no two workers use the same."""

    def __init__(self, crop_s: float, rate_hz: int, first_clip: int) -> None:
        self.crop_s, self.rate_hz, self.first_clip = crop_s, rate_hz, first_clip

    def __iter__(self) -> Iterator[Tensor]:
        info = get_worker_info()
        worker, n_workers = (info.id, info.num_workers) if info else (0, 1)
        rng = np.random.default_rng([self.first_clip, worker])
        length, number = int(self.crop_s * self.rate_hz), self.first_clip + worker
        pool: list[np.ndarray] = []
        while True:
            while len(pool) < _POOL:
                samples = clip("train", number, _SOURCE_S, self.rate_hz).samples
                number += n_workers
                offset = rng.integers(len(samples) % length + 1)
                crops = [samples[i : i + length] for i in range(offset, len(samples) - length + 1, length)]
                pool += [crop.copy() for crop in crops if np.abs(crop).max() > 0.01]
            yield torch.from_numpy(pool.pop(rng.integers(len(pool))))


def batches(crop_s: float, rate_hz: int, first_clip: int, batch_size: int, n_workers: int) -> Iterator[Tensor]:
    """Endless batches [B, L]; without workers they are made in this process."""
    if n_workers:
        torch.multiprocessing.set_sharing_strategy("file_system")
    return iter(DataLoader(Crops(crop_s, rate_hz, first_clip), batch_size=batch_size, num_workers=n_workers))


def held_out(n_clips: int, duration_s: float, rate_hz: int) -> Tensor:
    """The first clips of the held-out split, [n, L]."""
    return torch.stack([torch.from_numpy(clip("held-out", i, duration_s, rate_hz).samples) for i in range(n_clips)])
