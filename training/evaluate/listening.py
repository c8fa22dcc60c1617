"""Listens to audio as a critic: which jangdan, how fast, who plays. A small classifier trained on the synthesizer.

It hears nothing of how the audio was made: log-mel spectra, how they rise (onsets), and at which lags the onsets repeat.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...musicgen.modules import module_list
from ..codec.spectral import log_mel
from ..data.jangdan import JANGDAN
from ..data.pieces import PLAYERS, draw_label, play

FRAME_HZ = 125.0
RHYTHMS = (*JANGDAN, "none")  # none: a plain scale
_WINDOW, _N_MELS, _N_BANDS = 1024, 40, 4
_LAGS_S, _N_LAGS = (0.08, 4.0), 96
_HIDDEN, _EPOCHS, _BATCH = 160, 60, 64
_MEMBERS = 5  # of a critic
_CODED = 0.4  # of the copies
UNKNOWN = -1  # in place of an answer


@dataclass(frozen=True)
class Heard:
    """What a clip sounds like."""

    rhythm: str  # of RHYTHMS
    player: str  # of PLAYERS
    buk: bool
    bpm: float | None  # of the rhythm's beats


class Voters(nn.Module):
    """Features [B, n] -> scores of each question's answers: the mean of several classifiers that began differently.

    One alone hears up to a tenth of a model's pieces otherwise than the next one does.
    """

    mean: Tensor  # [n] of the features that it was taught with
    scale: Tensor  # [n] their standard deviation

    def __init__(self, n_features: int, sizes: Sequence[int], n_members: int = _MEMBERS, width: int = _HIDDEN) -> None:
        """sizes: how many answers each question has."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.members = module_list(_Classifier(n_features, sizes, width) for _ in range(n_members))

    def forward(self, features: Tensor) -> list[Tensor]:
        x = ((features - self.mean) / self.scale).clamp(-5, 5)
        heads = zip(*(member(x) for member in self.members))
        return [torch.stack([F.log_softmax(scores, dim=-1) for scores in head]).mean(dim=0) for head in heads]

    def teach(self, inputs: Tensor, wanted: Tensor, epochs: int = _EPOCHS) -> None:
        """inputs [n, n_features], wanted [n, questions] int64, UNKNOWN where a clip has no answer to a question."""
        self.mean.copy_(inputs.mean(0))
        self.scale.copy_(inputs.std(0).clamp(min=1e-3))
        inputs = (inputs - self.mean) / self.scale
        for member in self.members:
            _teach(member, inputs, wanted, epochs)
        self.eval()


class Critic(Voters):
    """Features of `features_of` -> scores of rhythm, player and buk."""

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features, (len(RHYTHMS), len(PLAYERS), 2))

    def save(self, path: Path, notes: dict[str, str]) -> None:
        """Write a safetensors file; notes: how it was taught."""
        safetensors.torch.save_file(self.state_dict(), path, notes)

    @classmethod
    def opened(cls, path: Path, notes: dict[str, str]) -> "Critic | None":
        """The critic that was saved with the same notes; None if there is none."""
        if (saved := saved_with(path, notes)) is None:
            return None
        critic = cls(len(saved["mean"]))
        critic.load_state_dict(saved)
        return critic.eval()

    @torch.no_grad()
    def hear(self, samples: Tensor, rate_hz: int) -> Heard:
        """One clip [L]."""
        self.eval()
        rhythm, player, buk = (int(scores[0].argmax()) for scores in self(features_of(samples, rate_hz)[None]))
        name = RHYTHMS[rhythm]
        bpm = None if name == "none" else tempo_bpm(samples, rate_hz, name)
        return Heard(name, PLAYERS[player], bool(buk), bpm)


def saved_with(path: Path, notes: dict[str, str]) -> dict[str, Tensor] | None:
    """The tensors of a safetensors file that was written with these notes; None if there is no such file."""
    if not path.exists():
        return None
    with safetensors.safe_open(path, "pt") as file:
        if file.metadata() != notes:
            return None
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


