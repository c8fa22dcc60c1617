"""MultiBand Diffusion: a decoder of codec latents that is slower than the codec's own, and clearer."""

from .decoder import WINDOW_S, MultiBandDecoder

__all__ = ["WINDOW_S", "MultiBandDecoder"]
