"""From noise to a signal in 20 steps. Source: audiocraft `NoiseSchedule.generate_subsampled`."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import N_STEPS, ScheduleConfig

_STRIDE = 50


@dataclass(frozen=True)
class Step:
    """One denoising step: x <- (x - noise_factor * estimate) / divisor + deviation * fresh noise."""

    step: int  # step number, input of the U-Net
    noise_factor: float
    divisor: float
    deviation: float  # 0 at the last step


def plan_steps(config: ScheduleConfig) -> list[Step]:
    """The steps of a run, noisiest first."""
    low, high = (beta ** (1 / config.beta_exp) for beta in (config.beta_t0, config.beta_t1))
    keep = 1 - torch.linspace(low, high, N_STEPS, dtype=torch.float32) ** config.beta_exp
    cumulative = keep.cumprod(dim=0)
    visited = [*range(N_STEPS - 1, -1, -_STRIDE), 0]
    steps, level = [], keep.prod()
    for step, following in itertools.pairwise(visited):
        # audiocraft takes products of the same factors by prod here and by cumprod there, and alpha through 1 - beta.
        alpha = 1 - (1 - cumulative[step] / cumulative[following])
        last = step == visited[-2]
        next_level = torch.tensor(1.0) if last else keep[: following + 1].prod()
        variance = (1 - next_level) / (1 - level) * (1 - alpha)
        factor = (1 - alpha) / (1 - level).sqrt() * config.noise_scale
        deviation = 0.0 if last or variance <= 0 else variance.sqrt().item() * config.noise_scale
        steps.append(Step(step, factor.item(), alpha.sqrt().item(), deviation))
        level = next_level
    return steps


def advance(x: Tensor, estimate: Tensor, step: Step, noise: Tensor | None, clip: float) -> None:
    """Advance x [B, L] by one step in place, with estimate and noise [B, L]; a step of deviation 0 needs no noise."""
    x.sub_(estimate, alpha=step.noise_factor).div_(step.divisor)
    if noise is not None and step.deviation:
        x.add_(noise, alpha=step.deviation)
    if clip:
        x.clamp_(-clip, clip)
