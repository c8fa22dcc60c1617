"""MultiBand Diffusion: a decoder of codec latents that is slower than the codec's own, and clearer."""

from .decoder import MultiBandDecoder

__all__ = ["MultiBandDecoder"]
