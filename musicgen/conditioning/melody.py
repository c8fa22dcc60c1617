"""A melody as the language model sees it: chroma frames, projected, for any window of a piece."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import MelodyConfig
from .chroma import chroma, tiled

LONGEST_WINDOW_S = 60.0  # of published models: 30


def heard_until_s(start_s: float, end_s: float | None, duration_s: float) -> float:
    """Where a recording need not be read further, whose melody from `start_s` to `end_s` a piece of `duration_s` follows.

    No more can be followed than the music and one window after it. `end_s` of None or below 0 is the recording's end.
    """
    needed_s = start_s + duration_s + LONGEST_WINDOW_S
    return needed_s if end_s is None or end_s < 0 else min(end_s, needed_s)


@dataclass(frozen=True)
class Melody:
    """A reference melody with the projection of its chroma. On the CPU; shared, never altered in place."""

    samples: Tensor  # [L] float32, mono
    rate_hz: int
    segment_s: float  # the model's window
    config: MelodyConfig
    weight: Tensor  # [D, 12], the projection
    bias: Tensor  # [D]

    def chroma(self, start_s: float | None = None, anchor_s: float = 0.0) -> Tensor:
        """One-hot frames [n_frames, 12].

        start_s None: of the melody from its start, repeated or cut to the model's window. Otherwise of the
        window that starts there in a long piece, around which the melody is repeated. anchor_s: of such a window, so
        much at its start is the piece's beginning, and has the melody's.
        Source: audiocraft `MusicGen._generate_tokens`, `ChromaStemConditioner._get_wav_embedding`.
        """
        samples = self.samples
        if start_s is not None:
            first = int(start_s * self.rate_hz)
            around = torch.arange(first, first + int(self.segment_s * self.rate_hz))
            around[: int(anchor_s * self.rate_hz)] -= first
            samples = samples[around % len(samples)]
        frames = chroma(samples, self.rate_hz, self.config, self.config.n_frames)
        return tiled(frames, self.config.n_frames)

    @torch.inference_mode()
    def embed(self, start_s: float | None = None, anchor_s: float = 0.0) -> Tensor:
        """The frames of `chroma`, projected: [n_frames, D]."""
        return torch.nn.functional.linear(self.chroma(start_s, anchor_s), self.weight, self.bias)
