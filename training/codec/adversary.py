"""What a waveform is compared by when a GPU trains the codec: spectra of many windows, a discriminator, and their balance.

Sources: EnCodec (arXiv:2210.13438): multi-scale STFT discriminator, feature matching, balancer of gradients. The hops of the
spectra share no factor with the codec's frame, and their first window begins anywhere, so that no sample of a frame is
seen less than others: what a decoder repeats in every frame is a comb of lines at multiples of the frame rate.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from .spectral import mel_bands

WINDOWS = ((128, 31, 0), (256, 61, 40), (512, 127, 64), (1024, 251, 96), (2048, 509, 128), (4096, 1021, 160))
# window, hop, mel bands (0: none)
LEVELS = (
    (512, 40, 4),
    (2048, 128, 2),
    (4096, 0, None),
)  # window, mel bands (0: none), frames that are averaged (None: all)
_FAINTEST = 1e-8  # power below this counts as silence
_POWER = 0.3  # compresses magnitudes about as loudness does
_FLOOR = 1e-4  # magnitudes below this count as silence
_SCALES = (2048, 1024, 512)  # windows of the discriminator
_SLOPE = 0.2
_GRADIENT = 0.3  # norm at the waveform of a clip, of all losses together


def spectral_loss(ours: Tensor, theirs: Tensor, rate_hz: int, offset: int) -> Tensor:
    """Mean difference of compressed magnitudes [B, L] twice -> scalar, in mel bands and in all bins; windows from `offset` on."""
    total = ours.new_zeros(())
    for window, hop, n_mels in WINDOWS:
        start = offset % hop
        a, b = (_magnitude(x[:, start:], window, hop) for x in (ours, theirs))
        total = total + F.l1_loss(a.pow(_POWER), b.pow(_POWER))
        if n_mels:
            bands = mel_bands(rate_hz, window, n_mels).to(a.device)
            total = total + F.l1_loss((bands @ a).pow(_POWER), (bands @ b).pow(_POWER))
    return total / len(WINDOWS)


def level_loss(ours: Tensor, theirs: Tensor, rate_hz: int, offset: int) -> Tensor:
    """Mean difference of log10 powers [B, L] twice, each averaged until noise has a level -> scalar; windows from `offset` on.

    What cannot be foretold, such as the noise of a drum, is nearest in waveform and magnitudes where it is made softer. Its
    mean power is not. That of single bins over a whole clip is flat for noise, and has lines where a frame repeats the last.
    """
    total = ours.new_zeros(())
    for window, n_mels, n_averaged in LEVELS:
        start = offset % (window // 2)
        logs = []
        for x in (ours, theirs):
            power = _square(x[:, start:], window, window // 2)
            if n_mels:
                power = mel_bands(rate_hz, window, n_mels).to(x.device) @ power
            power = F.avg_pool1d(power, n_averaged, n_averaged // 2) if n_averaged else power.mean(dim=-1)
            logs.append((power + _FAINTEST).log10())
        total = total + F.l1_loss(*logs)
    return total / len(LEVELS)


def wave_loss(ours: Tensor, theirs: Tensor) -> Tensor:
    """Differences of [B, L] relative to each row's level: absolute and squared, so that faint rows count as loud ones."""
    level = theirs.pow(2).mean(dim=1, keepdim=True).sqrt() + 0.01
    difference = (ours - theirs) / level
    return difference.abs().mean() + 0.5 * difference.pow(2).mean()


class Discriminator(nn.Module):
    """Tells clips from reconstructions: small networks over complex spectra of several windows."""

    def __init__(self, n_filters: int = 16) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_Scale(window, n_filters) for window in _SCALES)

    def forward(self, waves: Tensor) -> list[list[Tensor]]:
        """[B, L] -> for each scale the features of each layer, the verdict last."""
        return [scale(waves) for scale in self.scales]


class _Scale(nn.Module):
    shape: Tensor  # [window] of the spectrum

    def __init__(self, window: int, n: int) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("shape", torch.hann_window(window), persistent=False)
        convolve = parametrizations.weight_norm
        layers = [convolve(nn.Conv2d(2, n, (3, 9), padding=(1, 4)))]
        layers += [convolve(nn.Conv2d(n, n, (3, 9), stride=(1, 2), dilation=(d, 1), padding=(d, 4))) for d in (1, 2, 4)]
        layers += [convolve(nn.Conv2d(n, n, (3, 3), padding=(1, 1))), convolve(nn.Conv2d(n, 1, (3, 3), padding=(1, 1)))]
        self.layers = nn.ModuleList(layers)

    def forward(self, waves: Tensor) -> list[Tensor]:
        with torch.autocast(waves.device.type, enabled=False):
            spectrum = torch.stft(
                waves.float(), self.window, self.window // 4, window=self.shape, normalized=True, return_complex=True
            )
            x = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [B, 2, frames, bins]
        features = []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), _SLOPE)
            features.append(x)
        return [*features, self.layers[-1](x)]


def judged(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """The discriminator's hinge loss."""
    losses = [
        F.relu(1 - a[-1].float()).mean() + F.relu(1 + b[-1].float()).mean() for a, b in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def fooled(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """What the codec is told: the hinge loss for being taken for real, and the relative distance of the features."""
    verdict = torch.stack([F.relu(1 - scale[-1].float()).mean() for scale in fake]).mean()
    distances = [
        (b.float() - a.float()).abs().mean() / a.float().abs().mean().clamp(min=1e-4)
        for theirs, ours in zip(real, fake, strict=True)
        for a, b in zip(theirs[:-1], ours[:-1], strict=True)
    ]
    return verdict, torch.stack(distances).mean()


class Balancer:
    """Gives each loss a fixed share of the gradient at the waveform, whatever its scale. Source: EnCodec, section 3.4."""

    def __init__(self, decay: float = 0.99) -> None:
        self._decay = decay
        self._norms: dict[str, Tensor] = {}
        self._seen: dict[str, int] = {}

    def gradient(self, losses: Mapping[str, Tensor], weights: Mapping[str, float], decoded: Tensor) -> Tensor:
        """The weighted gradient of all losses at `decoded` [B, L]."""
        total = torch.zeros_like(decoded)
        for name, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, decoded, retain_graph=True)
            norm = gradient.flatten(1).norm(dim=1).mean().detach()
            seen = self._seen.get(name, 0) + 1
            keep = min(self._decay, 1 - 1 / seen)
            self._norms[name] = norm if seen == 1 else keep * self._norms[name] + (1 - keep) * norm
            self._seen[name] = seen
            total += weights[name] / self._norms[name].clamp(min=1e-9) * gradient
        return _GRADIENT * total / sum(weights[name] for name in losses) / len(decoded)

    def state(self) -> dict:
        return {"norms": dict(self._norms), "seen": dict(self._seen)}

    def restore(self, table: Mapping) -> None:
        self._norms, self._seen = dict(table["norms"]), dict(table["seen"])


def _magnitude(x: Tensor, window: int, hop: int) -> Tensor:
    """[B, bins, frames]; a sine of amplitude 1 is about 1 in its bin."""
    return (_square(x, window, hop) + _FLOOR**2).sqrt()


def _square(x: Tensor, window: int, hop: int) -> Tensor:
    """[B, bins, frames] powers of the magnitudes."""
    shape = torch.hann_window(window, device=x.device)
    spectrum = torch.stft(x.float(), window, hop, window=shape, return_complex=True)
    return torch.view_as_real(spectrum).pow(2).sum(-1) * (4 / window) ** 2