class _Classifier(nn.Module):
    def __init__(self, n_features: int, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(n_features, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 64), nn.ReLU()
        )
        self.heads = nn.ModuleList(nn.Linear(64, n) for n in sizes)

    def forward(self, features: Tensor) -> list[Tensor]:
        x = self.body(features)
        return [head(x) for head in self.heads]


def train_critic(
    n_clips: int, duration_s: float, rate_hz: int, through: Callable[[Tensor], Tensor] | None = None, seed: int = 0
) -> Critic:
    """A critic taught by `n_clips` clips of its own, as long as those that it will hear, and by a worn copy of each.

    through: [L] -> [L'], the codec behind which it will listen. Some of the copies are what that makes of a clip, so that it
    tells the players by how they play, and not by what the codec leaves of them: taught without, it took more than a third of
    the synthesizer's gayageum, coded by pansori-mini's codec, for voices.
    """
    rng = np.random.default_rng([seed, n_clips])
    generator = torch.Generator().manual_seed(seed)
    features, targets = [], []
    n_coded = round(_CODED * n_clips) if through else 0
    for number in range(n_clips):
        label = draw_label(rng)
        samples = torch.from_numpy(play(label, duration_s, rate_hz, rng).samples)
        copy = through(samples) if through and number < n_coded else worn(samples, generator)
        target = (RHYTHMS.index(label.jangdan or "none"), PLAYERS.index(label.instrument), int(label.buk))
        for version in (samples, copy):
            features.append(features_of(version, rate_hz))
            targets.append(target)
    inputs, wanted = torch.stack(features), torch.tensor(targets)
    torch.manual_seed(seed)
    critic = Critic(inputs.shape[1])
    critic.teach(inputs, wanted)
    return critic


