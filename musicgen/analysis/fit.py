"""A piece brought to the tempo that was asked for, its bars to the grid."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..audio import Audio
from ..audio.stretch import stretch
from ..errors import InputError
from ..units import Meter, check_bpm
from .choices import MAX_METER, WAYS
from .hearing import SHORTEST_S, Heard, hear

MOST = 1.3  # speed up to which music still sounds like itself; beyond, what is heard is another tempo than the one asked for
_GOOD = 0.002  # of the tempo: 50 ms in 25 s


@dataclass(frozen=True)
class Fit:
    """The piece and how it keeps the tempo."""

    audio: Audio
    asked_bpm: float
    bpm: float  # of `audio`, 0 where no pulse is heard
    heard_bpm: float  # before it was changed
    speed: float  # by which it was changed
    shift_s: float  # cut off its beginning; negative: silence in front
    off_ms: float | None  # mean distance of its downbeats from bars that begin at 0; None: none is heard
    notices: tuple[str, ...]

    @property
    def report(self) -> str:
        """What was measured and changed, a line each."""
        lines = []
        if self.heard_bpm:
            off = 100 * (self.heard_bpm / self.asked_bpm - 1)
            lines.append(
                f"{self.asked_bpm:g} beats a minute were asked for, {self.heard_bpm:.2f} are heard ({off:+.1f} %)."
            )
        if self.speed != 1.0:
            lines.append(f"Played {self.speed:.4f} times as fast: {self.bpm:.2f} beats a minute.")
        if self.shift_s:
            cut = (
                f"{self.shift_s:.3f} s are cut off"
                if self.shift_s > 0
                else f"{-self.shift_s:.3f} s of silence stand before"
            )
            lines.append(f"{cut} the beginning, so that the first bar begins at 0.")
        if self.off_ms is not None:
            lines.append(f"Downbeats are {self.off_ms:.0f} ms off bars that begin at 0, on average.")
        return "\n".join([*lines, *self.notices])


def check_meter(meter: Meter) -> None:
    """InputError unless bars of so many beats are heard."""
    if meter.beats > MAX_METER:
        raise InputError(
            f"'meter' has {meter.beats} beats in a bar, and bars of up to {MAX_METER} are heard. Write smaller bars."
        )


def fit_tempo(
    audio: Audio, bpm: float, meter: Meter, way: str, on_step: Callable[[int, int], None] | None = None
) -> Fit:
    """Measure one clip [1, C, L] against `bpm`, and change it as `way` says.

    stretch: the heard tempo becomes `bpm`, at the same pitch. align: then the first downbeat is moved to 0, by cutting what
    is before it, or by silence in front where it is in the last quarter of a bar. on_step(done, total): what it raises ends the work.
    What cannot be done is a notice, and the sound stays as it is.
    """
    if len(audio.samples) != 1:
        raise InputError(
            f"'audio' holds {len(audio.samples)} clips, and one is measured at a time. Choose one with MusicGen Takes."
        )
    check_meter(meter)
    check_bpm(bpm)
    step = on_step or (lambda done, total: None)
    try:
        heard = _hear(audio, bpm, meter, lambda done, total: step(done, 3 * total))
    except InputError as error:  # silent, too short, too long
        return Fit(audio, bpm, 0.0, 0.0, 1.0, 0.0, None, (str(error),))
    speed, notices = 1.0, list(heard.notices)
    if not heard.bpm:
        notices.append(f"No pulse is heard near {bpm:g} beats a minute: nothing is changed.")
    elif way != WAYS[0]:
        speed = bpm / heard.bpm
        if not 1 / MOST <= speed <= MOST:
            notices.append(
                f"{heard.bpm:.1f} beats a minute are heard, too far from {bpm:g}: nothing is changed. Ask for a tempo within "
                f"{100 * (MOST - 1):.0f} % of what is heard."
            )
            speed = 1.0
    if speed != 1.0:
        audio = stretch(audio, speed, lambda: step(100, 300))
    shift_s = 0.0
    again = _hear(audio, bpm, meter, lambda done, total: step(total + done, 3 * total)) if speed != 1.0 else heard
    if way == WAYS[2] and heard.bpm and 1 / MOST <= bpm / heard.bpm <= MOST:
        if again.downbeats_s:
            shift_s = _offset(again, bpm, meter)
            audio = _shifted(audio, shift_s)
        else:
            notices.append("No bars are heard: the beginning stays where it is.")
    off_ms = _off_ms(again, bpm, meter, shift_s) if again.downbeats_s else None
    drift = abs(again.bpm / bpm - 1) if again.bpm else 0.0
    if speed != 1.0 and drift > _GOOD:
        notices.append(f"The tempo is not steady: {100 * drift:.1f} % are left after the correction.")
    step(3, 3)
    return Fit(audio, bpm, again.bpm, heard.bpm, speed, shift_s, off_ms, tuple(dict.fromkeys(notices)))


def _hear(audio: Audio, bpm: float, meter: Meter, on_step: Callable[[int, int], None]) -> Heard:
    return hear(audio, bpm=bpm, meter=meter.beats, on_step=on_step)


def _offset(heard: Heard, bpm: float, meter: Meter) -> float:
    """Where bars of `bpm` begin that fit the downbeats best, in seconds: from -1/4 bar to 3/4 bar."""
    bar_s = 60 / bpm * meter.beats
    turns = np.exp(2j * np.pi * np.array(heard.downbeats_s) / bar_s)
    phase_s = float(np.angle(turns.mean()) / (2 * np.pi) * bar_s) % bar_s
    return phase_s if phase_s < 0.75 * bar_s else phase_s - bar_s


def _off_ms(heard: Heard, bpm: float, meter: Meter, shift_s: float) -> float:
    bar_s = 60 / bpm * meter.beats
    bars = (np.array(heard.downbeats_s) - shift_s) / bar_s
    return float(np.abs(bars - np.round(bars)).mean() * bar_s * 1000)


def _shifted(audio: Audio, shift_s: float) -> Audio:
    n = round(shift_s * audio.rate_hz)
    if n >= 0:
        return (
            Audio(audio.samples[..., n:], audio.rate_hz) if n < audio.n_samples - SHORTEST_S * audio.rate_hz else audio
        )
    return Audio(torch.nn.functional.pad(audio.samples, (-n, 0)), audio.rate_hz)
