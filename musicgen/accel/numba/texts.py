"""Texts of cross-attention as the kernels read them: short ones folded into the weights, longer ones attended to.

How a row's text is read depends on that text alone, never on the other rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import LMConfig
from ...lm import LM, Stream
from ...lm.model import each
from ...lm.transformer import Block
from .products import product
from .tables import to_rows

# A text's tokens times heads, over the model's width, up to which it is folded: at 0.5 its tables are as large as one of the
# two matrices they stand for.
MAX_FOLDED = 0.5
_MAX_BLOCKS = 4  # cores that share a folded text's tables

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Texts:
    """The texts of R rows in L layers."""

    n_folded: list[int]  # [R] tokens; 0 = not folded
    folded: list[list[Pair | None]]  # [L][R]: the two tables of `folded`, shared by rows of one text
    n_attended: list[int]  # [R] tokens; 0 = not attended to
    attended: list[Pair]  # [L]: keys and values [R, H, N, D / H] float32; empty where no row attends

    @classmethod
    def of(
        cls,
        lm: LM,
        streams: Sequence[Stream],
        dtype: torch.dtype,
        max_folded: float = MAX_FOLDED,
        on_layer: Callable[[], None] | None = None,
    ) -> "Texts":
        lengths = [len(stream.cross) if lm.config.cross_attention else 0 for stream in streams]
        is_short = [length * lm.config.n_heads <= max_folded * lm.config.dim for length in lengths]
        n_folded = [length if short else 0 for length, short in zip(lengths, is_short, strict=True)]
        n_attended = [0 if short else length for length, short in zip(lengths, is_short, strict=True)]
        distinct: list[Tensor] = []
        which = [_index(stream.cross, distinct) if n else None for stream, n in zip(streams, n_folded, strict=True)]
        tables = [_folded_layers(lm, text.float(), dtype, on_layer) for text in distinct]
        folded = [[None if i is None else tables[i][layer] for i in which] for layer in range(lm.config.n_layers)]
        attended = []
        if any(n_attended):
            text = torch.zeros(len(streams), max(n_attended), lm.config.dim)
            for row, (stream, n_tokens) in enumerate(zip(streams, n_attended, strict=True)):
                text[row, :n_tokens] = stream.cross[:n_tokens].float()
            attended = [keys_values(block, text) for block in each(lm.layers, on_layer)]
        return cls(n_folded, folded, n_attended, attended)


def text_blocks(config: LMConfig) -> int:
    """Blocks of a folded text's tables."""
    return math.gcd(config.n_heads, _MAX_BLOCKS)


def folded(block: Block, text: Tensor, dtype: torch.dtype) -> Pair:
    """One text [N, D] folded into the weights around its attention: two tables of blocks of a matrix's columns.

    Scores of all heads are the normed x times the first [D, H * N]: (x Wq) K^T = x (Wq K^T). The output is their softmax
    times the second [H * N, D]: (w V) Wo = w (V Wo). A short text's tables are smaller than Wq and Wo.
    Blocks, [B, D, H * N / B] and [B, H * N, D / B], are shared out among the cores.
    """
    keys, values = keys_values(block, text[None])
    keys, values = keys[0], values[0]  # [H, N, D / H]
    n_heads, _, head_dim = keys.shape
    queries_to = block.cross_q.dequantized().view(n_heads, head_dim, -1)  # [H, D / H, D]
    out_of = block.cross_out.dequantized().view(-1, n_heads, head_dim).permute(1, 2, 0)
    scores = torch.bmm(keys * head_dim**-0.5, queries_to).flatten(0, 1)
    matrices = scores.t(), torch.bmm(values, out_of).flatten(0, 1)
    n_blocks = math.gcd(n_heads, _MAX_BLOCKS)
    first, second = (
        to_rows(matrix.unflatten(1, (n_blocks, -1)).transpose(0, 1).contiguous(), dtype) for matrix in matrices
    )
    return first, second


def keys_values(block: Block, text: Tensor) -> Pair:
    """Text [R, N, D] -> keys and values, each [R, H, N, D / H] float32."""
    n_rows, n_tokens, dim = text.shape
    projected = product(block.cross_kv, text.reshape(-1, dim)).view(n_rows, n_tokens, 2, block.n_heads, -1)
    keys, values = projected.permute(2, 0, 3, 1, 4)
    return keys.contiguous(), values.contiguous()


def _index(text: Tensor, distinct: list[Tensor]) -> int:
    """Where the text is among the distinct ones; it is added if it is new."""
    for i, other in enumerate(distinct):
        if text is other or torch.equal(text, other):
            return i
    distinct.append(text)
    return len(distinct) - 1


def _folded_layers(lm: LM, text: Tensor, dtype: torch.dtype, on_layer: Callable[[], None] | None) -> list[Pair]:
    """`folded` of every layer, in one allocation: between dequantized weights the small tables would fragment memory."""
    buffers: list[Tensor] = []
    for number, block in enumerate(each(lm.layers, on_layer)):
        tables = folded(block, text, dtype)
        buffers = buffers or [torch.empty(len(lm.layers), *table.shape, dtype=table.dtype) for table in tables]
        for buffer, table in zip(buffers, tables, strict=True):
            buffer[number] = table
    return list(zip(*buffers, strict=True))
