"""MultiBand Diffusion: latents of a codec to audio. Source: audiocraft `MultiBandDiffusion.tokens_to_wav`.

The audio is the sum of one diffused signal a band, equalized to the spectrum of the codec's own decode. All windows
of a long signal take each step together: the signal, the noise and the equalizer span the full length, and only the
U-Net runs on one window at a time.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modules import module_list
from .bands import apply_filter, band_deviations, low_pass_filters, weighted
from .config import BandConfig, DiffusionConfig
from .moments import EXCERPT_S, Excerpts, replay
from .processor import Processor
from .schedule import advance, plan_steps
from .unet import RunHooks, Unet
from .windows import plan_windows, write_crossfaded

OnStep = Callable[[int, int], None]
UnetCall = Callable[..., Tensor]  # a Unet, or what computes the same: (x, step, condition, hooks) -> Tensor

EQ_BANDS = 32
WINDOW_S = 60.0  # longest window of the U-Net; shorter clips share it as a batch
FADE_S = 1.0


class Band(nn.Module):
    """Diffusion model of one frequency band."""

    def __init__(self, config: BandConfig):
        super().__init__()
        self.config = config
        self.unet = Unet(config.unet)
        self.processor = Processor(config.processor) if config.processor else None


@dataclass
class _Rows:
    """Signals diffused as one batch, on the device."""

    latents: Tensor  # [R, D, T]
    length: int  # samples of a signal
    excerpt: int  # samples of an excerpt that statistics are estimated from
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        self._generators = {seed: torch.Generator().manual_seed(seed) for seed in self.seeds}
        self._noise = torch.empty(len(self.seeds), self.length)

    def noise(self) -> Tensor:
        """Next noise [R, L]; rows of equal seeds get equal noise."""
        drawn: dict[int, int] = {}
        for row, seed in enumerate(self.seeds):
            if seed in drawn:
                self._noise[row] = self._noise[drawn[seed]]
            else:
                self._noise[row].normal_(generator=self._generators[seed])
                drawn[seed] = row
        return self._noise.to(self.latents.device)


class MultiBandDecoder(nn.Module):
    """MultiBand Diffusion of one checkpoint. Rows are channels, diffused and equalized independently.

    faster: the form of a U-Net to run in its place, asked for once a decode and band.
    """

    def __init__(self, config: DiffusionConfig, faster: Callable[[Unet], UnetCall] = lambda unet: unet):
        super().__init__()
        self.config, self._faster = config, faster
        self.bands = module_list(Band(band) for band in config.bands)

    @property
    def device(self) -> torch.device:
        return self.bands[0].unet.device

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        reference: Tensor,
        seeds: Sequence[int],
        on_step: OnStep | None = None,
        *,
        window_s: float = WINDOW_S,
        fade_s: float = FADE_S,
    ) -> Tensor:
        """Decode latents [R, D, T] to audio [R, L] on the CPU; reference [R, L] is the codec's own decode.

        seeds: one a row. on_step(done, total) is called after each step of each band and window, and again with
        unchanged numbers between layers. An exception that it raises ends the run.
        """
        (n_rows, length), rate_hz = reference.shape, self.config.sample_rate_hz
        at_once = max(1, int(window_s * rate_hz) // length)
        groups = [slice(start, start + at_once) for start in range(0, n_rows, at_once)]
        band_windows = [_windows(band, length, rate_hz, window_s, fade_s) for band in self.config.bands]
        n_evaluations = sum(_n_evaluations(band, windows) for band, windows in zip(self.config.bands, band_windows)) + 1
        progress = _Progress(on_step, len(groups) * n_evaluations)
        result = torch.empty(n_rows, length)
        for group in groups:
            rows = _Rows(latents[group].to(self.device), length, int(EXCERPT_S * rate_hz), seeds[group])
            total = torch.zeros(len(rows.seeds), length, device=self.device)
            for band, windows in zip(self.bands, band_windows):
                fade = int(fade_s * rate_hz) if len(windows) > 1 else 0
                total += _diffuse(band, self._faster(band.unet), rows, windows, fade, progress)
            wanted = reference[group].to(self.device)
            result[group] = equalize(total, wanted, rate_hz, progress.tick).cpu()
            progress.advance()
        return result


class _Progress:
    """Step counter that reports unchanged numbers between layers, so that Cancel works there."""

    def __init__(self, on_step: OnStep | None, total: int):
        self._on_step, self.done, self.total = on_step, 0, total

    def tick(self) -> None:
        if self._on_step:
            self._on_step(self.done, self.total)

    def advance(self) -> None:
        self.done += 1
        self.tick()


def _windows(band: BandConfig, length: int, rate_hz: int, window_s: float, fade_s: float) -> list[tuple[int, int]]:
    """Windows (first, last + 1) of a signal of `length` samples, in frames of the U-Net's deepest level."""
    hop = band.unet.hop
    overlap = -(-(2 * band.unet.reach + int(fade_s * rate_hz)) // hop) + 1
    return plan_windows(-(-length // hop), max(int(window_s * rate_hz) // hop, 2 * overlap), overlap)


def _n_evaluations(band: BandConfig, windows: Sequence[tuple[int, int]]) -> int:
    return len(plan_steps(band.schedule)) * (len(windows) + (len(windows) > 1))


def _diffuse(
    band: Band, unet: UnetCall, rows: _Rows, windows: Sequence[tuple[int, int]], fade: int, progress: _Progress
) -> Tensor:
    """Diffused signal of one band, [R, L]."""
    schedule, config = band.config.schedule, band.config.unet
    n_frames = -(-rows.length // config.hop)
    condition = _Condition(band.unet, rows.latents, n_frames, len(windows) == 1)
    excerpts = Excerpts(n_frames, rows.excerpt // config.hop, -(-config.reach // config.hop))
    x = rows.noise() * schedule.noise_scale
    estimate = torch.empty_like(x)

    def run(spans: Sequence[tuple[int, int]], step: int, hooks: RunHooks) -> Tensor:
        """Noise [spans * R, samples] that the U-Net estimates for some spans of all rows, as one batch."""
        parts = torch.cat([x[:, None, first * config.hop : last * config.hop] for first, last in spans])
        noise = unet(parts.to(condition.dtype), step, condition(spans), hooks)[:, 0]
        progress.advance()
        return noise.to(x.dtype)

    for step in plan_steps(schedule):
        statistics = None
        if len(windows) > 1:
            statistics = excerpts.measure(functools.partial(run, excerpts.spans, step.step), progress.tick)
        written = 0
        for window in windows:
            hooks = replay(statistics, progress.tick) if statistics else RunHooks(progress.tick)
            estimated = run([window], step.step, hooks)
            write_crossfaded(estimate, estimated, window[0] * config.hop, written, fade)
            written = min(window[1] * config.hop, rows.length)
        advance(x, estimate, step, rows.noise() if step.deviation else None, schedule.clip)
    return band.processor(x, progress.tick) if band.processor else x


class _Condition:
    """Codec latents, resampled to the bottleneck frames of a window."""

    def __init__(self, unet: Unet, latents: Tensor, n_frames: int, reuse: bool):
        self.dtype = unet.conv_codec.weight.dtype
        self._unet, self._latents, self._reuse = unet, latents.to(self.dtype), reuse
        self._cached: Tensor | None = None
        self._attended = unet.config.transformer and unet.config.cross_attention
        # The index of the latent of each frame is torch's own rounding, as in audiocraft's `interpolate`.
        numbers = torch.arange(latents.shape[-1], dtype=torch.float32)[None, None]
        self._index = F.interpolate(numbers, n_frames)[0, 0].long()

    def __call__(self, spans: Sequence[tuple[int, int]]) -> Tensor:
        """Condition [spans * R, C, frames]; with cross-attention [spans * R, C, latents], not repeated to frames."""
        if self._cached is None or not self._reuse:
            self._cached = torch.cat([self._part(first, last) for first, last in spans])
        return self._cached

    def _part(self, first: int, last: int) -> Tensor:
        index, n_latents = self._index[first:last], self._latents.shape[-1]
        begin, end = int(index[0]), int(index[-1]) + 1
        if self._attended:
            end = min(begin + -(-(last - first) * n_latents // len(self._index)), n_latents)
        condition = self._unet.condition(self._latents[..., begin:end])
        return condition if self._attended else condition[..., (index - begin).to(condition.device)]


def equalize(x: Tensor, reference: Tensor, rate_hz: int, tick: Callable[[], None] = lambda: None) -> Tensor:
    """Equalize x [R, L] so that each of 32 bands has its level in `reference` [R, L], row by row.

    Source: audiocraft `MultiBandDiffusion.re_eq`, which pools levels over the batch and turns silence into NaN.
    Here a band that is silent in `x` stays silent.
    """
    filters = low_pass_filters(EQ_BANDS, rate_hz)
    have, want = band_deviations(x, filters, tick), band_deviations(reference, filters, tick)
    gains = torch.where(have > 0, want / have, 0.0)
    return apply_filter(x, weighted(filters.double(), gains).float(), tick)
