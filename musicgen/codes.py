"""Codes: output of the language model, input of a codec."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from .audio.waveform import span
from .errors import InputError


@dataclass(frozen=True)
class Origin:
    """Where one row of codes comes from: what a sampler needs to write it again alone."""

    seed: int
    text: str | None = None  # None = not known


@dataclass(frozen=True)
class CutShort:
    """The mark of a piece that a Cancel ended."""

    kept_s: float
    asked_s: float


@dataclass(frozen=True)
class Codes:
    """Codebook indices of B clips. Shared between nodes and cached by ComfyUI: never altered in place."""

    codes: Tensor  # [B, K, T] int64 on the CPU, 0 <= code < codebook size
    frame_rate_hz: float
    codec: str  # CodecConfig.identity of the codec that decodes them
    origins: tuple[Origin, ...] | None = None  # one a row; None = no sampler wrote them. Trimming keeps them
    cut_short: CutShort | None = None  # of the piece that they are, or were trimmed from

    def __post_init__(self) -> None:
        if self.codes.ndim != 3:
            raise InputError(f"codes must have the shape [batch, codebooks, frames], got {list(self.codes.shape)}")
        if self.origins is not None and len(self.origins) != len(self.codes):
            raise InputError(f"codes of {len(self.codes)} rows must have as many origins, got {len(self.origins)}")

    @property
    def n_frames(self) -> int:
        return self.codes.shape[-1]

    @property
    def duration_s(self) -> float:
        return self.n_frames / self.frame_rate_hz

    def trim(self, start_s: float, end_s: float | None = None) -> "Codes":
        """Copy of the frames between two times in seconds; `end_s` of None or below 0 is the end.

        InputError, naming both values and the length, unless the interval lies within and is not empty.
        """
        first, last = span(start_s, end_s, self.frame_rate_hz, self.n_frames, "the codes")
        return replace(self, codes=self.codes[..., first:last].clone())

    def rows(self, indices: Sequence[int]) -> "Codes":
        """Copy of some rows, in the order of `indices`, with their origins."""
        origins = None if self.origins is None else tuple(self.origins[i] for i in indices)
        return replace(self, codes=self.codes[list(indices)], origins=origins)

    def check_codec(self, identity: str) -> None:
        """InputError, naming both, unless these codes belong to the codec `identity`."""
        if self.codec != identity:
            raise InputError(
                f"These codes were made for {self.codec}, but the codec given is {identity}. "
                "Connect the codec of the same Load MusicGen node that the codes came from."
            )
