"""Faster forms of the plain models. Deleting this package's files one by one leaves a working engine."""

from collections.abc import Callable

import torch
from torch import nn

from ..config import LMConfig
from ..lm import LM, Stepper
from . import numba, stock
from .cuda_graph import CudaGraphStepper
from .unet import faster_unet

__all__ = ["choose", "default_precision", "faster_unet", "prepare", "warm_up"]


def choose(lm: LM, n_rows: int, device: torch.device) -> Stepper | None:
    """The fastest stepper for runs of `n_rows` rows on `device`, asked for once a run; None = `lm.PlainStepper`."""
    if device.type == "cuda":
        return CudaGraphStepper(lm)
    if device.type == "cpu" and numba.serves(lm):
        return numba.NumbaStepper(lm)
    return None


def prepare(
    module: nn.Module, config: LMConfig, device: torch.device | str, check: Callable[[], None] | None = None
) -> None:
    """Lay the linear layers below `module` out for the device that they will run on, once, when they are loaded.

    Layers that are laid out already stay as they are. check() is called between layers; what it raises ends the work.
    """
    if torch.device(device).type == "cpu" and not numba.fits(config, module):
        stock.replace_linears(module, check)


def warm_up(config: LMConfig, precision: str, device: torch.device | str) -> None:
    """Compile the kernels that `prepare` and `choose` will ask for, or read them: seconds that can be waited for elsewhere."""
    if torch.device(device).type == "cpu" and precision != "float32" and numba.fits_sizes(config):
        numba.load_kernels()


def default_precision(device: torch.device | str) -> str:
    """What `auto` stands for on a device: the fastest precision that is safe.

    float16 on CUDA, as the reference's autocast, and on x86 CPUs, where only weights are rounded to it; else float32.
    """
    device = torch.device(device)
    return "float16" if device.type == "cuda" or (device.type == "cpu" and stock.has_fbgemm()) else "float32"
