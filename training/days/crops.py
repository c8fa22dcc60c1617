"""Batches of crops that follow from their number: a run that goes on needs to keep nothing but its step."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from .recipe import Days

_STREAM = 17  # keeps these draws apart from others
# A crop below this peak is drawn again. Losses are relative to a crop's level: one silent row in four gave most of the
# gradient, and a run from scratch diverged at its hundredth step.
_SILENT, _TRIES = 0.01, 8
Play = Callable[[int], np.ndarray]  # number of a training clip -> samples [L] float32


class Crops:
    """Batch `i` [B, L] float32 of training clips. Each pool of clips is cut whole, mixed, and dealt to some batches.

    The next pool is played in a thread while batches of this one are learnt from: FluidSynth runs without Python's lock.
    """

    def __init__(self, days: Days, play: Play, seed: int = 0) -> None:
        recipe = days.recipe
        self._play, self._n_clips, self._seed, self._batch_size = play, days.pool_clips, seed, recipe.codec_batch
        self._length = round(recipe.codec_crop_s * recipe.codec.frame_rate_hz) * recipe.codec.hop
        self._per_clip = max(1, (recipe.clip_length - self._length) // self._length)
        self.per_pool = self._n_clips * self._per_clip // self._batch_size  # batches
        self._thread = ThreadPoolExecutor(1)
        self._pools: dict[int, Future[np.ndarray]] = {}

    def batch(self, number: int) -> Tensor:
        pool, row = divmod(number, self.per_pool)
        self._pools = {p: future for p, future in self._pools.items() if p >= pool}
        for p in (pool, pool + 1):
            if p not in self._pools:
                self._pools[p] = self._thread.submit(self._pool, p)
        crops = self._pools[pool].result()
        return torch.from_numpy(crops[row * self._batch_size : (row + 1) * self._batch_size])

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _pool(self, number: int) -> np.ndarray:
        """All crops of a pool, [N, L], in the order in which they are dealt."""
        rng = np.random.default_rng([_STREAM, self._seed, number])
        crops = []
        for clip in range(number * self._n_clips, (number + 1) * self._n_clips):
            samples = self._play(clip)
            offset = rng.integers(len(samples) - self._per_clip * self._length + 1)
            crops += [self._crop(samples, offset + i * self._length, rng) for i in range(self._per_clip)]
        return np.stack(crops)[rng.permutation(len(crops))]

    def _crop(self, samples: np.ndarray, start: int, rng: np.random.Generator) -> np.ndarray:
        """From `start` on, or from elsewhere if there is nothing to hear."""
        for _ in range(_TRIES):
            crop = samples[start : start + self._length]
            if np.abs(crop).max() > _SILENT:
                break
            start = int(rng.integers(len(samples) - self._length + 1))
        return crop
