"""Frozen descriptions of a MultiBand Diffusion model: one U-Net, noise schedule and level processor a band."""

from dataclasses import dataclass

from ..errors import CheckpointError

N_STEPS = 1000  # of the training schedule; sampling visits 20 of them


@dataclass(frozen=True)
class UnetConfig:
    """Shape of one band's U-Net. Defaults are audiocraft's. Source: audiocraft `DiffusionUnet`, one audio channel."""

    hidden: int = 24  # width of the first level; each further one is `growth` times as wide
    depth: int = 3
    growth: float = 2.0
    max_channels: int = 10_000
    kernel: int = 4
    stride: int = 2  # of each level, in time
    norm_groups: int = 4
    res_blocks: int = 1
    emb_all_layers: bool = False  # whether levels after the first are told the step, too
    codec_dim: int = 128  # width of the codec's latents, the condition
    bilstm: bool = False
    transformer: bool = False
    cross_attention: bool = False  # the transformer attends to the condition, which is otherwise added

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.depth < 1 or self.stride < 2 or not self.growth >= 1:
            raise CheckpointError(f"the diffusion U-Net {self} is none: it has no levels, or they do not get smaller")
        for width in self.widths:
            if width % self.norm_groups or (self.transformer and width == self.widths[-1] and width % 16):
                raise CheckpointError(
                    f"the diffusion U-Net's width {width} cannot be split into {self.norm_groups} groups"
                    + (" and 8 attention heads of even width" if self.transformer else "")
                )
        if self.kernel < self.stride or (self.kernel - self.stride) % 2:
            raise CheckpointError(
                f"the diffusion U-Net's kernel {self.kernel} must exceed its stride {self.stride} by an even number"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        widths = [self.hidden]
        while len(widths) < self.depth:
            widths.append(min(int(widths[-1] * self.growth), self.max_channels))
        return tuple(widths)

    @property
    def hop(self) -> int:
        """Samples to one frame of the deepest level."""
        return self.stride**self.depth

    @property
    def reach(self) -> int:
        """Samples before and after a sample that the convolutions' result for it depends on, at most."""
        blocks = sum(2 * 2**block for block in range(self.res_blocks))
        frames = 2 * blocks + 2  # on the way down and up, and what the strided convolutions reach over
        return sum(frames * self.stride ** (level + 1) + 2 * self.kernel for level in range(self.depth))


@dataclass(frozen=True)
class ScheduleConfig:
    """Noise schedule: beta grows from t0 to t1 as a power of the step. Defaults are audiocraft's `NoiseSchedule`."""

    beta_t0: float = 1e-4
    beta_t1: float = 0.02
    beta_exp: float = 1.0
    clip: float = 5.0  # of the signal after each step; 0 = off
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_t0 <= self.beta_t1 < 1 or self.beta_exp <= 0:
            raise CheckpointError(
                f"the diffusion schedule from {self.beta_t0:g} to {self.beta_t1:g} with exponent {self.beta_exp:g} is "
                "none: the noise must grow from more than 0 to less than 1"
            )


@dataclass(frozen=True)
class ProcessorConfig:
    """Gains that bring a band's levels from the diffusion's back to the audio's. Source: `MultiBandProcessor`."""

    n_bands: int
    n_taps: int  # of its low-pass filters
    power_std: float = 1.0


@dataclass(frozen=True)
class BandConfig:
    """One of the models that together make the audio."""

    unet: UnetConfig
    schedule: ScheduleConfig
    processor: ProcessorConfig | None = None  # None: the diffusion's levels are the audio's


@dataclass(frozen=True)
class DiffusionConfig:
    """A MultiBand Diffusion model: the bands add up."""

    name: str
    sample_rate_hz: int
    bands: tuple[BandConfig, ...]

    def __post_init__(self) -> None:
        if not self.bands:
            raise CheckpointError(f"{self.name}: the diffusion model has no bands")
        if len({band.unet.codec_dim for band in self.bands}) > 1:
            raise CheckpointError(f"{self.name}: the bands of the diffusion model read latents of different widths")

    @property
    def latent_dim(self) -> int:
        """Width of the codec's latents."""
        return self.bands[0].unet.codec_dim

    @property
    def identity(self) -> str:
        """The codec that it was made for, as far as its file tells."""
        return f"{self.name} ({self.sample_rate_hz} Hz, latents of width {self.latent_dim})"
