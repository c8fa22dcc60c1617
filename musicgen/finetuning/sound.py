"""What a clip sounds like in few numbers: pitch classes, pulse, timbre."""

import itertools
import math

import torch
from torch import Tensor

from ..analysis.tempo import measure_bpm
from ..audio import Audio

KINDS = ("chroma", "tempo", "timbre")
_N_FFT, _HOP = 4096, 1024
_BANDS_HZ = (0, 100, 200, 400, 800, 1600, 3200, 6400, 20_000)
_LOW_HZ, _HIGH_HZ = 55.0, 4000.0  # where pitches are counted
_FLOOR = 1e-10


def features(clip: Audio) -> dict[str, Tensor]:
    """Kind -> numbers of one clip [1, C, L]: chroma [13], tempo [3], timbre [13]. Each is finite, of silence too."""
    mono = clip.samples[0].mean(dim=0)
    spectrum = torch.stft(
        mono, _N_FFT, _HOP, window=torch.hann_window(_N_FFT), return_complex=True, pad_mode="constant"
    ).abs().square()  # fmt: skip
    frequency = torch.arange(spectrum.shape[0]) * clip.rate_hz / _N_FFT
    return {
        "chroma": _chroma(spectrum, frequency),
        "tempo": _tempo(clip, spectrum),
        "timbre": _timbre(mono, spectrum, frequency),
    }


def _chroma(spectrum: Tensor, frequency: Tensor) -> Tensor:
    """Shares of the pitch classes, and how evenly they are spread (entropy, 0 to 1)."""
    inside = (frequency >= _LOW_HZ) & (frequency <= _HIGH_HZ)
    classes = (12 * torch.log2(frequency[inside] / 440.0)).round().long() % 12
    magnitude = spectrum[inside].sqrt().sum(dim=1)
    shares = torch.zeros(12).index_add_(0, classes, magnitude)
    shares = shares / shares.sum().clamp(min=_FLOOR)
    entropy = -(shares * shares.clamp(min=_FLOOR).log()).sum() / math.log(12)
    return torch.cat([shares, entropy[None]])


def _tempo(clip: Audio, spectrum: Tensor) -> Tensor:
    """Octaves of the tempo from 100 bpm, onsets a second, and how sharp they are."""
    bpm = measure_bpm(clip)
    octaves = math.log2(bpm / 100) if bpm else 0.0
    level = (spectrum + _FLOOR).log().clamp(min=math.log(float(spectrum.max()) + _FLOOR) - 14)
    rise = (level[:, 1:] - level[:, :-1]).clamp(min=0).mean(dim=0)
    middle = rise[1:-1]
    peaks = (middle > rise[:-2]) & (middle >= rise[2:]) & (middle > rise.mean() + 0.5 * rise.std())
    rate = float(peaks.sum()) / clip.duration_s
    return torch.tensor([octaves, rate, float(rise.std() / (rise.mean() + 1e-6))])


def _timbre(mono: Tensor, spectrum: Tensor, frequency: Tensor) -> Tensor:
    """Levels of eight bands against the whole, centroid and roll-off in octaves, flatness, crest, level's spread."""
    power = spectrum.mean(dim=1)
    total = power.sum().clamp(min=_FLOOR)
    bands = [power[(frequency >= a) & (frequency < b)].sum() / total for a, b in itertools.pairwise(_BANDS_HZ)]
    levels = 10 * (torch.stack(bands) + 1e-6).log10()
    centroid = torch.log2((power * frequency).sum() / total + 20)
    edge = frequency[min(len(frequency) - 1, int((power.cumsum(0) < 0.85 * total).sum()))]
    flatness = 10 * ((power + _FLOOR).log().mean().exp() / (power.mean() + _FLOOR)).log10()
    crest = 20 * (mono.abs().max().clamp(min=1e-5) / mono.square().mean().sqrt().clamp(min=1e-6)).log10()
    frames = 10 * (spectrum.sum(dim=0) + 1e-8).log10()
    return torch.cat([levels, torch.stack([centroid, torch.log2(edge + 20), flatness, crest, frames.std()])])


def distances(groups: dict[str, list[dict[str, Tensor]]], data: list[dict[str, Tensor]]) -> dict[str, dict[str, float]]:
    """Group -> kind -> how far its mean is from the data's, in standard deviations of the clips; `all` of the kinds together."""
    result: dict[str, dict[str, float]] = {name: {} for name in groups}
    for kind in KINDS:
        target = torch.stack([one[kind] for one in data])
        stacked = {name: torch.stack([one[kind] for one in clips]) for name, clips in groups.items()}
        spread = torch.cat([part - part.mean(dim=0) for part in (target, *stacked.values())]).std(dim=0).clamp(min=1e-3)
        for name, clips in stacked.items():
            result[name][kind] = float(((clips.mean(dim=0) - target.mean(dim=0)) / spread).square().mean().sqrt())
    for kinds in result.values():
        kinds["all"] = sum(kinds[kind] for kind in KINDS) / len(KINDS)
    return result


def told_apart(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> float:
    """Share of clips that ridge regression on the others sorts into the right group, each left out in turn. Chance: 0.5."""
    clips = torch.stack([torch.cat([clip[kind] for kind in KINDS]) for clip in (*one, *other)]).double()
    labels = torch.tensor([-1.0] * len(one) + [1.0] * len(other), dtype=torch.double)
    right = 0
    for left_out in range(len(clips)):
        rest = torch.arange(len(clips)) != left_out
        mean, spread = clips[rest].mean(dim=0), clips[rest].std(dim=0, correction=0).clamp(min=1e-3)
        known, asked = (clips[rest] - mean) / spread, (clips[left_out] - mean) / spread
        kernel = known @ known.T + len(known) * torch.eye(len(known), dtype=torch.double)
        centre = labels[rest].mean()
        answer = asked @ known.T @ torch.linalg.solve(kernel, labels[rest] - centre)
        right += int((answer > 0) == (labels[left_out] > 0))
    return right / len(clips)
