"""Loudness after ITU-R BS.1770-4, measured in stretches of a few seconds, so that it can be interrupted.

Source: torchaudio `functional.loudness`, which audiocraft measures with. Mended, where it fails: audio shorter than
one 0.4 s measuring block is repeated to fill one, more than five channels are measured on their mean.
"""

import functools
import math
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from ..dependencies import require

Check = Callable[[], None]

_BLOCK_S = 0.4
_STEP = 0.25  # of a block
_GATE_LUFS, _RELATIVE_GATE_DB = -70.0, -10.0
_BIAS_DB = -0.691
_WEIGHTS = (1.0, 1.0, 1.0, 1.41, 1.41)  # of the channels
# Gain, Q and frequency of the two filters that make up K-weighting.
_SHELF = (4.0, 1 / math.sqrt(2), 1500.0)
_HIGH_PASS = (0.0, 0.5, 38.0)
_LEAD_S = 0.5  # after which the filters have forgotten what came before, to below float32's rounding
_STRETCH = 2**18  # samples that are filtered at once
_HEADROOM = 0.5  # peak up to which the filters, which cut at full scale, leave the signal whole


def measure_lufs(samples: Tensor, rate_hz: int, check: Check | None = None, stretch: int = _STRETCH) -> float:
    """Integrated loudness of one clip [C, L]; -inf if every block lies below the gate of -70 LUFS.

    Filtered by torchaudio where it can be imported, else by pyloudnorm; both cut what exceeds full scale.
    `check` is called before each `stretch` of so many samples is filtered; what it raises ends the measurement.
    """
    if samples.shape[0] > len(_WEIGHTS):
        samples = samples.mean(dim=0, keepdim=True)
    block = round(_BLOCK_S * rate_hz)
    step = round(block * _STEP)
    if samples.shape[1] < block:
        samples = samples.repeat(1, math.ceil(block / samples.shape[1]))[:, :block]
    energy = _block_energies(samples, rate_hz, block, step, check or (lambda: None), stretch)  # [C, blocks]
    weights = torch.tensor(_WEIGHTS[: len(energy)], dtype=energy.dtype)
    lufs = _BIAS_DB + 10 * torch.log10(weights @ energy)
    gated = lufs > _GATE_LUFS
    if not gated.any():
        return -math.inf
    gate = _BIAS_DB + 10 * math.log10(weights @ energy[:, gated].mean(dim=1)) + _RELATIVE_GATE_DB
    return _BIAS_DB + 10 * math.log10(weights @ energy[:, gated & (lufs > gate)].mean(dim=1))


def measure_uncut_lufs(samples: Tensor, rate_hz: int, check: Check | None = None) -> float:
    """`measure_lufs` of a clip that may exceed full scale: loud ones are measured at a level that is not cut."""
    peak = samples.abs().max().item()
    if peak <= _HEADROOM:
        return measure_lufs(samples, rate_hz, check)
    return measure_lufs(samples * (_HEADROOM / peak), rate_hz, check) + 20 * math.log10(peak / _HEADROOM)


def _block_energies(samples: Tensor, rate_hz: int, block: int, step: int, check: Check, stretch: int) -> Tensor:
    """Mean squares [C, blocks] float64 of the overlapping blocks of the weighted signal [C, L]."""
    n_channels, length = samples.shape
    n_blocks = (length - block) // step + 1
    at_once = max(1, stretch // (n_channels * step))
    energies = []
    for first in range(0, n_blocks, at_once):
        check()
        start = first * step
        end = (min(first + at_once, n_blocks) - 1) * step + block
        lead = min(start, round(_LEAD_S * rate_hz))
        weighted = _k_weighted(samples[:, start - lead : end], rate_hz)[:, lead:]
        energies.append(weighted.square().unfold(1, block, step).mean(dim=2))
    return torch.cat(energies, dim=1).double()


def _k_weighted(samples: Tensor, rate_hz: int) -> Tensor:
    torchaudio = _torchaudio()
    if torchaudio is None:
        return _k_weighted_by_pyloudnorm(samples, rate_hz)
    gain_db, q, centre_hz = _SHELF
    samples = torchaudio.functional.treble_biquad(samples, rate_hz, gain_db, centre_hz, q)
    _, q, cutoff_hz = _HIGH_PASS
    return torchaudio.functional.highpass_biquad(samples, rate_hz, cutoff_hz, q)


def _k_weighted_by_pyloudnorm(samples: Tensor, rate_hz: int) -> Tensor:
    pyloudnorm = require("pyloudnorm", "Measuring loudness without torchaudio")
    signal = samples.double().cpu().numpy().copy()
    for kind, (gain_db, q, centre_hz) in (("high_shelf", _SHELF), ("high_pass", _HIGH_PASS)):
        stage = pyloudnorm.IIRfilter(gain_db, q, centre_hz, rate_hz, kind)
        for channel, row in enumerate(signal):
            # torchaudio's filters clamp what they put out; keep that, so that loud audio measures the same.
            signal[channel] = stage.apply_filter(row).clip(-1, 1)
    return torch.from_numpy(signal)


@functools.cache
def _torchaudio() -> ModuleType | None:
    """torchaudio, or None. Tried once: a broken installation fails slowly, and again at each import."""
    try:
        import torchaudio
        import torchaudio.functional
    except Exception:  # built for another torch, it raises OSError, RuntimeError, AttributeError, ...
        return None
    return torchaudio
