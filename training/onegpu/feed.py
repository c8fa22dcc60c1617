"""Clips in the GPU's memory: crops for the codec while more are rendered, then codes and chroma of all."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...musicgen.codec import Codec
from ...musicgen.conditioning.chroma import chroma
from ..lm.scored_train import Shelf
from ..recipe import melody_of
from .clips import Clips

_LOOK_EVERY = 20  # batches
_AT_ONCE = 960  # clips that are coded between two looks at the clock
_GROWTH = 2400  # clips that are added to a shelf at once


class Feed:
    """The audio of clips as int16 on `device`, filled as clips come."""

    def __init__(self, clips: Clips, device: torch.device, seed: int = 0) -> None:
        self.clips, self.device = clips, device
        self._audio = torch.empty(clips.audio.shape, dtype=torch.int16, device=device)
        self._taken = np.zeros(len(clips.state), bool)
        self._train: Tensor = torch.empty(0, dtype=torch.long, device=device)
        self._generator = torch.Generator(device).manual_seed(seed)
        self._calls = 0

    def take(self) -> int:
        """Copy the clips that came since; how many there are."""
        ready = self.clips.ready()
        for index in ready[~self._taken[ready]]:
            self._audio[index].copy_(torch.from_numpy(self.clips.audio[index]))
            self._taken[index] = True
        train = np.flatnonzero(self._taken)
        self._train = torch.from_numpy(train[train >= self.clips.n_held_out]).to(self.device)
        return int(self._taken.sum())

    def crops(self) -> Tensor:
        """A batch of random crops [B, L] float32 of training clips."""
        recipe = self.clips.recipe
        if self._calls % _LOOK_EVERY == 0:
            self.take()
        self._calls += 1
        length = round(recipe.codec_crop_s * recipe.codec.frame_rate_hz) * recipe.codec.hop
        n = recipe.codec_batch

        def draw(high: int) -> Tensor:
            return torch.randint(high, (n,), generator=self._generator, device=self.device)

        rows, first = self._train[draw(len(self._train))], draw(self._audio.shape[1] - length + 1)
        return self.waves(rows[:, None], first[:, None] + torch.arange(length, device=self.device))

    def waves(self, *index: Tensor) -> Tensor:
        return self._audio[index].float() / 32767

    def held_out(self, n: int) -> Tensor:
        """[n, L] the first clips of the held-out split that are there."""
        there = np.flatnonzero(self._taken[: self.clips.n_held_out])[:n]
        return self.waves(torch.from_numpy(there).to(self.device))

    def shelves(self, codec: Codec, deadline: float, clock: Callable[[], float]) -> tuple[Shelf, Shelf]:
        """All clips that are there, of the held-out split and of the others; of the others fewer if the deadline comes before."""
        self.take()
        index = np.flatnonzero(self._taken)
        held = index < self.clips.n_held_out
        parts = [coded(self.clips, codec, index[held], self.device)]
        rest = index[~held]
        for rows in np.split(rest, range(_AT_ONCE, len(rest), _AT_ONCE)):
            parts.append(coded(self.clips, codec, rows, self.device))
            if clock() > deadline:
                break
        return parts[0], Shelf.joined(parts[1:])


class Growth:
    """Clips that are rendered while the language model trains, added to its shelf."""

    def __init__(self, clips: Clips, codec: Codec, device: torch.device) -> None:
        self.clips, self.codec, self.device = clips, codec, device
        self._taken = np.zeros(len(clips.state), bool)

    def __call__(self, shelf: Shelf) -> Shelf:
        ready = self.clips.ready()
        new = ready[~self._taken[ready]][:_GROWTH]
        if len(new) < min(self.clips.recipe.encode_batch, 32):
            return shelf
        self._taken[new] = True
        return Shelf.joined([shelf, coded(self.clips, self.codec, new, self.device)])


@torch.no_grad()
def coded(clips: Clips, codec: Codec, index: np.ndarray, device: torch.device) -> Shelf:
    """Codes, chroma and what the score knows of some clips."""
    recipe, melody = clips.recipe, melody_of(clips.recipe.model)
    codes, mixes = [], []
    for rows in np.split(index, range(recipe.encode_batch, len(index), recipe.encode_batch)):
        waves = torch.from_numpy(clips.audio[rows]).to(device).float() / 32767
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            latents = codec.encoder(waves[:, None])
        codes.append(codec.quantizer.encode(latents.float()).short())
        mixes.append(chroma(waves, recipe.codec.sample_rate_hz, melody, melody.n_frames).argmax(dim=-1).byte())

    def moved(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array[index]).to(device)

    return Shelf(
        torch.cat(codes), moved(clips.chords), torch.cat(mixes), moved(clips.frames),
        moved(clips.ids), clips.lengths[index].astype(int), moved(clips.targets),
    )  # fmt: skip
