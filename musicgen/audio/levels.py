"""Levels: the four normalization strategies and loudness after ITU-R BS.1770-4.

Source: audiocraft `normalize_audio` with `normalize=True`. Mended, where the reference fails: silence is
returned as it is instead of NaN, audio shorter than one 0.4 s measuring block is repeated to fill one,
more than five channels are measured on their mean, channels that cancel in the mean are measured on all
samples, and audio that the loudness filter leaves nothing of (a constant offset) keeps its level.
"""

import functools
import math
from types import ModuleType

import torch
from torch import Tensor

from ..dependencies import require
from ..errors import InputError
from .waveform import Audio

STRATEGIES = ("loudness", "clip", "peak", "rms")
_BLOCK_S = 0.4
_STEP = 0.25  # of a block
_ENERGY_FLOOR = 2e-3  # RMS below which audiocraft leaves the loudness alone
_CANCELLED = 1e-4  # RMS of the channel mean, relative to that of all samples: -80 dB
_MAX_MEASURED_CHANNELS = 5  # the loudness weights of BS.1770 end there
_SILENCE = torch.finfo(torch.float32).tiny  # no finite gain raises a peak below this to full scale


def normalize(
    audio: Audio,
    strategy: str = "loudness",
    *,
    loudness_lufs: float = -14.0,
    peak_headroom_db: float = 1.0,
    rms_headroom_db: float = 18.0,
    compressor: bool = False,
) -> Audio:
    """Level each clip of the batch by itself. Equal to audiocraft's `normalize_audio`.

    loudness: to `loudness_lufs`, soft-clipped by tanh if `compressor`; peak: the largest sample to
    `peak_headroom_db` below full scale; clip: cut off there; rms: to `rms_headroom_db` below full scale.
    Results of loudness and rms are clipped to -1..1.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"'strategy' must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    _check_db("loudness_lufs", loudness_lufs, -70, 0)
    _check_db("peak_headroom_db", peak_headroom_db, 0, 60)
    _check_db("rms_headroom_db", rms_headroom_db, 0, 60)
    if strategy == "clip":
        limit = _gain(-peak_headroom_db)
        return Audio(audio.samples.clamp(-limit, limit), audio.rate_hz)
    out = torch.empty_like(audio.samples)
    for clip, result in zip(audio.samples, out):
        if strategy == "peak":
            torch.mul(clip, _gain(-peak_headroom_db, clip.abs().max().item()), out=result)
            continue
        if strategy == "rms":
            gain = _gain(-rms_headroom_db, _rms_of_mean(clip))
        else:
            gain = _loudness_gain(clip, audio.rate_hz, loudness_lufs)
        torch.mul(clip, 1.0 if gain is None else gain, out=result)
        if compressor and strategy == "loudness" and gain is not None:
            result.tanh_()
        result.clamp_(-1, 1)
    return Audio(out, audio.rate_hz)


def measure_lufs(samples: Tensor, rate_hz: int) -> float:
    """Integrated loudness of one clip [C, L]; -inf if every block lies below the gate of -70 LUFS.

    Measured by torchaudio where it can be imported, else by pyloudnorm in the same manner.
    """
    if samples.shape[0] > _MAX_MEASURED_CHANNELS:
        samples = samples.mean(dim=0, keepdim=True)
    block = math.ceil(_BLOCK_S * rate_hz)
    if samples.shape[1] < block:
        samples = samples.repeat(1, math.ceil(block / samples.shape[1]))[:, :block]
    torchaudio = _torchaudio()
    if torchaudio is None:
        return _measure_with_pyloudnorm(samples, rate_hz)
    measured = torchaudio.functional.loudness(samples, rate_hz).item()
    return measured if math.isfinite(measured) else -math.inf


def _check_db(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        unit = "LUFS" if name.endswith("lufs") else "dB"
        raise InputError(f"'{name}' must be a number from {low} to {high} {unit}, got {value!r}")


def _gain(target_db: float, level: float = 1.0) -> float:
    """Factor that brings `level` to `target_db`; 1 for silence."""
    return 10 ** (target_db / 20) / level if level >= _SILENCE else 1.0


def _rms(samples: Tensor) -> float:
    return samples.pow(2).mean().sqrt().item()


def _rms_of_mean(clip: Tensor) -> float:
    """RMS of the mean of the channels, as audiocraft takes it, unless they cancel."""
    mean, every = _rms(clip.mean(dim=0)), _rms(clip)
    return mean if mean > _CANCELLED * every else every


def _loudness_gain(clip: Tensor, rate_hz: int, target_lufs: float) -> float | None:
    """Factor to the target loudness, or None where the clip is to keep its level."""
    if _rms(clip) < _ENERGY_FLOOR:
        return None
    measured = measure_lufs(clip, rate_hz)
    return 10 ** ((target_lufs - measured) / 20) if math.isfinite(measured) else None


@functools.cache
def _torchaudio() -> ModuleType | None:
    """torchaudio, or None. Tried once: a broken installation fails slowly, and again at each import."""
    try:
        import torchaudio
        import torchaudio.functional
    except Exception:  # built for another torch, it raises OSError, RuntimeError, AttributeError, ...
        return None
    return torchaudio


def _measure_with_pyloudnorm(samples: Tensor, rate_hz: int) -> float:
    """Loudness of [C, L], at least one block long, by pyloudnorm's filters and gates."""
    pyloudnorm = require("pyloudnorm", "Measuring loudness without torchaudio")
    block, step = math.ceil(_BLOCK_S * rate_hz), round(_BLOCK_S * _STEP * rate_hz)
    n_blocks = (samples.shape[1] - block) // step + 1
    signal = samples[:, : block + (n_blocks - 1) * step].T.double().cpu().numpy()  # no partial block
    stages = ((4.0, 1 / math.sqrt(2), 1500.0, "high_shelf"), (0.0, 0.5, 38.0, "high_pass"))
    for gain_db, q, centre_hz, kind in stages:
        stage = pyloudnorm.IIRfilter(gain_db, q, centre_hz, rate_hz, kind)
        for channel in range(signal.shape[1]):
            # torchaudio's filters clamp what they put out; keep that, so that loud audio measures the same.
            signal[:, channel] = stage.apply_filter(signal[:, channel]).clip(-1, 1)
    meter = pyloudnorm.Meter(rate_hz, filter_class="custom")  # no filters of its own
    return float(meter.integrated_loudness(signal))
