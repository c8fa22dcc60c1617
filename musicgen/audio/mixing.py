"""Several sounds as one: loudnesses matched, then a gain each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..errors import InputError
from .conversion import convert
from .loudness import Check, measure_uncut_lufs
from .waveform import MAX_CHANNELS, Audio

MIN_DB, MAX_DB = -60.0, 24.0
_SILENT_LUFS = -60.0  # below which a sound is left at its level: its loudness is that of noise
_FAR_DB = 30.0  # below the loudest sound, at which one is what a separator lets through


@dataclass(frozen=True)
class Mixed:
    """Sounds as one, and what was done to each."""

    audio: Audio
    lufs: tuple[float, ...]  # of each sound before, -inf for silence
    gains_db: tuple[float, ...]  # of each sound, that of the whole included
    notices: tuple[str, ...]

    @property
    def report(self) -> str:
        """A line a sound."""
        lines = [
            f"{number}: {_shown(lufs)}, played at {gain_db:+.1f} dB."
            for number, (lufs, gain_db) in enumerate(zip(self.lufs, self.gains_db), 1)
        ]
        return "\n".join([*lines, *self.notices])


def mix(
    sounds: Sequence[Audio],
    gains_db: Sequence[float],
    *,
    matched: bool = True,
    peak_headroom_db: float = 1.0,
    check: Check | None = None,
) -> Mixed:
    """The sum of sounds [B, C, L] at the highest of their rates, with the most of their channels, as long as the longest.

    matched: each sound gets the loudness of the loudest one (ITU-R BS.1770), then its gain; silence, and what is 30 dB below the loudest,
    keeps its level. The whole is made quieter where its peak exceeds `peak_headroom_db` below full scale: nothing is cut, and no
    sound is changed but by a factor. One clip is spread over a batch. check() is called several times a second; what it raises
    ends the work. InputError: batches or channels that do not fit, gains out of range.
    """
    if not sounds or len(sounds) != len(gains_db):
        raise InputError(f"A mix needs a sound or more with a gain each, got {len(sounds)} and {len(gains_db)}.")
    for number, gain_db in enumerate(gains_db, 1):
        check_gain(f"gain {number}", gain_db)
    if not 0 <= peak_headroom_db <= 60:
        raise InputError(f"'peak_headroom_db' must be from 0 to 60 dB, got {peak_headroom_db:g}.")
    n_clips = max(len(sound.samples) for sound in sounds)
    rate_hz, n_channels = max(sound.rate_hz for sound in sounds), max(sound.n_channels for sound in sounds)
    for sound in sounds:
        if len(sound.samples) not in (1, n_clips):
            raise InputError(
                f"Batches of {len(sound.samples)} and of {n_clips} clips cannot be mixed. Give as many, or one."
            )
        if sound.n_channels not in (1, n_channels):
            raise InputError(f"{sound.n_channels} and {n_channels} channels cannot be mixed. Give as many, or mono.")
    assert n_channels <= MAX_CHANNELS
    lufs = [_loudness(sound, check) for sound in sounds]
    gains, notices = _matched(lufs, gains_db) if matched else (list(gains_db), [])
    parts = []
    for sound in sounds:
        if check:
            check()
        parts.append(convert(sound, rate_hz, n_channels).samples)
    length = max(part.shape[-1] for part in parts)
    whole = torch.zeros(n_clips, n_channels, length)
    for part, gain_db in zip(parts, gains):
        whole += F.pad(part * 10 ** (gain_db / 20), (0, length - part.shape[-1]))
    limit, peak = 10 ** (-peak_headroom_db / 20), whole.abs().max().item()
    if peak > limit:
        over_db = 20 * math.log10(peak / limit)
        gains = [gain_db - over_db for gain_db in gains]
        notices.append(
            f"The whole is {over_db:.1f} dB quieter, so that its peaks stay {peak_headroom_db:g} dB below full scale."
        )
        whole = (whole * (limit / peak)).clamp_(-limit, limit)
    return Mixed(Audio(whole, rate_hz), tuple(lufs), tuple(gains), tuple(notices))


def check_gain(name: str, gain_db: float) -> None:
    """InputError for what is no gain."""
    if isinstance(gain_db, bool) or not isinstance(gain_db, (int, float)) or not MIN_DB <= gain_db <= MAX_DB:
        raise InputError(f"'{name}' must be a number from {MIN_DB:g} to {MAX_DB:g} dB, got {gain_db!r}")


def is_audible(sound: Audio, beside: Audio, check: Check | None = None) -> bool:
    """Whether a stem is more than what a separator lets through: above -60 LUFS, and within 30 dB of the sound it is of."""
    lufs = _loudness(sound, check)
    return lufs > max(_SILENT_LUFS, _loudness(beside, check) - _FAR_DB)


def _loudness(sound: Audio, check: Check | None) -> float:
    """Of the loudest clip, in LUFS."""
    return max(measure_uncut_lufs(clip, sound.rate_hz, check) if clip.any() else -math.inf for clip in sound.samples)


def _matched(lufs: Sequence[float], gains_db: Sequence[float]) -> tuple[list[float], list[str]]:
    """Gains that bring each sound to the loudest one, then by its own gain."""
    loudest, gains, notices = max(lufs), [], []
    for number, (each, gain_db) in enumerate(zip(lufs, gains_db), 1):
        if each > max(_SILENT_LUFS, loudest - _FAR_DB):
            gains.append(loudest - each + gain_db)
        else:
            gains.append(gain_db)
            notices.append(f"{number} is silent or next to it ({_shown(each)}) and keeps its level.")
    return gains, notices


def _shown(lufs: float) -> str:
    return f"{lufs:.1f} LUFS" if math.isfinite(lufs) else "silence"
