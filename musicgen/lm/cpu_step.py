"""One column through all layers on a CPU, as a single call of TorchScript: Python's own time would be half of a step's.

The functions are plain Python: where TorchScript is not to be had (Python 3.14 and later), they run as they are.
Types are written as TorchScript wants them.
"""

# ruff: noqa: UP006, UP035, UP045

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import List, NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..memory import release_freed_memory
from .cache import Bags, LayerCache, TableCache, bags_of_all
from .linear import Int8Linear, Linear, PackedWeight, int8_product, int8_product_of_peaks, plain_product
from .tables import add_up, to_rows, weight_type
from .torchscript import scripted


class Weights(NamedTuple):
    """What a step multiplies by, all layers' one after the other; of the last three lists one is not empty."""

    norms: List[Tensor]  # weight and bias of each, in the order of a layer's matrices
    plain: List[Tensor]  # of each layer qkv, out, up, down, and where the model attends to text, cross_q, cross_out
    half: List[PackedWeight]
    int8: List[PackedWeight]


class Caches(NamedTuple):
    """The fields of each layer's `cache.LayerCache` or `cache.TableCache`; lists of what they have not are empty."""

    keys: List[Tensor]
    values: List[Tensor]
    tails: List[Tensor]
    cross_keys: List[Tensor]
    cross_values: List[Tensor]


def normed(x: Tensor, norms: List[Tensor], which: int) -> Tensor:
    """Layer norm of x [R, D] by the weight and the bias from place `which` on."""
    return torch.native_layer_norm(x, [x.shape[1]], norms[which], norms[which + 1], 1e-5)[0]


def linear(x: Tensor, which: int, weights: Weights) -> Tensor:
    """[R, in] float32 -> [R, out] float32 through matrix number `which`."""
    if len(weights.int8) > 0:
        return int8_product(x, weights.int8[which])
    if len(weights.half) > 0:
        return torch.ops.quantized.linear_dynamic_fp16(x, weights.half[which])
    return plain_product(x, weights.plain[which])


def add_linear(x: Tensor, given: Tensor, which: int, weights: Weights) -> Tensor:
    """x [R, out] + `linear` of `given` [R, in]."""
    if len(weights.int8) > 0:
        product, peak = int8_product_of_peaks(given, weights.int8[which])
        return torch.addcmul(x, product, peak)
    return x + linear(given, which, weights)


