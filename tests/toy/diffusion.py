"""A small MultiBand Diffusion file with random weights, in audiocraft's format."""

import math
import os
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ...musicgen.checkpoints.weights.expected import shapes_of
from ...musicgen.diffusion.bands import low_pass_filters
from ...musicgen.diffusion.config import N_STEPS, ProcessorConfig, UnetConfig
from ...musicgen.diffusion.processor import Processor
from ...musicgen.diffusion.unet import Unet
from ...musicgen.errors import InputError

# That of the published models, but narrow; its schedule and processors, too.
TOY_UNET = UnetConfig(hidden=8, depth=4, growth=2.0, kernel=8, stride=4, emb_all_layers=True, codec_dim=128)
_SCHEDULE = {"repartition": "power", "beta_t0": 1e-5, "beta_t1": 2.9e-2, "beta_exp": 7.5, "num_steps": N_STEPS,
             "variance": "beta", "clip": 5.0, "rescale": 1.0, "n_bands": None, "noise_scale": 1.0}  # fmt: skip
_POWERS = (None, None, 0.4, 0.75)  # of each band's processor; None: it has none


def write_toy_diffusion(
    file: Path,
    unet: UnetConfig = TOY_UNET,
    seed: int = 0,
    *,
    sample_rate_hz: int = 32000,
    n_bands: int = 4,
    wrap: Callable[[dict], object] = lambda table: table,
) -> Path:
    """Write `file`, which must not exist unless a toy was written there before, and return it.

    wrap: what makes of each band's table of settings the object that is pickled; audiocraft has OmegaConf's there.
    """
    file = Path(file)
    if file.exists() and file.stat().st_size > 2**27:
        raise InputError(f"'{file}' exists, and is too large for a toy. Give another name.")
    generator = torch.Generator().manual_seed(seed)
    contents: dict = {"sample_rate": sample_rate_hz, "n_bands": n_bands}
    for number in range(n_bands):
        power = _POWERS[number % len(_POWERS)]
        processor = {"name": "multi_band_processor", "use": power is not None, "n_bands": 8, "num_samples": 10_000,
                     "power_std": power or 1.0}  # fmt: skip
        table = {"channels": 1, "schedule": dict(_SCHEDULE), "diffusion_unet": asdict(unet), "processor": processor}
        weights = {name: _weight(name, shape, generator) for name, shape in _unet_shapes(unet)}
        levels = {} if power is None else _levels(8, sample_rate_hz, generator)
        contents[number] = {"cfg": wrap(table), "model_state": weights, "processor_state": levels}
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")
    try:
        torch.save(contents, draft)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return file


def _unet_shapes(unet: UnetConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of their drawing: level by level, the outer convolutions first.

    The order is that of earlier versions, so that one seed gives one file.
    """

    def rank(item: tuple[str, tuple[int, ...]]) -> tuple:
        side, number, part = [*item[0].split(".", 2), "", ""][:3]
        if side in ("encoders", "decoders"):
            level = int(number) if side == "encoders" else unet.depth - 1 - int(number)
            inner = not part.startswith("conv")
            return level, inner, side == "decoders", inner and not part.startswith("norm")
        if side == "embedding":
            return (0, 2)
        return (int(number) + 1, 2) if side == "embeddings" else (unet.depth,)

    return sorted(shapes_of(lambda: Unet(unet)).items(), key=rank)


def _weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
    if "embedding" in name or len(shape) == 1:
        return 0.1 * noise
    return noise / math.sqrt(shape[1] * math.prod(shape[2:]))


def _levels(n_bands: int, sample_rate_hz: int, generator: torch.Generator) -> dict[str, Tensor]:
    """What a processor keeps of its training: sums over the clips that it has seen."""
    filters = low_pass_filters(n_bands, sample_rate_hz)[:, None]
    config = ProcessorConfig(n_bands, filters.shape[-1])
    n_clips = 100.0
    state = {}
    shapes = shapes_of(lambda: Processor(config))
    for name in ("counts", "filters", "sum_x", "sum_x2", "sum_target_x2"):
        shape = shapes[name]
        noise = torch.rand(shape, generator=generator)
        state[name] = {"counts": torch.full(shape, n_clips), "sum_x": 0.001 * n_clips * (noise - 0.5)}.get(
            name, n_clips * (0.5 + noise)
        )
    del state["filters"]
    return state | {"split_bands.lowpass.filters": filters.contiguous()}
