"""MultiBand Diffusion: latents of a codec to audio. Source: audiocraft `MultiBandDiffusion.tokens_to_wav`.

Each band's diffusion makes a signal, their sum is the audio, and an equalizer gives it the spectrum of what the
codec itself makes of the codes. Long signals are diffused in windows that take each step together: whatever the
length, there is one signal, one noise and one equalizer, and only the U-Net looks at a part of it at a time.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bands import apply_filter, band_deviations, low_pass_filters, weighted
from .config import BandConfig, DiffusionConfig
from .fast import fast_unet
from .moments import EXCERPT_S, Excerpts, replay
from .processor import Processor
from .schedule import advance, plan_steps
from .unet import Unet, Watch
from .windows import place, plan_windows

OnStep = Callable[[int, int], None]

EQ_BANDS = 32
WINDOW_S = 60.0  # what the U-Net sees at a time, at most; of a batch of shorter clips, as many as fit into it
FADE_S = 1.0


class Band(nn.Module):
    """One of the diffusion models."""

    def __init__(self, config: BandConfig):
        super().__init__()
        self.config = config
        self.unet = Unet(config.unet)
        self.processor = Processor(config.processor) if config.processor else None


@dataclass
class _Rows:
    """A group of signals that are diffused side by side, on the device."""

    latents: Tensor  # [R, D, T]
    length: int  # in samples
    excerpt: int  # of each excerpt that statistics are taken from
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        self._generators = {seed: torch.Generator().manual_seed(seed) for seed in self.seeds}
        self._noise = torch.empty(len(self.seeds), self.length)

    def noise(self) -> Tensor:
        """The next noise [R, L]. Rows of one seed have one noise."""
        drawn: dict[int, int] = {}
        for row, seed in enumerate(self.seeds):
            if seed in drawn:
                self._noise[row] = self._noise[drawn[seed]]
            else:
                self._noise[row].normal_(generator=self._generators[seed])
                drawn[seed] = row
        return self._noise.to(self.latents.device)


class MultiBandDecoder(nn.Module):
    """All bands of one checkpoint. Rows are channels: each is diffused and equalized by itself."""

    def __init__(self, config: DiffusionConfig):
        super().__init__()
        self.config = config
        self.bands = nn.ModuleList(Band(band) for band in config.bands)

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
        """latents [R, D, T] and the codec's own audio of the same codes [R, L] -> [R, L] on the CPU.

        seeds: one a row. on_step(done, total) comes after each step of each band and window, and with the same
        numbers between layers; what it raises ends the run.
        """
        (n_rows, length), rate_hz = reference.shape, self.config.sample_rate_hz
        at_once = max(1, int(window_s * rate_hz) // length)
        groups = [slice(start, start + at_once) for start in range(0, n_rows, at_once)]
        jobs = [_windows(band, length, rate_hz, window_s, fade_s) for band in self.config.bands]
        a_group = sum(_n_evaluations(band, windows) for band, windows in zip(self.config.bands, jobs)) + 1
        progress = _Progress(on_step, len(groups) * a_group)
        result = torch.empty(n_rows, length)
        for group in groups:
            rows = _Rows(latents[group].to(self.device), length, int(EXCERPT_S * rate_hz), seeds[group])
            total = torch.zeros(len(rows.seeds), length, device=self.device)
            for band, windows in zip(self.bands, jobs):
                fade = int(fade_s * rate_hz) if len(windows) > 1 else 0
                total += _diffuse(band, rows, windows, fade, progress)
            wanted = reference[group].to(self.device)
            result[group] = equalize(total, wanted, rate_hz, progress.tick).cpu()
            progress.advance()
        return result


class _Progress:
    """Counts steps, and repeats the count between layers so that the run can be ended there."""

    def __init__(self, on_step: OnStep | None, total: int):
        self._on_step, self.done, self.total = on_step, 0, total

    def tick(self) -> None:
        if self._on_step:
            self._on_step(self.done, self.total)

    def advance(self) -> None:
        self.done += 1
        self.tick()


def _windows(band: BandConfig, length: int, rate_hz: int, window_s: float, fade_s: float) -> list[tuple[int, int]]:
    """The windows of a signal, in frames of the U-Net's deepest level."""
    hop = band.unet.hop
    overlap = -(-(2 * band.unet.reach + int(fade_s * rate_hz)) // hop) + 1
    return plan_windows(-(-length // hop), max(int(window_s * rate_hz) // hop, 2 * overlap), overlap)


def _n_evaluations(band: BandConfig, windows: Sequence[tuple[int, int]]) -> int:
    return len(plan_steps(band.schedule)) * (len(windows) + (len(windows) > 1))


def _diffuse(band: Band, rows: _Rows, windows: Sequence[tuple[int, int]], fade: int, progress: _Progress) -> Tensor:
    """One band's part of the audio, [R, L]."""
    schedule, config = band.config.schedule, band.config.unet
    n_frames = -(-rows.length // config.hop)
    condition, unet = _Condition(band.unet, rows.latents, n_frames, len(windows) == 1), fast_unet(band.unet)
    excerpts = Excerpts(n_frames, rows.excerpt // config.hop, -(-config.reach // config.hop))
    x = rows.noise() * schedule.noise_scale
    estimate = torch.empty_like(x)

    def run(spans: Sequence[tuple[int, int]], step: int, watch: Watch) -> Tensor:
        """The U-Net on parts of all rows, side by side: [parts * R, samples]."""
        given = torch.cat([x[:, None, first * config.hop : last * config.hop] for first, last in spans])
        made = unet(given.to(condition.dtype), step, condition(spans), watch)[:, 0]
        progress.advance()
        return made.to(x.dtype)

    for step in plan_steps(schedule):
        seen = None
        if len(windows) > 1:
            seen = excerpts.measure(functools.partial(run, excerpts.spans, step.step), progress.tick)
        written = 0
        for window in windows:
            watch = replay(seen, progress.tick) if seen else Watch(progress.tick)
            place(estimate, run([window], step.step, watch), window[0] * config.hop, written, fade)
            written = min(window[1] * config.hop, rows.length)
        advance(x, estimate, step, rows.noise() if step.deviation else None, schedule.clip)
    return band.processor(x, progress.tick) if band.processor else x


class _Condition:
    """The codec's latents as the bottleneck of a window wants them."""

    def __init__(self, unet: Unet, latents: Tensor, n_frames: int, keep: bool):
        self.dtype = unet.conv_codec.weight.dtype
        self._unet, self._latents, self._keep = unet, latents.to(self.dtype), keep
        self._kept: Tensor | None = None
        self._attended = unet.config.transformer and unet.config.cross_attention
        # Which of the T latents each frame takes: torch's own rounding, as in audiocraft's `interpolate`.
        numbers = torch.arange(latents.shape[-1], dtype=torch.float32)[None, None]
        self._index = F.interpolate(numbers, n_frames)[0, 0].long()

    def __call__(self, spans: Sequence[tuple[int, int]]) -> Tensor:
        """[parts * R, C, frames], or for cross-attention the latents of these frames, each once."""
        if self._kept is None or not self._keep:
            self._kept = torch.cat([self._part(first, last) for first, last in spans])
        return self._kept

    def _part(self, first: int, last: int) -> Tensor:
        index, n_latents = self._index[first:last], self._latents.shape[-1]
        begin, end = int(index[0]), int(index[-1]) + 1
        if self._attended:
            end = min(begin + -(-(last - first) * n_latents // len(self._index)), n_latents)
        made = self._unet.condition(self._latents[..., begin:end])
        return made if self._attended else made[..., (index - begin).to(made.device)]


def equalize(x: Tensor, reference: Tensor, rate_hz: int, tick: Callable[[], None] = lambda: None) -> Tensor:
    """x [R, L] with the level of each of 32 bands that it has in `reference` [R, L]: each row by itself.

    Source: audiocraft `MultiBandDiffusion.re_eq`, whose levels are those of a whole batch, and which makes silence
    NaN. Here a band that is silent in `x` stays so.
    """
    filters = low_pass_filters(EQ_BANDS, rate_hz)
    have, want = band_deviations(x, filters, tick), band_deviations(reference, filters, tick)
    gains = torch.where(have > 0, want / have, 0.0)
    return apply_filter(x, weighted(filters.double(), gains).float(), tick)
