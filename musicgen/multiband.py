"""MultiBand Diffusion beside a codec: read from its file, and as another decoder of the codec's codes."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from . import accel
from .audio import Audio
from .checkpoints import fill
from .checkpoints.weights.lazy import Check, unchecked
from .codec import Codec
from .codes import Codes
from .diffusion import WINDOW_S, MultiBandDecoder
from .diffusion.checkpoint import open_diffusion
from .diffusion.config import DiffusionConfig
from .diffusion.processor import Processor
from .errors import InputError
from .seeds import row_seed

logger = logging.getLogger(__name__)

OnStep = Callable[[int, int], None]


class Diffusion(nn.Module):
    """A MultiBand Diffusion model: another decoder for the codes of the codec that it was trained with."""

    def __init__(self, config: DiffusionConfig, decoder: MultiBandDecoder):
        super().__init__()
        self.config = config
        self.decoder = decoder

    def decode(self, codec: Codec, codes: Codes, seed: int = 0, on_step: OnStep | None = None) -> Audio:
        """Audio [B, channels, L] of codes [B, K, T]: `refine` of what the codec itself makes of them."""
        self.check(codec)
        codes.check_codec(codec.config.identity)
        plain = codec.decode(codes, on_step and (lambda done, total: on_step(0, 1)))
        return self.refine(plain, codec.decode_latent(codes), seed, on_step)

    def refine(self, plain: Audio, latents: Tensor, seed: int = 0, on_step: OnStep | None = None) -> Audio:
        """Audio [B, C, L] from the codec's `decode` and `decode_latent`; the codec need not stay on the device.

        The noise of clip i is that of `row_seed(seed, i)`, the same for all of its channels: where left and right
        have the same codes, they sound the same. on_step(done, total) is also called between layers with numbers
        that have not changed; what it raises ends the run.
        """
        n_clips, n_channels, length = plain.samples.shape
        seeds = [row_seed(seed, clip) for clip in range(n_clips) for _ in range(n_channels)]
        samples = self.decoder.decode(latents, plain.samples.reshape(-1, length), seeds, on_step)
        return Audio(samples.view_as(plain.samples), plain.rate_hz)

    def check(self, codec: Codec) -> None:
        """InputError, naming both, for a codec that this model was not made for."""
        config = codec.config
        fits = (config.sample_rate_hz, config.latent_dim) == (self.config.sample_rate_hz, self.config.latent_dim)
        if not fits or any(2 * config.hop < band.unet.hop for band in self.config.bands):
            raise InputError(
                f"The codes are those of {config.identity} (latents of width {config.latent_dim}), but the MultiBand "
                f"Diffusion model {self.config.identity} was made for another codec. Decode them with the codec alone, "
                "or load the diffusion model that belongs to it."
            )

    def memory_bytes(self, codes: Codes, codec: Codec) -> int:
        """Memory of a decode on the device besides the weights: U-Net levels of one window, and signals."""
        length = codes.n_frames * codec.config.hop
        rows = codes.codes.shape[0] * codec.config.channels
        return 4 * (100 * min(rows * length, int(WINDOW_S * self.config.sample_rate_hz)) + 6 * length)


def load_diffusion(
    path: Path, device: torch.device | str = "cpu", name: str | None = None, check: Check = unchecked
) -> Diffusion:
    """Read a MultiBand Diffusion file into CPU memory. `device` is where it will run.

    The U-Nets have the precision of the file on CUDA (`convert --precision float16` makes a file that runs in half
    precision there), float32 elsewhere. check: as for `load`.
    Raises CheckpointError for a file that is missing, damaged, unsafe, or of an unknown architecture.
    """
    begun = time.perf_counter()
    checkpoint = open_diffusion(Path(path))
    stored = checkpoint.weights["bands.0.unet.conv_codec.weight"].dtype
    half = torch.device(device).type == "cuda" and stored in (torch.float16, torch.bfloat16)
    dtype = stored if half else torch.float32
    config = replace(checkpoint.config, name=name or checkpoint.config.name)
    with torch.device("meta"):
        decoder = MultiBandDecoder(config, accel.faster_unet)
    for band in decoder.bands:
        band.unet.to(dtype)
    fill(decoder, checkpoint.weights, str(checkpoint.path), check)
    for number, band in enumerate(decoder.bands):
        if isinstance(band.processor, Processor):
            band.processor.check(f"{checkpoint.path}, band {number}")
    decoder.eval().requires_grad_(False)
    precision = str(dtype).removeprefix("torch.")
    logger.info("loaded %s in %s in %.1f s", config.name, precision, time.perf_counter() - begun)
    return Diffusion(config, decoder)
