"""Audio in memory: the checked type, sample rate and channel conversion, trimming."""

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from ..errors import InputError
from .resampling import resampled_pieces

MAX_CHANNELS = 8
MIN_RATE_HZ, MAX_RATE_HZ = 1000, 768_000
FADE_MS, MAX_FADE_MS = 5.0, 1000.0  # default: too short to soften an attack, long enough for a click
_END_TOLERANCE_S = 0.01  # players show hundredths of a second, and round up


@dataclass(frozen=True)
class Audio:
    """B clips of C channels. Shared between nodes and cached by ComfyUI: never altered in place."""

    samples: Tensor  # [B, C, L] float32, nominally -1..1, on the CPU unless said otherwise
    rate_hz: int

    def __post_init__(self) -> None:
        if not isinstance(self.samples, Tensor):
            raise InputError(f"audio must be a tensor [batch, channels, samples], got {type(self.samples).__name__}")
        shape = list(self.samples.shape)
        if len(shape) != 3:
            raise InputError(f"audio must have the shape [batch, channels, samples], got {shape}")
        if not self.samples.is_floating_point():
            raise InputError(
                f"audio must be floating point between -1 and 1, got {self.samples.dtype}. "
                "Divide whole numbers by their full scale first, 32768 for 16 bits."
            )
        if 0 in shape:
            raise InputError(
                f"audio is empty: its shape is {shape} [batch, channels, samples]. Give one sample or more."
            )
        if shape[1] > MAX_CHANNELS:
            raise InputError(f"audio has {shape[1]} channels, at most {MAX_CHANNELS} are allowed. Mix it down first.")
        rate = self.rate_hz
        if not isinstance(rate, Real) or not MIN_RATE_HZ <= rate <= MAX_RATE_HZ or rate != int(rate):
            raise InputError(f"sample rate must be a whole number from {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, got {rate!r}")
        samples = self.samples.detach().to(torch.float32)
        if not all(math.isfinite(edge) for edge in torch.aminmax(samples)):  # NaN shows in both; no copy is made
            bad = ~torch.isfinite(samples)
            raise InputError(
                f"audio holds {int(bad.sum())} samples that are not finite numbers (NaN or infinite), the first at "
                f"[batch, channel, sample] {bad.nonzero()[0].tolist()} of {shape}. Repair what made it."
            )
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "rate_hz", int(rate))

    @property
    def n_channels(self) -> int:
        return self.samples.shape[1]

    @property
    def n_samples(self) -> int:
        return self.samples.shape[2]

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.rate_hz


def convert(audio: Audio, rate_hz: int, channels: int) -> Audio:
    """Convert the sample rate, then the number of channels. Equal to audiocraft's `convert_audio`.

    Many channels become one by their mean, one becomes many by copying, and surplus channels are dropped.
    InputError where several channels would have to become more.
    """
    have = audio.n_channels
    if channels > have > 1:
        raise InputError(
            f"audio has {have} channels and cannot be spread over {channels}. "
            f"Give mono audio, or {channels} channels or more."
        )
    if audio.rate_hz == rate_hz:
        return Audio(_with_channels(audio.samples, channels), rate_hz)
    length = audio.n_samples * rate_hz // audio.rate_hz
    samples, position = audio.samples.new_empty(len(audio.samples), channels, length), 0
    for piece in resampled_pieces(audio.samples, audio.rate_hz, rate_hz):
        samples[..., position : position + piece.shape[-1]] = _with_channels(piece, channels)
        position += piece.shape[-1]
    return Audio(samples, rate_hz)


def _with_channels(samples: Tensor, channels: int) -> Tensor:
    """[B, C, L] -> [B, channels, L]: the mean, copies, or the first ones."""
    have = samples.shape[1]
    if channels == 1 and have > 1:
        return samples.mean(dim=1, keepdim=True)
    if have == 1 and channels > 1:
        return samples.expand(-1, channels, -1).contiguous()
    return samples[:, :channels].contiguous() if have > channels else samples


def span(start_s: float, end_s: float | None, rate_hz: float, n_samples: int, what: str) -> tuple[int, int]:
    """Samples (first, last + 1) of an interval in seconds; `end_s` of None or below 0 is the end.

    InputError, naming both values and the length, unless the interval lies within `what` and is not empty.
    """
    start_s, end_s = check_span(start_s, end_s)
    length_s = n_samples / rate_hz
    first = round(start_s * rate_hz)
    last = n_samples if end_s is None else round(end_s * rate_hz)
    interval = f"from {start_s:g} s to {'the end' if end_s is None else f'{end_s:g} s'}"
    if first >= n_samples:
        raise InputError(f"cannot take {what} {interval}: it is only {length_s:.3f} s long. Start earlier.")
    if last > n_samples + _END_TOLERANCE_S * rate_hz:
        raise InputError(
            f"cannot take {what} {interval}: it is only {length_s:.3f} s long. End earlier, or at -1, its end."
        )
    if last <= first:
        raise InputError(f"cannot take {what} {interval}: nothing lies between (it is {length_s:.3f} s long).")
    return first, min(last, n_samples)


def check_span(start_s: float, end_s: float | None) -> tuple[float, float | None]:
    """The bounds with 'to the end' as None, or InputError where no audio could satisfy them."""
    if not math.isfinite(start_s) or start_s < 0:
        raise InputError(f"'start_s' must be 0 seconds or more, got {start_s!r}")
    if end_s is None or end_s < 0:
        return float(start_s), None
    if not math.isfinite(end_s) or end_s <= start_s:
        raise InputError(f"'end_s' must be after 'start_s' ({start_s:g} s), or -1 for the end, got {end_s!r}")
    return float(start_s), float(end_s)


def trim(audio: Audio, start_s: float, end_s: float | None = None) -> Audio:
    """Copy of the interval between two times in seconds; `end_s` of None or below 0 is the end."""
    first, last = span(start_s, end_s, audio.rate_hz, audio.n_samples, "the audio")
    return Audio(audio.samples[..., first:last].clone(), audio.rate_hz)


def fade(audio: Audio, fade_ms: float) -> Audio:
    """Copy that rises from silence and falls to it within `fade_ms`, along half a cosine; of a short clip, half of it."""
    if not 0 <= fade_ms <= MAX_FADE_MS:
        raise InputError(f"'fade_ms' must be from 0 to {MAX_FADE_MS:g} milliseconds, got {fade_ms!r}")
    n = min(round(fade_ms / 1000 * audio.rate_hz), audio.n_samples // 2)
    if n == 0:
        return audio
    ramp = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    samples = audio.samples.clone()
    samples[..., :n] *= ramp.to(samples)
    samples[..., -n:] *= ramp.flip(0).to(samples)
    return Audio(samples, audio.rate_hz)
