"""How far a long piece drifts from its beginning: loudness, brightness, timbre and tones of each minute against the first.

Each figure stands between two others: chance is the same measure of another piece's minute, and the ceiling is what the two halves
of the first minute differ by. Pieces are written with and without an anchor, from the same texts and seeds.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...musicgen.audio import measure_lufs
from ...musicgen.config import GenerationParams
from ...musicgen.loading import Loaded
from ..codec.spectral import log_mel
from .measure import HEARING_HZ, Finding, _mono

TEXTS = (
    "gayageum with the buk drum, medium jungmori",
    "pansori voice with the buk drum, slow jinyangjo",
    "daegeum flute alone, very slow",
    "the buk drum, fast jajinmori",
)
MINUTE_S = 60.0
ANCHOR_SHARE = 0.2  # of the model's window
# A minute is within bounds if it is no further than this from the first one.
LOUDNESS_DB, BRIGHTNESS, TIMBRE_DB = 2.0, 0.15, 3.0
_WINDOW, _N_MELS = 1024, 40
_FFT, _LOWEST_HZ, _HIGHEST_HZ = 8192, 65.0, 2100.0  # of chroma


@dataclass(frozen=True)
class Heard:
    """One stretch of sound."""

    lufs: float
    centroid_hz: float  # of the power spectrum
    timbre: Tensor  # [n_mels] mean level of each band in dB, the overall level taken out
    tones: Tensor  # [12] share of each pitch class


@dataclass(frozen=True)
class Distance:
    """How far one stretch is from another."""

    loudness_db: float
    brightness: float  # of the centroid, a share of it
    timbre_db: float  # root mean square over mel bands
    tones: float  # 1 - cosine

    @property
    def within(self) -> bool:
        return self.loudness_db <= LOUDNESS_DB and self.brightness <= BRIGHTNESS and self.timbre_db <= TIMBRE_DB


def drift_findings(
    model: Loaded, n_pieces: int, n_minutes: int, cfg: float, anchor_s: float | None = None
) -> list[Finding]:
    """Medians over `n_pieces` of each later minute against the first, without an anchor and with one.

    anchor_s: None = a fifth of the model's window.
    """
    anchor_s = ANCHOR_SHARE * model.config.segment_s if anchor_s is None else anchor_s
    findings: list[Finding] = []
    for anchor in (0.0, anchor_s):
        minutes = [_minutes(samples) for samples in _pieces(model, n_pieces, n_minutes, cfg, anchor)]
        findings += _compared(minutes, f"anchor {anchor:g} s" if anchor else "no anchor")
    return findings


def heard(samples: Tensor) -> Heard:
    """[L] at HEARING_HZ."""
    even = samples * (
        0.1 / samples.pow(2).mean().sqrt().clamp(min=1e-6)
    )  # so that the floor of log_mel is of one height
    mels_db = 20 * log_mel(even[None], _WINDOW, _N_MELS, HEARING_HZ)[0]
    power = _power(samples)
    frequency = torch.linspace(0, HEARING_HZ / 2, len(power))
    timbre = mels_db.mean(dim=1)
    inside = (frequency >= _LOWEST_HZ) & (frequency <= _HIGHEST_HZ)
    pitch = (12 * torch.log2(frequency[inside] / 440.0)).round().long() % 12
    tones = torch.zeros(12).index_add_(0, pitch, power[inside].sqrt())
    return Heard(
        measure_lufs(samples[None], HEARING_HZ),
        float((frequency * power).sum() / power.sum().clamp(min=1e-12)),
        timbre - timbre.mean(),
        tones / tones.sum().clamp(min=1e-12),
    )


def distance(one: Heard, other: Heard) -> Distance:
    """Of `other` from `one`."""
    return Distance(
        abs(other.lufs - one.lufs),
        abs(other.centroid_hz / one.centroid_hz - 1),
        float((other.timbre - one.timbre).pow(2).mean().sqrt()),
        1 - float(F.cosine_similarity(one.tones, other.tones, dim=0)),
    )


def _pieces(model: Loaded, n_pieces: int, n_minutes: int, cfg: float, anchor_s: float) -> list[Tensor]:
    """Pieces [L] of different texts, written side by side."""
    texts = [TEXTS[number % len(TEXTS)] for number in range(n_pieces)]
    params = GenerationParams(duration_s=n_minutes * MINUTE_S, seed=0, cfg=cfg, anchor_s=anchor_s)
    return list(_mono(model.codec.decode(model.model.generate(model.conditioner.encode_text(texts), params))))


def _minutes(samples: Tensor) -> list[Heard]:
    """The halves of the first minute, then each minute."""
    length = round(MINUTE_S * HEARING_HZ)
    minutes = samples.split(length)
    return [heard(part) for part in (*minutes[0].split(length // 2), *minutes)]


def _compared(pieces: Sequence[Sequence[Heard]], name: str) -> list[Finding]:
    """Findings over pieces, each as `_minutes` gives it."""
    others = [*pieces[1:], pieces[0]]  # of another text
    ceiling = [distance(halves[0], halves[1]) for halves in pieces]
    findings, within, chance_within = [], [], []
    for minute in range(1, len(pieces[0]) - 2):
        own = [distance(piece[2], piece[2 + minute]) for piece in pieces]
        chance = [distance(piece[2], other[2 + minute]) for piece, other in zip(pieces, others, strict=True)]
        within += [each.within for each in own]
        chance_within += [each.within for each in chance]
        for field, unit, scale in (
            ("loudness_db", "loudness, dB", 1), ("brightness", "spectral centroid, %", 100),
            ("timbre_db", "timbre, dB", 1), ("tones", "chroma, 1 - cosine", 1),
        ):  # fmt: skip
            value, by_chance, best = (
                scale * _median([getattr(each, field) for each in group]) for group in (own, chance, ceiling)
            )
            findings.append(
                Finding(f"{name}, minute {minute + 1} from the first: {unit}", value, None, by_chance, best)
            )
    share, by_chance = _share(within), _share(chance_within)
    best = _share([each.within for each in ceiling])
    bounds = f"{LOUDNESS_DB:g} dB, {100 * BRIGHTNESS:g} %, {TIMBRE_DB:g} dB of timbre"
    return [*findings, Finding(f"{name}: minutes within {bounds}", share, None, by_chance, best)]


def _power(samples: Tensor) -> Tensor:
    """Mean power spectrum [bins]."""
    window = torch.hann_window(_FFT)
    return torch.stft(samples, _FFT, _FFT // 2, window=window, return_complex=True).abs().pow(2).mean(dim=1)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(1, len(flags))
