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
from .tables import add_up, to_rows, weight_type


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
    tail: Optional[Tensor],  # noqa: UP045
    cross_keys: Optional[Tensor],  # noqa: UP045
    cross_values: Optional[Tensor],  # noqa: UP045
    column: int,
    mask: Optional[Tensor],  # noqa: UP045
    cross_mask: Optional[Tensor],  # noqa: UP045
    bags: List[Tensor],  # noqa: UP006
    cross_bags: List[Tensor],  # noqa: UP006
) -> Tensor:
    """x [R, D] at cache position `column` -> [R, D]: what `Block.forward` does, for one column.

    norms: weight and bias of each, in the order of the matrices: qkv, out, up, down, and where the model attends to
    text, cross_q, cross_out.
    mask: [R, 1, 1, column + 1], None = all may be attended to.
    tail, bags: of a `cache.TableCache` and its `cache.Bags`, as keys and values are then, and `mask` is in there.
    cross_bags: index and offsets for the tables that cross_keys and cross_values are where the text is folded into the
    weights (`Block.folded_cross`), one bag a row that has text; empty where it is not.
    """
    n_rows, dim = x.shape
    n_heads = values.shape[1]
    head_dim = dim // n_heads
    h = F.layer_norm(x, [dim], norms[0], norms[1])
    qkv = linear(h, 0, plain, half, int8).view(n_rows, 3, n_heads, 1, head_dim)
    if tail is not None:
        remember(qkv.select(1, 1), qkv.select(1, 2), keys, values, tail, column)
        a = attend_tables(qkv.select(1, 0), keys, values, tail, bags)
    else:
        keys.select(2, column).copy_(qkv.select(1, 1).squeeze(2))
        values.select(2, column).copy_(qkv.select(1, 2).squeeze(2))
        a = F.scaled_dot_product_attention(
            qkv.select(1, 0), keys.narrow(2, 0, column + 1), values.narrow(2, 0, column + 1), attn_mask=mask
        )
    x = x + linear(a.reshape(n_rows, dim), 1, plain, half, int8)
    if cross_keys is not None and cross_values is not None and len(cross_bags) > 0:
        with_text = x.narrow(0, 0, len(cross_bags[1]) // len(cross_keys))
        h = F.layer_norm(with_text, [dim], norms[4], norms[5])
        with_text.add_(attend_folded(h, cross_keys, cross_values, n_heads, cross_bags))
    elif cross_keys is not None and cross_values is not None:
        h = F.layer_norm(x, [dim], norms[4], norms[5])
        q = linear(h, 4, plain, half, int8).view(n_rows, n_heads, 1, head_dim)
        a = F.scaled_dot_product_attention(q, cross_keys, cross_values, attn_mask=cross_mask)
        x = x + linear(a.reshape(n_rows, dim), 5, plain, half, int8)
    h = F.layer_norm(x, [dim], norms[2], norms[3])
    h = linear(h, 2, plain, half, int8)
    # Transposed, it goes past oneDNN's gelu, whose call takes longer than a few rows; in float32 that is the reference's.
    h = F.gelu(h) if len(plain) > 0 else F.gelu(h.t()).t()
    return x + linear(h, 3, plain, half, int8)


def remember(key: Tensor, value: Tensor, keys: Tensor, values: Tensor, tail: Tensor, column: int) -> None:
    """Key and value [R, H, 1, Dh] of one column into a `cache.TableCache`."""
    block = tail.shape[2]
    place = column % block
    if place == 0:
        values.narrow(2, column, block).zero_()
    values.select(2, column).copy_(to_rows(value.squeeze(2), values.dtype))
    tail.select(2, place).copy_(key.squeeze(2))
    if place == block - 1:
        keys.select(2, column // block).copy_(to_rows(tail.transpose(2, 3), keys.dtype))


def attend_tables(queries: Tensor, keys: Tensor, values: Tensor, tail: Tensor, bags: List[Tensor]) -> Tensor:  # noqa: UP006
    """Attention of one column to a `cache.TableCache`: queries [R, H, 1, Dh] float32 -> [R, H, Dh] float32.

    A score is the sum of the rows of a block of keys, weighted by the query; the result that of the rows of the values,
    weighted by the scores' softmax.
    """
    n_rows, n_heads, _, head_dim = queries.shape
    key_index, key_offsets, value_index, value_offsets, hidden = bags
    queries = queries.reshape(-1, 1, head_dim)
    scores = torch.bmm(queries, tail.view(len(queries), -1, head_dim).transpose(1, 2)).to(hidden.dtype)
    n_whole = len(key_offsets) // len(queries)
    if n_whole > 0:
        weights = queries.to(hidden.dtype).expand(len(queries), n_whole, head_dim).reshape(-1)
        whole = add_up(keys, key_index, key_offsets, weights)
        scores = torch.cat([whole.view(len(queries), 1, -1), scores], dim=2)
    scores = torch.add(hidden, scores.view(n_rows, n_heads, 1, -1), alpha=head_dim**-0.5)
    weights = scores.softmax(dim=-1).view(-1)
    return add_up(values, value_index, value_offsets, weights).float().view(n_rows, n_heads, head_dim)


def attend_folded(h: Tensor, keys: Tensor, values: Tensor, n_heads: int, bags: List[Tensor]) -> Tensor:  # noqa: UP006
    """Cross-attention and what follows it, through the tables of `Block.folded_cross`: [R, D] float32 -> [R, D]."""
    n_rows, dim = h.shape
    n_blocks = len(keys)
    weights = h.to(weight_type(keys.dtype)).unsqueeze(1).expand(n_rows, n_blocks, dim).reshape(-1)
    weights = add_up(keys, bags[0], bags[1], weights).view(n_rows, n_heads, -1).softmax(dim=-1)
    weights = weights.view(n_rows, 1, -1).expand(n_rows, n_blocks, -1).reshape(-1)
    return add_up(values, bags[2], bags[3], weights).view(n_rows, dim)


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
