"""The delay pattern: codebook k runs delays[k] columns behind, so that one step writes one code of each.

K = 4, T = 4 frames, delays 0..3 (X = special token, column 0 is all special):

    k0: X t0 t1 t2 t3  X  X  X
    k1: X  X t0 t1 t2 t3  X  X
    k2: X  X  X t0 t1 t2 t3  X
    k3: X  X  X  X t0 t1 t2 t3

Column s of codebook k holds frame s - 1 - delays[k]. Source: audiocraft `DelayedPatternProvider`
(MusicGen, arXiv:2306.05284), in closed form.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

UNKNOWN = -1


def n_columns(n_frames: int, delays: Sequence[int]) -> int:
    """S, the columns that T frames take: T + max(delays) + 1."""
    return n_frames + max(delays) + 1


def first_column(n_prompt_frames: int, delays: Sequence[int]) -> int:
    """The first column that holds the frame after the prompt: where generation starts."""
    return 1 + n_prompt_frames + min(delays)


def delay(codes: Tensor, delays: Sequence[int], special: int) -> Tensor:
    """Shift codebooks apart: [B, K, T] -> [B, K, S]; cells without a frame hold `special`."""
    n_rows, n_codebooks, n_frames = codes.shape
    sequence = codes.new_full((n_rows, n_codebooks, n_columns(n_frames, delays)), special)
    for k, shift in enumerate(delays):
        sequence[:, k, 1 + shift : 1 + shift + n_frames] = codes[:, k]
    return sequence


def undelay(sequence: Tensor, delays: Sequence[int]) -> Tensor:
    """Realign codebooks: [B, K, S] -> [B, K, T], T = S - 1 - max(delays)."""
    n_frames = sequence.shape[-1] - 1 - max(delays)
    return torch.stack([sequence[:, k, 1 + d : 1 + d + n_frames] for k, d in enumerate(delays)], dim=1)
