"""A melody as the language model sees it: chroma frames, projected, for any window of a piece."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import MelodyConfig, ModelConfig
from ..errors import InputError
from .chroma import NO_ANCHOR, Anchor, chroma, tiled

if TYPE_CHECKING:
    from .conditioner import Conditioning

LONGEST_WINDOW_S = 60.0  # of published models: 30


def heard_until_s(start_s: float, end_s: float | None, duration_s: float) -> float:
    """Where a recording need not be read further, whose melody from `start_s` to `end_s` a piece of `duration_s` follows.

    No more can be followed than the music and one window after it. `end_s` of None or below 0 is the recording's end.
    """
    needed_s = start_s + duration_s + LONGEST_WINDOW_S
    return needed_s if end_s is None or end_s < 0 else min(end_s, needed_s)


def check_chroma(config: ModelConfig, leaves: "Sequence[Conditioning]", given: str, kind: str) -> MelodyConfig:
    """How the model of `config` sees chroma. InputError if it sees none, or if `leaves` are another conditioner's.

    given, kind: what was given, and the conditioning that it needs, for the message.
    """
    if config.melody is None:
        models = (
            "chord checkpoint (musicgen-chord, musicgen-stereo-chord, ...), or a melody"
            if "chord" in kind
            else "melody"
        )
        raise InputError(
            f"{given}, but {config.name} has no {kind} conditioning. Load a {models} checkpoint "
            "(musicgen-melody, musicgen-stereo-melody, ...), or leave them out."
        )
    for leaf in leaves:
        if leaf.null_melody is None or leaf.dim != config.lm.dim:
            raise InputError(
                f"'conditioning' was made by the conditioner of {leaf.model}, not by that of {config.name}. "
                "Connect the conditioner of the same Load MusicGen node."
            )
    return config.melody


@dataclass(frozen=True)
class Melody:
    """A reference melody with the projection of its chroma. On the CPU; shared, never altered in place."""

    samples: Tensor  # [L] float32, mono
    rate_hz: int
    segment_s: float  # the model's window
    config: MelodyConfig
    weight: Tensor  # [D, 12], the projection
    bias: Tensor  # [D]

    def chroma(self, start_s: float | None = None, anchor: Anchor = NO_ANCHOR) -> Tensor:
        """One-hot frames [n_frames, 12].

        start_s None: of the melody from its start, repeated or cut to the model's window. Otherwise of the
        window that starts there in a long piece, around which the melody is repeated. anchor: of such a window, what is
        earlier music at its start has the melody of its own time.
        Source: audiocraft `MusicGen._generate_tokens`, `ChromaStemConditioner._get_wav_embedding`.
        """
        samples = self.samples
        if start_s is not None:
            first = int(start_s * self.rate_hz)
            around = torch.arange(first, first + int(self.segment_s * self.rate_hz))
            around[: int(anchor[0] * self.rate_hz)] += int(anchor[1] * self.rate_hz) - first
            samples = samples[around % len(samples)]
        frames = chroma(samples, self.rate_hz, self.config, self.config.n_frames)
        return tiled(frames, self.config.n_frames)

    @torch.inference_mode()
    def embed(self, start_s: float | None = None, anchor: Anchor = NO_ANCHOR) -> Tensor:
        """The frames of `chroma`, projected: [n_frames, D]."""
        return torch.nn.functional.linear(self.chroma(start_s, anchor), self.weight, self.bias)
