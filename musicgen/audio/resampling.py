"""Sample rates: julius' filters, in pieces, so that a long clip is never held several times over."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dependencies import require
from ..errors import InputError

_PIECE = 2**20  # samples that are converted at a time
# julius stores a full filter for each output phase. Above this many taps (64 MB) only nonzero taps are computed.
_MAX_FILTER_TAPS = 2**24
_DIRECT_BLOCK = 2**22  # products of a block where the filters are computed on the fly
_ZEROS, _ROLLOFF = 24, 0.945  # julius' defaults, which audiocraft uses


def resampled_pieces(samples: Tensor, from_hz: int, to_hz: int) -> Iterator[Tensor]:
    """[B, C, L] at `from_hz` -> pieces [B, C, n] at `to_hz`, floor(L * to / from) samples in all; a short clip is one."""
    length = samples.shape[-1]
    if length <= _PIECE or from_hz == to_hz:
        yield _resample(samples, from_hz, to_hz)
        return
    divisor = math.gcd(from_hz, to_hz)
    old, new = from_hz // divisor, to_hz // divisor
    # Pieces begin at whole multiples of `old` inputs, which are `new` outputs; around them is what the filter reaches.
    around = (math.ceil(_filter_width(old, new) / old) + 1) * old
    step = math.ceil(_PIECE / old) * old
    for start in range(0, length, step):
        before, n_outputs = min(start, around), min(step, length - start) * new // old
        piece = _resample(samples[..., start - before : start + step + around], from_hz, to_hz)
        first = before // old * new
        yield piece[..., first : first + n_outputs]


def _resample(samples: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Resample [B, C, L] to [B, C, floor(L * to / from)]. Source: julius `resample_frac`, as audiocraft calls it."""
    if from_hz == to_hz:
        return samples
    if samples.shape[-1] * to_hz < from_hz:
        raise InputError(
            f"audio of {samples.shape[-1]} samples at {from_hz} Hz is too short for {to_hz} Hz. Give longer audio."
        )
    divisor = math.gcd(from_hz, to_hz)
    old, new = from_hz // divisor, to_hz // divisor
    width = _filter_width(old, new)
    if new * (old + 2 * width) <= _MAX_FILTER_TAPS:
        julius = require("julius", f"Resampling audio from {from_hz} to {to_hz} Hz")
        return julius.resample_frac(samples, from_hz, to_hz)
    return _resample_direct(samples, old, new, width)


def _filter_width(old: int, new: int) -> int:
    """Inputs that an output depends on, to either side."""
    return math.ceil(_ZEROS * old / (min(old, new) * _ROLLOFF))


def _resample_direct(samples: Tensor, old: int, new: int, width: int) -> Tensor:
    """julius' resampling for rates with a small common divisor, whose stored filters would take gigabytes.

    Each output is a weighted sum of the 2 * width + 1 inputs around its time; all other taps are zero.
    """
    length = samples.shape[-1] * new // old
    padded = F.pad(samples, (width, width + 1), mode="replicate")
    scale = min(old, new) * _ROLLOFF
    taps = torch.arange(2 * width + 1, device=samples.device)
    block = max(1, _DIRECT_BLOCK // (taps.numel() * samples.shape[0] * samples.shape[1]))
    blocks = []
    for start in range(0, length, block):
        index = torch.arange(start, min(start + block, length), device=samples.device)
        nearest = index * old // new  # the input at or before the output's time
        offset = (index * old % new).to(torch.float64)[:, None] / (new * old)
        t = ((taps - width) / old - offset).mul_(scale).clamp_(-_ZEROS, _ZEROS)
        kernel = torch.sinc(t) * torch.cos(t * (math.pi / (2 * _ZEROS))) ** 2
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(samples.dtype)
        window = padded[..., nearest[:, None] + taps]  # [B, C, n, taps]
        blocks.append((window * kernel).sum(dim=-1))
    return torch.cat(blocks, dim=-1)
