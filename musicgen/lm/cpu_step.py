"""One column through one layer on a CPU, as a single call of TorchScript: Python's own time would be half of a step's.

The functions are plain Python: where TorchScript is not to be had (Python 3.14 and later), they run as they are.
Types are written as TorchScript wants them.
"""

import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import List, Optional  # noqa: UP035

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..memory import release_freed_memory
from .linear import Int8Linear, Linear, PackedWeight, int8_product, plain_product


def linear(
    x: Tensor, which: int, plain: List[Tensor], half: List[PackedWeight], int8: List[PackedWeight]  # noqa: UP006
) -> Tensor:  # fmt: skip
    """[R, in] float32 -> [R, out] float32 through matrix number `which` of whichever list is not empty."""
    if len(int8) > 0:
        return int8_product(x, int8[which])
    if len(half) > 0:
        return torch.ops.quantized.linear_dynamic_fp16(x, half[which])
    return plain_product(x, plain[which])


def layer_step(
    x: Tensor,
    norms: List[Tensor],  # noqa: UP006
    plain: List[Tensor],  # noqa: UP006
    half: List[PackedWeight],  # noqa: UP006
    int8: List[PackedWeight],  # noqa: UP006
    keys: Tensor,
    values: Tensor,
    cross_keys: Optional[Tensor],  # noqa: UP045
    cross_values: Optional[Tensor],  # noqa: UP045
    column: int,
    mask: Optional[Tensor],  # noqa: UP045
    cross_mask: Optional[Tensor],  # noqa: UP045
    bags: List[Tensor],  # noqa: UP006
) -> Tensor:
    """x [R, D] at cache position `column` -> [R, D]: what `Block.forward` does, for one column.

    norms: weight and bias of each, in the order of the matrices: qkv, out, up, down, and where the model attends to
    text, cross_q, cross_out.
    mask: [R, 1, 1, column + 1], None = all may be attended to.
    bags: empty, or of `cache.Bags`: keys and values are those of a `cache.HalfCache` then, and `mask` is in there.
    """
    n_rows, dim = x.shape
    n_heads, head_dim = values.shape[1], values.shape[3]
    h = F.layer_norm(x, [dim], norms[0], norms[1])
    qkv = linear(h, 0, plain, half, int8).view(n_rows, 3, n_heads, 1, head_dim)
    values.select(2, column).copy_(qkv.select(1, 2).squeeze(2))
    if len(bags) > 0:
        block = keys.select(2, column // keys.shape[4])
        block.select(3, column % keys.shape[4]).copy_(qkv.select(1, 1).squeeze(2))
        a = attend_halves(qkv.select(1, 0), keys, values, bags)
    else:
        keys.select(2, column).copy_(qkv.select(1, 1).squeeze(2))
        a = F.scaled_dot_product_attention(
            qkv.select(1, 0), keys.narrow(2, 0, column + 1), values.narrow(2, 0, column + 1), attn_mask=mask
        )
    x = x + linear(a.reshape(n_rows, dim), 1, plain, half, int8)
    if cross_keys is not None and cross_values is not None:
        h = F.layer_norm(x, [dim], norms[4], norms[5])
        q = linear(h, 4, plain, half, int8).view(n_rows, n_heads, 1, head_dim)
        a = F.scaled_dot_product_attention(q, cross_keys, cross_values, attn_mask=cross_mask)
        x = x + linear(a.reshape(n_rows, dim), 5, plain, half, int8)
    h = F.layer_norm(x, [dim], norms[2], norms[3])
    h = linear(h, 2, plain, half, int8)
    # Transposed, it goes past oneDNN's gelu, whose call takes longer than a few rows; in float32 that is the reference's.
    h = F.gelu(h) if len(plain) > 0 else F.gelu(h.t()).t()
    return x + linear(h, 3, plain, half, int8)


def attend_halves(queries: Tensor, keys: Tensor, values: Tensor, bags: List[Tensor]) -> Tensor:  # noqa: UP006
    """Attention of one column to a `cache.HalfCache`: queries [R, H, 1, Dh] float32 -> [R, H, Dh] float32.

    A score is the sum of the rows of a key's table, weighted by the query; the result that of the rows of the values',
    weighted by the scores' softmax. Each is added in float32 and rounded to float16 once.
    """
    n_rows, n_heads, _, head_dim = queries.shape
    key_index, key_offsets, value_index, value_offsets, hidden = bags
    weights = (queries * head_dim**-0.5).half()
    weights = weights.expand(n_rows, n_heads, hidden.shape[3] // keys.shape[4], head_dim).reshape(-1)
    scores = torch.embedding_bag(keys.view(-1, keys.shape[4]), key_index, key_offsets, False, 0, False, weights)[0]
    weights = (scores.view(n_rows, n_heads, 1, -1) + hidden).softmax(dim=-1).view(-1)
    made = torch.embedding_bag(values.view(-1, head_dim), value_index, value_offsets, False, 0, False, weights)[0]
    return made.float().view(n_rows, n_heads, head_dim)


@functools.cache
def compiled_layer_step() -> Callable[..., Tensor]:
    """`layer_step`, by TorchScript where this Python has it."""
    if sys.version_info >= (3, 14):
        return layer_step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(layer_step)


def step_weights(norms: Sequence[nn.LayerNorm], linears: Sequence[nn.Module]) -> tuple[list, list, list, list] | None:
    """`norms`, `plain`, `half`, `int8` of `layer_step`; None where it has no product for these layers."""
    first = linears[0]
    if isinstance(first, Int8Linear) and not first.packs:
        return None
    fresh = first.packs and not first.is_packed
    packed = [layer.packed() for layer in linears] if first.packs else []
    if fresh:
        release_freed_memory()
    plain = [] if first.packs else [layer.weight for layer in linears]
    half, int8 = (packed, []) if isinstance(first, Linear) else ([], packed)
    return [tensor for norm in norms for tensor in (norm.weight, norm.bias)], plain, half, int8
