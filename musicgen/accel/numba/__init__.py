"""Kernels for x86 CPUs, compiled by Numba: int8, float16 and bfloat16 at the memory's bandwidth."""

import torch
from torch import nn

from ...config import LMConfig
from ...lm import LM, Int8Linear, Linear
from .compile import load_kernels
from .step import NumbaStepper

__all__ = ["NumbaStepper", "fits", "fits_sizes", "load_kernels", "serves"]

MIN_WIDTH = 128  # narrower models take less time than the barriers of the threads
_SIZE_OF = 16  # a matrix's sizes are multiples
_EPS = 1e-5  # of LayerNorm, compiled into the kernels


def serves(lm: LM, min_width: int = MIN_WIDTH) -> bool:
    """Whether the kernels can run this model as it is: plain weights of 8 or 16 bits, on a CPU."""
    linears = [module for module in lm.modules() if hasattr(module, "compute_dtype")]
    if not all(isinstance(module, Linear | Int8Linear) for module in linears):
        return False
    # The kernels take one type for all layers, and heads of 16 bits.
    uniform = len({module.weight.dtype for module in linears if module is not lm.heads}) == 1
    return uniform and isinstance(lm.heads, Linear) and fits(lm.config, lm, min_width)


def fits(config: LMConfig, module: nn.Module, min_width: int = MIN_WIDTH) -> bool:
    """Whether the kernels can take the linear layers below `module`, a part of a model of this shape."""
    if not fits_sizes(config, min_width):
        return False
    if any(norm.eps != _EPS for norm in module.modules() if isinstance(norm, nn.LayerNorm)):
        return False
    linears = [module for module in module.modules() if isinstance(module, Linear | Int8Linear)]
    dtypes = {linear.weight.dtype for linear in linears}
    return bool(linears) and dtypes <= {torch.int8, torch.float16, torch.bfloat16} and load_kernels() is not None


def fits_sizes(config: LMConfig, min_width: int = MIN_WIDTH) -> bool:
    """Whether the kernels can take a model of this shape, if its weights have 8 or 16 bits."""
    sizes = (config.dim, config.ffn_dim, config.n_codebooks * config.cardinality)
    return config.dim >= min_width and config.head_dim % 4 == 0 and not any(size % _SIZE_OF for size in sizes)