def _teach(member: _Classifier, inputs: Tensor, wanted: Tensor, epochs: int) -> None:
    """inputs [n, n_features] of mean 0 and deviation 1, wanted [n, questions]."""
    optimizer = torch.optim.AdamW(member.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * math.ceil(len(inputs) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    member.train()
    for _ in range(steps):
        rows = torch.randint(len(inputs), (_BATCH,))
        noisy = (inputs[rows] + 0.15 * torch.randn(_BATCH, inputs.shape[1])).clamp(-5, 5)
        loss = reduce(add, (_loss(scores, wanted[rows, i]) for i, scores in enumerate(member(noisy))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _loss(scores: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy of the clips that have an answer; 0 where none has."""
    total = F.cross_entropy(scores, wanted, ignore_index=UNKNOWN, reduction="sum")
    return total / (wanted != UNKNOWN).sum().clamp(min=1)


def worn(samples: Tensor, generator: torch.Generator) -> Tensor:
    """[L] with 3 to 20 dB less noise than signal, noise that follows the signal's own spectrum and loudness, and often
    without its top: what coding does to a sound, so that the critic listens for the music and not for how clean it is."""
    window = torch.hann_window(_WINDOW)
    spectrum = torch.stft(samples, _WINDOW, _WINDOW // 4, window=window, return_complex=True)
    level = F.avg_pool2d(spectrum.abs()[None], (9, 3), 1, (4, 1), count_include_pad=False)[0]
    random = torch.rand(2, *level.shape, generator=generator)
    noise = level * (-2 * random[0].clamp(min=1e-6).log()).sqrt() * torch.exp(2j * math.pi * random[1])
    draw = torch.rand(3, generator=generator)
    made = spectrum + 0.7 * noise * 10 ** (-(3 + 17 * float(draw[0])) / 20)
    if draw[1] < 0.5:
        top = int(len(made) * (0.25 + 0.5 * float(draw[2])))
        made[top:] *= 0.1
    return torch.istft(made, _WINDOW, _WINDOW // 4, window=window, length=len(samples))


def features_of(samples: Tensor, rate_hz: int) -> Tensor:
    """[L] -> what the critic sees: how the onsets of four bands repeat, and how levels are spread in each mel band."""
    mels = _mels(samples, rate_hz)
    repeats = _repeats(_onsets(mels))
    relative = mels - mels.amax()
    spread = torch.quantile(relative, torch.tensor([0.1, 0.5, 0.9]), dim=1).flatten()
    change = mels.diff(dim=1).abs().mean(dim=1)
    return torch.cat([repeats.flatten(), spread, change])


def onset_strength(samples: Tensor, rate_hz: int) -> Tensor:
    """How much louder each frame is than the one before, over all bands: [T] at FRAME_HZ."""
    return _onsets(_mels(samples, rate_hz)).mean(dim=0)


def tempo_bpm(samples: Tensor, rate_hz: int, jangdan: str) -> float:
    """The tempo at which a clip fits a jangdan best, a tenth beyond its usual range included.

    The onsets are held against themselves one, two, ... beats and one pulse later.
    """
    strength = onset_strength(samples, rate_hz)
    strength = torch.nn.functional.conv1d(
        (strength - strength.mean())[None, None], torch.hann_window(9)[None, None], padding=4
    )[0, 0]
    spectrum = torch.fft.rfft(strength, 2 * len(strength))
    fit = torch.fft.irfft(spectrum.abs().pow(2))[: len(strength)]
    fit = fit / (len(strength) - torch.arange(len(strength))).clamp(min=FRAME_HZ)
    rhythm = JANGDAN[jangdan]
    low, high = 0.9 * rhythm.tempo_bpm[0], 1.1 * rhythm.tempo_bpm[1]
    candidates = torch.arange(low, high, 0.005 * low)
    beats = torch.tensor(
        [1.0, 2.0, 3.0, 4.0, 1.0 / rhythm.pulses_per_beat, 6.0, 8.0, 12.0, 2.0 / rhythm.pulses_per_beat]
    )
    lags = FRAME_HZ * 60.0 / candidates[:, None] * beats
    inside = lags < 0.75 * len(fit)
    low_index = lags.long().clamp(max=len(fit) - 2)
    part = lags - low_index
    value = fit[low_index] * (1 - part) + fit[low_index + 1] * part
    score = (value * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
    return float(candidates[int(score.argmax())])


def _mels(samples: Tensor, rate_hz: int) -> Tensor:
    """Log10 mel magnitudes [n_mels, T], peak level removed, silence at a floor 60 dB down."""
    samples = samples / samples.abs().max().clamp(min=1e-6)
    # Hops of a quarter window: 8 ms at 32 kHz.
    mels = log_mel(samples[None], _WINDOW, _N_MELS, rate_hz)[0]
    return mels.clamp(min=float(mels.max()) - 3.0)


def _onsets(mels: Tensor) -> Tensor:
    """Rises over 24 ms in each of _N_BANDS groups of mel bands, [_N_BANDS, T]."""
    rise = (mels[:, 3:] - mels[:, :-3]).clamp(min=0)
    return F.pad(rise, (3, 0)).unflatten(0, (_N_BANDS, -1)).mean(dim=1)


def _repeats(onsets: Tensor) -> Tensor:
    """Autocorrelation of each band's onsets, [_N_BANDS, _N_LAGS] on lags in a geometric row, 1 at lag 0."""
    centred = onsets - onsets.mean(dim=1, keepdim=True)
    n = centred.shape[1]
    power = torch.fft.rfft(centred, 2 * n).abs().pow(2)
    fit = torch.fft.irfft(power)[:, :n]
    fit = fit / (n - torch.arange(n)).clamp(min=n // 8)
    fit = fit / fit[:, :1].clamp(min=1e-9)
    lags = _lags()[_lags() < n - 1]
    blurred = torch.stack([fit[:, int(lag * 0.98) : int(lag * 1.02) + 2].amax(dim=1) for lag in lags], dim=1)
    return F.pad(blurred, (0, _N_LAGS - len(lags)))


@functools.lru_cache(maxsize=1)
def _lags() -> Tensor:
    return torch.logspace(math.log10(_LAGS_S[0]), math.log10(_LAGS_S[1]), _N_LAGS) * FRAME_HZ
