"""Copies weights into a module, strictly."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from .lazy import Check, Weight, unchecked

_SHOWN = 4
_INFINITY = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}  # its bits; NaN's are above
_BLOCK = 2**16  # values at once, within the cache


def fill(module: nn.Module, weights: Mapping[str, Weight], source: str, check: Check = unchecked) -> None:
    """Read `weights` into every parameter and persistent buffer of `module`, one tensor at a time.

    Those on the meta device get memory of their own, on the CPU, just before; shared ones stay shared. `source`
    names the checkpoint. What `check` raises ends the reading. CheckpointError, before anything is read, unless names and shapes agree exactly; and for values
    that are not finite.
    """
    targets: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    targets.update(module.named_buffers(remove_duplicate=False))
    targets = {name: targets[name] for name in module.state_dict(keep_vars=True)}
    _check(targets, weights, source)
    done: dict[int, Tensor] = {}  # by the identity of the target: tied weights are read once
    for name, target in targets.items():
        filled = done.get(id(target))
        if filled is None:
            filled = _materialized(target)
            weights[name].copy_into(filled.data, check)
            check_finite(filled.data, f"{source}: '{weights[name].label}'")
            done[id(target)] = filled
        if filled is not target:
            _replace(module, name, filled)


def check_finite(tensor: Tensor, source: str) -> None:
    """CheckpointError for NaN and infinity, of which a model would make noise without a word."""
    if not _is_finite(tensor):
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{source} holds values that are no numbers in {dtype} (NaN or infinite): the file is damaged, or too "
            "coarse a precision was chosen. Download it again, or choose float32."
        )


def _is_finite(tensor: Tensor) -> bool:
    """By the cheapest way: 16-bit types by their bits, ten times as fast as their sum; others by a sum, unless it overflows."""
    infinity = _INFINITY.get(tensor.dtype)
    if infinity is None or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return math.isfinite(tensor.sum()) or all(math.isfinite(end) for end in torch.aminmax(tensor))
    bits = tensor.view(torch.int16).view(-1).numpy()
    return all((bits[i : i + _BLOCK] & 0x7FFF).max() < infinity for i in range(0, bits.size, _BLOCK))


def _check(targets: Mapping[str, Tensor], weights: Mapping[str, Weight], source: str) -> None:
    problems = [f"'{name}' is missing" for name in targets if name not in weights]
    problems += [f"'{name}' is not expected" for name in weights if name not in targets]
    for name in targets.keys() & weights.keys():
        if tuple(targets[name].shape) != weights[name].shape:
            problems.append(f"'{name}' is {list(weights[name].shape)}, not {list(targets[name].shape)}")
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(f"{source} does not fit the model: {'; '.join(problems[:_SHOWN])}{more}")


def _materialized(target: Tensor) -> Tensor:
    """`target`, or memory for it if it has none yet."""
    if not target.is_meta:
        return target
    # Not empty_like: from a meta tensor it imports hundreds of torch's modules, for seconds and 34 MB.
    empty = torch.empty(target.shape, dtype=target.dtype, device="cpu")
    return nn.Parameter(empty, requires_grad=target.requires_grad) if isinstance(target, nn.Parameter) else empty


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    table: dict[str, Any] = owner._parameters if leaf in owner._parameters else owner._buffers
    table[leaf] = tensor
