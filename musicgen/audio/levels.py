"""Levels: the ending's fade, the four normalization strategies, and audiocraft's own way to a loudness.

Source: audiocraft `normalize_audio` with `normalize=True`. Mended, where the reference fails: silence is
returned as it is instead of NaN, channels that cancel in the mean are measured on all samples, and audio that
the loudness filter leaves nothing of (a constant offset) keeps its level. The strategy loudness departs from
it: the gain ends where the peaks reach their limit, so that nothing is cut and transients stay.
"""

import logging
import math

import torch
from torch import Tensor

from ..errors import InputError
from .loudness import Check, measure_lufs, measure_uncut_lufs
from .waveform import Audio

logger = logging.getLogger(__name__)

STRATEGIES = ("loudness", "clip", "peak", "rms")  # of the Replicate contract
AUDIOCRAFT = "audiocraft"
LEVELLINGS = (*STRATEGIES, AUDIOCRAFT)
MAX_FADE_OUT_S = 60.0
_ENERGY_FLOOR = 2e-3  # RMS below which audiocraft leaves the loudness alone
_CANCELLED = 1e-4  # RMS of the channel mean, relative to that of all samples: -80 dB
_SILENCE = torch.finfo(torch.float32).tiny  # no finite gain raises a peak below this to full scale
_SHORTFALL_DB = 0.5  # below the target from which on it is said


def fade_out(audio: Audio, fade_s: float) -> Audio:
    """Copy whose last `fade_s` fall to silence along half a cosine; the whole of a shorter clip. 0 = the audio itself."""
    if not 0 <= fade_s <= MAX_FADE_OUT_S:
        raise InputError(f"'fade_out_s' must be from 0 (off) to {MAX_FADE_OUT_S:g} seconds, got {fade_s!r}")
    n = min(round(fade_s * audio.rate_hz), audio.n_samples)
    if n == 0:
        return audio
    ramp = 0.5 + 0.5 * torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    samples = audio.samples.clone()
    samples[..., -n:] *= ramp.to(samples)
    return Audio(samples, audio.rate_hz)


def normalize(
    audio: Audio,
    strategy: str = "loudness",
    *,
    loudness_lufs: float = -14.0,
    peak_headroom_db: float = 1.0,
    rms_headroom_db: float = 18.0,
    compressor: bool = False,
    check: Check | None = None,
) -> Audio:
    """Level each clip of the batch by itself.

    loudness: to `loudness_lufs`, or as far as peaks stay `peak_headroom_db` below full scale; `compressor` reaches the
    loudness and bends the peaks under that limit by tanh. peak: the largest sample to `peak_headroom_db`; clip: cut
    off there; rms: to `rms_headroom_db` below full scale, cut at -1..1. audiocraft: to `loudness_lufs` whatever the
    peaks, bent by tanh if `compressor`, cut at -1..1. peak, clip, rms and audiocraft equal audiocraft's
    `normalize_audio`. `check` is called several times a second; what it raises ends the work.
    """
    if strategy not in LEVELLINGS:
        raise InputError(f"'strategy' must be one of {', '.join(LEVELLINGS)}, got {strategy!r}")
    _check_db("loudness_lufs", loudness_lufs, -70, 0)
    _check_db("peak_headroom_db", peak_headroom_db, 0, 60)
    _check_db("rms_headroom_db", rms_headroom_db, 0, 60)
    limit = _gain(-peak_headroom_db)
    if strategy == "clip":
        return Audio(audio.samples.clamp(-limit, limit), audio.rate_hz)
    out = torch.empty_like(audio.samples)
    for clip, result in zip(audio.samples, out):
        if check:
            check()
        if strategy == "peak":
            torch.mul(clip, _gain(-peak_headroom_db, clip.abs().max().item()), out=result)
        elif strategy == "rms":
            torch.mul(clip, _gain(-rms_headroom_db, _rms_of_mean(clip)), out=result).clamp_(-1, 1)
        elif strategy == AUDIOCRAFT:
            _to_loudness_as_audiocraft(clip, audio.rate_hz, loudness_lufs, compressor, result, check)
        else:
            _to_loudness(clip, audio.rate_hz, loudness_lufs, limit, compressor, result, check)
    return Audio(out, audio.rate_hz)


def _to_loudness(
    clip: Tensor, rate_hz: int, target_lufs: float, limit: float, compressor: bool, result: Tensor, check: Check | None
) -> None:
    """Bring a clip [C, L] to a loudness; `limit` is the highest peak."""
    measured = -math.inf if _rms(clip) < _ENERGY_FLOOR else measure_uncut_lufs(clip, rate_hz, check)
    gain = 10 ** ((target_lufs - measured) / 20) if math.isfinite(measured) else 1.0
    if compressor and math.isfinite(measured):
        torch.mul(clip, gain / limit, out=result).tanh_().mul_(limit)
        return
    allowed = limit / max(clip.abs().max().item(), _SILENCE)
    if gain > allowed:
        shortfall_db = 20 * math.log10(gain / allowed)
        if math.isfinite(measured) and shortfall_db > _SHORTFALL_DB:
            logger.info(
                "loudness: a clip ends at %.1f LUFS instead of %.1f, for its peaks allow no more. Switch the compressor "
                "on to bend them, or use the strategy 'audiocraft' to cut them.", target_lufs - shortfall_db, target_lufs,
            )  # fmt: skip
        gain = allowed
    torch.mul(clip, gain, out=result).clamp_(-limit, limit)  # rounding may exceed the limit by a bit


def _to_loudness_as_audiocraft(
    clip: Tensor, rate_hz: int, target_lufs: float, compressor: bool, result: Tensor, check: Check | None
) -> None:
    """Bring a clip [C, L] to a loudness whatever its peaks, and cut them at full scale."""
    measured = -math.inf if _rms(clip) < _ENERGY_FLOOR else measure_lufs(clip, rate_hz, check)
    is_levelled = math.isfinite(measured)
    torch.mul(clip, 10 ** ((target_lufs - measured) / 20) if is_levelled else 1.0, out=result)
    if compressor and is_levelled:
        result.tanh_()
    result.clamp_(-1, 1)


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
