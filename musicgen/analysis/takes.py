"""Takes of one piece: what is measured of each, which faults that shows, which take is best."""

import re
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..audio import Audio
from ..errors import InputError
from .bands import band_levels_db, rms_db
from .tempo import measure_bpm

SILENCE_DB = -60.0  # of full scale; quieter is silence
_WINDOW_S = 0.05
_FULL_SCALE = 1 - 2**-15
_LAGS_S = (0.1, 2.0)  # at which a metronome comes back
_FRAMES_HZ = 50.0
_BEST = re.compile(r"\s*best(?:\s*(\d{1,4}))?\s*", re.IGNORECASE)
_NUMBERS = re.compile(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*")
_CHOICES = "Write best, best 3, all, or take numbers such as 2 or 1,3 or 2-4."
_TEXT_WEIGHT = 0.1  # of a fault a standard deviation


@dataclass(frozen=True)
class Measures:
    """Figures of one take. None = not measured."""

    level_db: float  # of full scale, over the whole take
    silent_share: float  # of its time
    clipped_share: float  # of its samples
    repetition: float  # 0..1: how alike it is to itself at the lag where it is most so, within two seconds
    commonest_share: float | None = None  # of the first codebook's frames: that of its commonest code
    likelihood: float | None = None  # mean log-probability of a code, nats
    text_gain: float | None = None  # how much more likely it is with its text than without, nats a code
    asked_bpm: float | None = None
    bpm: float | None = None

    @property
    def silent(self) -> bool:
        return self.level_db < SILENCE_DB or self.silent_share > 0.9


def measure(
    audio: Audio,
    codes: Tensor | None = None,
    asked_bpm: float | None = None,
    likelihood: float | None = None,
    text_gain: float | None = None,
) -> Measures:
    """Measures of one clip [1, C, L]. codes: [K, T] that it was decoded from; likelihoods: of `log_likelihood`."""
    mono = audio.samples[0].mean(dim=0)
    window = max(1, min(audio.n_samples, round(_WINDOW_S * audio.rate_hz)))
    levels_db = rms_db(audio.samples[0].unfold(-1, window, window).transpose(0, 1).flatten(1))
    return Measures(
        level_db=float(rms_db(audio.samples.flatten())),
        silent_share=float((levels_db < SILENCE_DB).float().mean()),
        clipped_share=float((audio.samples.abs() >= _FULL_SCALE).float().mean()),
        repetition=repetition(mono, audio.rate_hz),
        commonest_share=None if codes is None else commonest_share(codes),
        likelihood=likelihood,
        text_gain=text_gain,
        asked_bpm=asked_bpm,
        bpm=measure_bpm(audio, asked_bpm),
    )


def commonest_share(codes: Tensor) -> float:
    """Share of the frames of codes [K, T] in which the first codebook has its commonest code."""
    return float(codes[0].bincount().max()) / codes.shape[-1]


def repetition(mono: Tensor, rate_hz: int) -> float:
    """How alike mono samples [L] are to themselves a fixed time later, 0..1, at the best lag from 0.1 to 2 seconds.

    Band levels are compared without their mean: 1 is a loop or a metronome, 0 is as unlike as any two moments.
    """
    hop = round(rate_hz / _FRAMES_HZ)
    levels = band_levels_db(mono, rate_hz, hop, 2 * hop)
    levels = levels.clamp(min=float(levels.max()) - 60)
    frames = levels - levels.mean(dim=0)
    n = len(frames)
    first, last = round(_LAGS_S[0] * _FRAMES_HZ), min(round(_LAGS_S[1] * _FRAMES_HZ), n // 2)
    energy = frames.square().sum(dim=1)
    if last <= first or float(energy.mean()) < 1e-3:
        return 0.0
    alike = [
        float((frames[lag:] * frames[:-lag]).sum() / (energy[lag:].sum() * energy[:-lag].sum()).sqrt().clamp(min=1e-9))
        for lag in range(first, last + 1)
    ]
    return max(0.0, *alike)


def severities(take: Measures) -> dict[str, float]:
    """Faults of one take, each from 0 (none) to 1 (plain to hear). A measure that is missing shows no fault."""
    return {
        "silence": 1.0 if take.silent else _grade(take.silent_share, 0.05, 0.3),
        "clipping": _grade(take.clipped_share, 1e-5, 1e-3),
        "collapse": _grade(take.commonest_share, 0.2, 0.5),
        "repetition": _grade(take.repetition, 0.55, 0.85),
        "tempo": _tempo_severity(take),
    }


def faults(take: Measures, least: float = 0.25) -> list[str]:
    """Names of the faults that are at least so severe."""
    return [name for name, severity in severities(take).items() if severity >= least]


def rank(takes: Sequence[Measures], leave_out: Collection[str] = ()) -> list[int]:
    """Indices of the takes, best first; no silent take stands before one that is not.

    The cost of a take is the sum of its `severities`, and, in parts of a fault: how unusual its likelihood is among
    the takes (music that a model finds much likelier than the rest is mostly a held tone or silence, much less likely mostly
    noise), less how much it owes to its text. leave_out: names of `severities`, "likelihood" or "text" that do not count.
    """
    costs = [sum(value for name, value in severities(take).items() if name not in leave_out) for take in takes]
    if "likelihood" not in leave_out:
        unusual = [_grade(abs(z), 1.0, 4.0) for z in _z_scores([take.likelihood for take in takes])]
        costs = [cost + value for cost, value in zip(costs, unusual, strict=True)]
    if "text" not in leave_out:
        heard = [max(-2.0, min(2.0, z)) for z in _z_scores([take.text_gain for take in takes])]
        costs = [cost - _TEXT_WEIGHT * z for cost, z in zip(costs, heard, strict=True)]
    return sorted(range(len(takes)), key=lambda index: (takes[index].silent, costs[index], index))


def chosen(choose: str, order: Sequence[int]) -> list[int]:
    """Indices of the takes that `choose` names, `order` being that of `rank`.

    "best", "best 3": from the top; "all": every take; "2", "1,3", "2-4": take numbers from 1. InputError else.
    """
    n_takes = len(order)
    if choose.strip().lower() == "all":
        return sorted(order)
    best = _BEST.fullmatch(choose)
    if best:
        count = int(best[1] or 1)
        if not 1 <= count <= n_takes:
            raise InputError(f"'choose' asks for the best {count}, but there are {n_takes} takes. {_CHOICES}")
        return list(order[:count])
    indices: list[int] = []
    for part in choose.split(","):
        numbers = _NUMBERS.fullmatch(part)
        if not numbers:
            raise InputError(f"'choose' cannot be read: got {choose[:80]!r}. {_CHOICES}")
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if not 1 <= first <= last <= n_takes:
            raise InputError(f"'choose' names take {part.strip()}, but there are takes 1 to {n_takes}. {_CHOICES}")
        indices += [number - 1 for number in range(first, last + 1) if number - 1 not in indices]
    return indices


def check_choice(choose: str) -> None:
    """InputError unless `choose` names takes, whatever their number."""
    chosen(choose, range(10**4))


def _grade(value: float | None, none: float, full: float) -> float:
    """0 up to `none`, 1 from `full` on, straight between."""
    return 0.0 if value is None else max(0.0, min(1.0, (value - none) / (full - none)))


def _tempo_severity(take: Measures) -> float:
    if take.asked_bpm is None:
        return 0.0
    return 0.5 if take.bpm is None else _grade(abs(take.bpm / take.asked_bpm - 1), 0.03, 0.2)


def _z_scores(values: Sequence[float | None]) -> list[float]:
    """Distance of each value from the median, in standard deviations as the median deviation tells them; 0 where there
    are fewer than three values, or none.
    """
    known = [value for value in values if value is not None]
    if len(known) < 3:
        return [0.0] * len(values)
    median = statistics.median(known)
    spread = 1.4826 * statistics.median(abs(value - median) for value in known)
    return [0.0 if value is None or spread < 1e-6 else (value - median) / spread for value in values]
