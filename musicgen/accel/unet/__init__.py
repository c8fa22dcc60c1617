"""The U-Net of MultiBand Diffusion on a CPU: equal up to rounding, in about half the time and a third of the memory."""

from .cpu import faster_unet

__all__ = ["faster_unet"]
