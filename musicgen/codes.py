"""Codes: output of the language model, input of a codec."""

from dataclasses import dataclass

from torch import Tensor

from .errors import InputError


@dataclass(frozen=True)
class Codes:
    """Codebook indices of B clips. Shared between nodes and cached by ComfyUI: never altered in place."""

    codes: Tensor  # [B, K, T] int64 on the CPU, 0 <= code < codebook size
    frame_rate_hz: float
    codec: str  # CodecConfig.identity of the codec that decodes them

    def __post_init__(self) -> None:
        if self.codes.ndim != 3:
            raise InputError(f"codes must have the shape [batch, codebooks, frames], got {list(self.codes.shape)}")

    @property
    def n_frames(self) -> int:
        return self.codes.shape[-1]

    @property
    def duration_s(self) -> float:
        return self.n_frames / self.frame_rate_hz

    def check_codec(self, identity: str) -> None:
        """InputError, naming both, unless these codes belong to the codec `identity`."""
        if self.codec != identity:
            raise InputError(
                f"These codes were made for {self.codec}, but the codec given is {identity}. "
                "Connect the codec of the same Load MusicGen node that the codes came from."
            )