def step(
    x: Tensor,
    weights: Weights,
    caches: Caches,
    column: int,
    mask: Optional[Tensor],
    cross_mask: Optional[Tensor],
    bags: List[Tensor],
    cross_bags: List[Tensor],
) -> Tensor:
    """x [R, D] at cache position `column` -> [R, D]: what `Block.forward` of all layers does, for one column.

    mask: [R, 1, 1, column + 1], None = all may be attended to.
    bags: of `cache.Bags` where there are `TableCache`s, and `mask` is in there; else empty.
    cross_bags: index and offsets for the tables that cross_keys and cross_values are where the text is folded into the
    weights (`Block.folded_cross`), one bag a row that has text; empty where it is not.
    """
    n_rows, dim = x.shape
    n_layers, n_heads = len(caches.keys), caches.values[0].shape[1]
    norms, n_norms = weights.norms, len(weights.norms) // n_layers
    n_linears = max(len(weights.plain), len(weights.half), len(weights.int8)) // n_layers
    for layer in range(n_layers):
        norm, matrix = layer * n_norms, layer * n_linears
        keys, values = caches.keys[layer], caches.values[layer]
        h = normed(x, norms, norm)
        query, key, new_value = linear(h, matrix, weights).view(n_rows, 3, n_heads, -1).unbind(1)
        if len(bags) > 0:
            remember(key, new_value, keys, values, caches.tails[layer], column)
            a = attend_tables(query, keys, values, caches.tails[layer], bags)
        else:
            keys.select(2, column).copy_(key)
            values.select(2, column).copy_(new_value)
            a = F.scaled_dot_product_attention(
                query.unsqueeze(2), keys.narrow(2, 0, column + 1), values.narrow(2, 0, column + 1), attn_mask=mask
            )
        x = add_linear(x, a.reshape(n_rows, dim), matrix + 1, weights)
        if len(cross_bags) > 0:
            with_text = x.narrow(0, 0, len(cross_bags[1]) // len(caches.cross_keys[layer]))
            h = normed(with_text, norms, norm + 4)
            with_text.add_(attend_folded(h, caches.cross_keys[layer], caches.cross_values[layer], n_heads, cross_bags))
        elif len(caches.cross_keys) > 0:
            h = normed(x, norms, norm + 4)
            q = linear(h, matrix + 4, weights).view(n_rows, n_heads, 1, -1)
            a = F.scaled_dot_product_attention(
                q, caches.cross_keys[layer], caches.cross_values[layer], attn_mask=cross_mask
            )
            x = add_linear(x, a.reshape(n_rows, dim), matrix + 5, weights)
        h = normed(x, norms, norm + 2)
        h = linear(h, matrix + 2, weights)
        # Transposed, it goes past oneDNN's gelu, whose call takes longer than a few rows; in float32 that is the reference's.
        h = F.gelu(h) if len(weights.plain) > 0 else F.gelu(h.t()).t()
        x = add_linear(x, h, matrix + 3, weights)
    return x


def remember(key: Tensor, value: Tensor, keys: Tensor, values: Tensor, tail: Tensor, column: int) -> None:
    """Key and value [R, H, Dh] of one column into a `cache.TableCache`."""
    block = tail.shape[2]
    place = column % block
    if place == 0:
        values.narrow(2, column, block).zero_()
    values.select(2, column).copy_(to_rows(value, values.dtype))
    tail.select(2, place).copy_(key)
    if place == block - 1:
        keys.select(2, column // block).copy_(to_rows(tail.transpose(2, 3), keys.dtype))


def attend_tables(query: Tensor, keys: Tensor, values: Tensor, tail: Tensor, bags: List[Tensor]) -> Tensor:
    """Attention of one column to a `cache.TableCache`: query [R, H, Dh] float32 -> [R, H, Dh] float32.

    A score is the sum of the rows of a block of keys, weighted by the query; the result that of the rows of the values,
    weighted by the scores' softmax.
    """
    n_rows, n_heads, head_dim = query.shape
    n, scale, dtype = n_rows * n_heads, head_dim**-0.5, weight_type(keys.dtype)
    query = (query * scale).view(n, 1, head_dim)
    scores = torch.baddbmm(bags[4], query, tail.view(n, -1, head_dim).transpose(1, 2)).to(dtype)
    n_whole = len(bags[1]) // n
    if n_whole > 0:
        weights = query.to(dtype).expand(n, n_whole, head_dim).reshape(-1)
        whole = add_up(keys, bags[0], bags[1], weights).view(n, 1, -1)
        scores = torch.cat([whole, scores], dim=2)
    if len(bags) > 5:
        scores = scores.view(n_rows, n_heads, 1, -1) + bags[5]
    return add_up(values, bags[2], bags[3], scores.softmax(dim=-1).view(-1)).float().view(n_rows, n_heads, head_dim)


def attend_folded(h: Tensor, keys: Tensor, values: Tensor, n_heads: int, bags: List[Tensor]) -> Tensor:
    """Cross-attention and what follows it, through the tables of `Block.folded_cross`: [R, D] float32 -> [R, D]."""
    n_rows, dim = h.shape
    n_blocks = len(keys)
    weights = h.to(weight_type(keys.dtype)).unsqueeze(1).expand(n_rows, n_blocks, dim).reshape(-1)
    weights = add_up(keys, bags[0], bags[1], weights).view(n_rows, n_heads, -1).softmax(dim=-1)
    weights = weights.view(n_rows, 1, -1).expand(n_rows, n_blocks, -1).reshape(-1)
    return add_up(values, bags[2], bags[3], weights).view(n_rows, dim)


@functools.cache
def compiled_step() -> Callable[..., Tensor]:
    """`step`, by TorchScript."""
    return scripted(step)


def weights_of(norms: Sequence[nn.LayerNorm], linears: Sequence[nn.Module]) -> Weights | None:
    """Of one layer, or None where `step` has no product for these."""
    first = linears[0]
    if isinstance(first, Int8Linear) and not first.packs:
        return None
    fresh = first.packs and not first.is_packed
    packed = [layer.packed() for layer in linears] if first.packs else []
    if fresh:
        release_freed_memory()
    plain = [] if first.packs else [layer.weight for layer in linears]
    half, int8 = (packed, []) if isinstance(first, Linear) else ([], packed)
    return Weights([tensor for norm in norms for tensor in (norm.weight, norm.bias)], plain, half, int8)


class TorchStep:
    """One column through all layers, for one run."""

    def __init__(self, weights: Sequence[Weights], caches: Sequence[LayerCache], cross_mask: Tensor | None) -> None:
        """weights: each layer's."""
        self._weights = Weights(*(list(itertools.chain(*each)) for each in zip(*weights, strict=True)))
        self._layers, self._caches, self._cross_mask, self._bags = caches, caches_of(caches), cross_mask, Bags()
        first = caches[0]
        tables = (first.cross_keys, first.cross_values) if first.n_folded else ()
        self._cross_bags = [part for table in tables for part in bags_of_all(table, first.n_folded)]

    def __call__(self, x: Tensor, column: int, mask: Tensor | None) -> Tensor:
        """x [R, D] float32 at cache position `column` -> [R, D]. mask: [R, 1, 1, column + 1], None = all may be attended to."""
        first = self._layers[0]
        bags = self._bags.of(first, column + 1, mask) if isinstance(first, TableCache) else []
        return compiled_step()(x, self._weights, self._caches, column, mask, self._cross_mask, bags, self._cross_bags)


def caches_of(layers: Sequence[LayerCache]) -> Caches:
    """Of all layers."""
    columns = [
        [getattr(layer, name, None) for layer in layers]
        for name in ("keys", "values", "tail", "cross_keys", "cross_values")
    ]
    return Caches(*([] if each[0] is None else each for each in columns))
