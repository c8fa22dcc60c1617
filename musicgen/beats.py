"""Tempo of codes: a beat tracker that reads codes in place of sound, and what it says of a tempo that was asked for.

For models that bring one. It answers before anything is decoded: 8 s of codes take some 10 ms.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import CodecConfig
from .faults import Asked, Fault
from .tempo import pulse_of

N_PHASES = 16  # parts of a beat
_EMBEDDING, _WIDTH = 24, 48
_STRETCH_S, _LEAST_S = 8.0, 4.0  # that a tempo is measured in, and the shortest


class BeatTracker(nn.Module):
    """Codes [B, K, T] -> scores of the part of a beat in which each frame lies, [B, N_PHASES, T]."""

    def __init__(self, codec: CodecConfig) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.empty(codec.n_codebooks, codec.codebook_size, _EMBEDDING))
        self.onsets = nn.Conv1d(_EMBEDDING, _WIDTH, 7, padding=3)
        self.beats = nn.Conv1d(_WIDTH, _WIDTH, 9, padding=8, dilation=2)
        self.phases = nn.Conv1d(_WIDTH, N_PHASES, 1)

    def forward(self, codes: Tensor) -> Tensor:
        x = torch.stack([F.embedding(codes[:, k], table) for k, table in enumerate(self.embeddings)]).sum(dim=0)
        x = F.gelu(self.onsets(x.transpose(1, 2)))
        x = x + F.gelu(self.beats(x))
        return self.phases(x)

    @torch.inference_mode()
    def activation(self, codes: Tensor) -> Tensor:
        """Codes [K, T] -> how likely a beat begins around each frame, [T] float32 of mean 0."""
        shares = self(codes[None].long().to(self.embeddings.device))[0].float().softmax(dim=0)
        around = shares[0] + shares[1] + shares[-1]
        return (around - around.mean()).cpu()


@dataclass(frozen=True)
class Tempo:
    """What a card says of tempo. off: share of the asked one by which music may miss it, beside the half frame a beat that it may have to."""

    tracker: BeatTracker
    off: float
    tries: int  # seeds after the first, at most

    def fault(self, codes: Tensor, rate_hz: float, asked: Asked) -> Fault | None:
        """The first stretch of codes [1, K, T] that is heard in another tempo than its text names; None if there is none.

        Music without a pulse has no tempo to be wrong. Stretches are 8 s long, or as long as the text holds if that is less.
        """
        for start_s, end_s, bpm in asked.tempos:
            n = max(1, round((end_s - start_s) / _STRETCH_S))
            edges = [round((start_s + (end_s - start_s) * i / n) * rate_hz) for i in range(n + 1)]
            for first, last in pairwise(edges):
                if last - first < _LEAST_S * rate_hz:
                    continue
                heard = pulse_of(self.tracker.activation(codes[0, :, first:last]), 1 / rate_hz, bpm)
                if heard is not None and abs(heard[0] / bpm - 1) > self.off + bpm / 60 / rate_hz / 2:
                    return Fault(
                        first, f"plays about {heard[0]:.1f} bpm where {bpm:g} are asked for", f"played about {heard[0]:.1f} bpm where {bpm:g} were asked for",
                        "Take another seed, or measure takes by MusicGen Takes.",
                    )  # fmt: skip
        return None
