"""Clips in the GPU's memory: crops for the codec while more are rendered, then codes and chroma of all."""

import numpy as np
import torch
from torch import Tensor

from ...musicgen.codec import Codec
from ...musicgen.conditioning.chroma import chroma
from ..lm.scored_train import Shelf
from .clips import Clips

_LOOK_EVERY = 20  # batches


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
        self._train = torch.from_numpy(train[train >= self.clips.recipe.n_held_out]).to(self.device)
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
        there = np.flatnonzero(self._taken[: self.clips.recipe.n_held_out])[:n]
        return self.waves(torch.from_numpy(there).to(self.device))

    @torch.no_grad()
    def shelves(self, codec: Codec, deadline: float, clock) -> tuple[Shelf, Shelf]:
        """Codes, chroma and what the score knows of all clips: of the held-out split, and of the others. Stops at the deadline."""
        self.take()
        recipe, melody = self.clips.recipe, self.clips.recipe.model.melody
        index = np.flatnonzero(self._taken)
        codes, mixes = [], []
        n_done = 0
        for rows in np.split(index, range(recipe.encode_batch, len(index), recipe.encode_batch)):
            waves = self.waves(torch.from_numpy(rows).to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                latents = codec.encoder(waves[:, None]).float()
            codes.append(codec.quantizer.encode(latents).short())
            mixes.append(chroma(waves, recipe.codec.sample_rate_hz, melody, melody.n_frames).argmax(dim=-1).byte())
            n_done += len(rows)
            if clock() > deadline and n_done > 2 * recipe.n_held_out:
                break
        index = index[:n_done]
        codes, mixes = torch.cat(codes), torch.cat(mixes)
        held = index < recipe.n_held_out
        return tuple(self._shelf(index[mask], codes, mixes, mask) for mask in (held, ~held))

    def _shelf(self, index: np.ndarray, codes: Tensor, mixes: Tensor, mask: np.ndarray) -> Shelf:
        clips, chosen = self.clips, torch.from_numpy(mask).to(self.device)

        def moved(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array[index].copy()).to(self.device)

        return Shelf(
            codes[chosen], moved(clips.melody), moved(clips.chords), mixes[chosen], moved(clips.frames),
            moved(clips.ids), clips.lengths[index].astype(int), moved(clips.targets),
        )  # fmt: skip
