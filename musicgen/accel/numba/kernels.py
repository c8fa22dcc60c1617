"""All layers of a step in one call, compiled to machine code, every core at work.

A step reads every weight once, so that the memory's bandwidth sets its time; torch's operators lose a third of it between
products. Here threads meet six times a layer at a barrier of some hundred nanoseconds, and each keeps its heads from their
projection to their attention.

Rows never see each other's values, and no sum's order depends on how many rows there are: a row of a batch is, bit for bit,
the row alone. Kernels take addresses (int64) of what layers own, so that one compilation serves all models.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from .intrinsics import barrier_wait
from .ops import (
    BLOCK,
    CHANNELS,
    SPARE,  # noqa: F401 - for callers, as SUMS is
    SUMS,  # noqa: F401
    attend,
    dot,
    floats,
    gelu,
    half_product,
    limit,
    normed,
    product,
    quantized,
    remember,
    share,
    softmax,
    weighted_sum,
    width_of,
)

# A layer's row of the table of addresses: (weight, bias) of three norms, (weight, scale) of six matrices, five caches.
NORMS, MATRICES, CACHES = 0, 6, 18
N_ADDRESSES = 23
SELF, FFN, CROSS = 0, 2, 4  # norms
QKV, OUT, UP, DOWN, CROSS_Q, CROSS_OUT = 0, 2, 4, 6, 8, 10  # matrices
KEYS, VALUES, TAIL, TEXT_KEYS, TEXT_VALUES = 0, 1, 2, 3, 4  # caches
END_NORM, HEADS, HEADS_BFLOAT16 = 0, 2, 3  # after the layers: (weight, bias) of the norm, the heads, their type

_JIT = {"nogil": True, "cache": True, "error_model": "numpy", "boundscheck": False}
_MATHS = {"reassoc", "contract", "nsz", "arcp"}


def padded_rows(n):
    """Rows that products of int8 are padded to: two, or a multiple of four."""
    return 2 if n <= 2 else -(-n // 4) * 4


class Sizes(NamedTuple):
    """One run of R rows."""

    n_heads: int
    head_dim: int
    max_len: int  # columns that the cache has room for
    padding: np.ndarray  # [R] int64: columns at a row's start that are not its own
    n_folded: np.ndarray  # [R] int64: tokens of a row's folded text; 0 = it has none
    folded: np.ndarray  # [L, R, 2] int64: addresses of the two tables of a row's folded text
    n_blocks: int  # of a folded text's tables
    n_attended: np.ndarray  # [R] int64: tokens of a row's text that is attended to; 0 = it has none
    n_text: int  # tokens that keys and values of attended texts have room for
    is_half: bool  # weights of 16 bits and tables of float16; else int8 weights and tables of bytes
    is_bfloat16: bool


class Workspace(NamedTuple):
    """Memory of n rows (R rows times S columns) and T threads, float32 unless said."""

    qkv: np.ndarray  # [n, 3 D]
    attended: np.ndarray  # [n, D]
    hidden: np.ndarray  # [n, F]
    text_scores: np.ndarray  # [n, H * N]
    sums: np.ndarray  # [SUMS * padded_rows(n) * widest] int32; float32 of n rows for weights of 16 bits
    normed: np.ndarray  # [T, n, D]
    scores: np.ndarray  # [T, longest]
    row_scales: np.ndarray  # [T, n]
    quantized: np.ndarray  # [T, padded_rows(n), D + SPARE] int16
    quantized_hidden: np.ndarray  # [T, padded_rows(n), F + SPARE] int16


@njit(
    "void(int64, int64, int64, float32[:, ::1], int64, int64, int16[:, ::1], float32[::1], int32[::1], float32[:, ::1])",
    **_JIT,
)
def multiply(thread, n_threads, barrier, x, weight, scale, quantized_x, row_scales, sums, out):
    """x [R, in] float32 through an int8 weight [n_out, in] -> out [R, n_out]. quantized_x, row_scales, sums: a `Workspace`'s."""
    start, stop = share(len(x), 1, thread, n_threads)
    for row in range(start, stop):
        row_scales[row] = quantized(x[row], limit(x.shape[1]), quantized_x[row])
    barrier_wait(barrier, n_threads)
    start, stop = share(out.shape[1], CHANNELS, thread, n_threads)
    product(weight, scale, x.shape[1], quantized_x, row_scales, sums, out, start, stop, False)


@njit("void(int64, int64, int64, float32[:, ::1], int64, boolean, float32[::1], float32[:, ::1])", **_JIT)
def multiply_half(thread, n_threads, barrier, x, weight, is_bfloat16, sums, out):
    """x [R, in] float32 through a weight [n_out, in] of 16 bits -> out [R, n_out]. sums: R * n_out."""
    start, stop = share(out.shape[1], CHANNELS, thread, n_threads)
    half_product(weight, x.shape[1], x, sums, out, start, stop, False, is_bfloat16)


@njit("void(float32[:, ::1], int64[::1], int64, float32[:, ::1])", **_JIT, fastmath=_MATHS)
def _normed_rows(x, layer, norm, out):
    dim = x.shape[1]
    weight, bias = floats(layer[NORMS + norm], dim), floats(layer[NORMS + norm + 1], dim)
    for row in range(len(x)):
        normed(x[row], weight, bias, out[row])


@njit("void(float32[:, ::1], int16[:, ::1], float32[::1], boolean)", **_JIT)
def _quantized_rows(x, quantized_x, row_scales, is_half):
    """Rows x [n, n_in] quantized for int8 weights; weights of 16 bits take them as they are."""
    if not is_half:
        for row in range(len(x)):
            row_scales[row] = quantized(x[row], limit(x.shape[1]), quantized_x[row])


@njit(
    "void(int64[::1], int64, float32[:, ::1], int16[:, ::1], float32[::1], int32[::1], float32[:, ::1], int64, int64, "
    "boolean, boolean, boolean)",
    **_JIT,
)
def _matrix(layer, matrix, x, quantized_x, row_scales, sums, out, start, stop, adds, is_half, is_bfloat16):
    """Outputs start..stop of x, after `_quantized_rows`, through a layer's matrix: written to `out`, or added to it."""
    weight, scale = layer[MATRICES + matrix], layer[MATRICES + matrix + 1]
    if is_half:
        half_product(weight, x.shape[1], x, sums.view(np.float32), out, start, stop, adds, is_bfloat16)
    else:
        product(weight, scale, x.shape[1], quantized_x, row_scales, sums, out, start, stop, adds)


@njit(**_JIT)
def _attend_self(thread, n_threads, start, layer, sizes, work):
    """The normed x through the projection and self-attention, each thread its own heads, into `work.attended`."""
    n_heads, head_dim, n_columns = sizes.n_heads, sizes.head_dim, len(work.attended) // len(sizes.padding)
    dim, is_half = n_heads * head_dim, sizes.is_half
    first, last = share(n_heads, 1, thread, n_threads)
    for part in range(0, 3 * dim, dim):
        _matrix(
            layer, QKV, work.normed[thread], work.quantized[thread], work.row_scales[thread], work.sums, work.qkv,
            part + first * head_dim, part + last * head_dim, False, is_half, sizes.is_bfloat16,
        )  # fmt: skip
    keys_size = sizes.max_len // BLOCK * head_dim * width_of(BLOCK, is_half)
    values_size, tail_size = sizes.max_len * width_of(head_dim, is_half), BLOCK * head_dim
    scale = np.float32(1) / np.sqrt(np.float32(head_dim))
    for row in range(len(sizes.padding)):
        for head in range(first, last):
            number, at = row * n_heads + head, head * head_dim
            keys, values = layer[CACHES + KEYS] + number * keys_size, layer[CACHES + VALUES] + number * values_size
            tail = floats(layer[CACHES + TAIL] + 4 * number * tail_size, tail_size)
            for i in range(n_columns):
                qkv, out = work.qkv[row * n_columns + i], work.attended[row * n_columns + i]
                column = start + i - sizes.padding[row]  # a row's own, so that padding changes nothing in its sums
                if column < 0:
                    out[at : at + head_dim] = np.float32(0)
                    continue
                query = qkv[at : at + head_dim]
                for j in range(head_dim):
                    query[j] *= scale
                key, value = qkv[dim + at : dim + at + head_dim], qkv[2 * dim + at : 2 * dim + at + head_dim]
                remember(key, value, keys, values, tail, column, is_half)
                attend(
                    query, keys, values, tail, column, work.scores[thread], out[at : at + head_dim], keys + keys_size,
                    is_half,
                )  # fmt: skip


@njit(**_JIT, fastmath=_MATHS)
def _attend_folded(thread, n_threads, barrier, x, number, sizes, work):
    """Cross-attention of rows with a folded text and what follows it, through `tables.folded`, added to x."""
    dim, n_blocks, is_half = x.shape[1], sizes.n_blocks, sizes.is_half
    n_columns, heads, of_x = len(x) // len(sizes.padding), sizes.n_heads // n_blocks, dim // n_blocks
    first, last = share(n_blocks, 1, thread, n_threads)
    for row in range(len(x)):
        n_text = sizes.n_folded[row // n_columns]
        of_scores = heads * n_text
        table_size = dim * width_of(of_scores, is_half)
        values_size = sizes.n_heads * n_text * width_of(of_x, is_half)
        tables = sizes.folded[number, row // n_columns]
        if n_text > 0:
            for block in range(first, last):
                scores = work.text_scores[row, block * of_scores : (block + 1) * of_scores]
                h, ahead = work.normed[thread, row].ctypes.data, tables[1] + block * values_size
                weighted_sum(tables[0] + block * table_size, dim, of_scores, h, scores.ctypes.data, ahead, is_half)
                for start in range(0, of_scores, n_text):
                    softmax(scores[start : start + n_text])
    barrier_wait(barrier, n_threads)
    for row in range(len(x)):
        n_text = sizes.n_folded[row // n_columns]
        values_size = sizes.n_heads * n_text * width_of(of_x, is_half)
        if n_text > 0:
            for block in range(first, last):
                attended, to = work.scores[thread][:of_x], x[row, block * of_x : (block + 1) * of_x]
                table = sizes.folded[number, row // n_columns, 1] + block * values_size
                weights = work.text_scores[row].ctypes.data
                weighted_sum(
                    table, sizes.n_heads * n_text, of_x, weights, attended.ctypes.data, table + values_size, is_half
                )
                for i in range(of_x):
                    to[i] += attended[i]
    barrier_wait(barrier, n_threads)


@njit(**_JIT, fastmath=_MATHS)
def _attend_text(thread, n_threads, barrier, x, layer, sizes, work):
    """Cross-attention to keys and values [R, H, N, Dh] float32, each thread its own heads; added to x.

    The attention of rows without such a text is zero.
    """
    dim, n_rows, n_columns = x.shape[1], len(sizes.padding), len(x) // len(sizes.padding)
    n_heads, head_dim, is_half = sizes.n_heads, sizes.head_dim, sizes.is_half
    first, last = share(n_heads, 1, thread, n_threads)
    h, quantized_x, row_scales = work.normed[thread], work.quantized[thread], work.row_scales[thread]
    _matrix(
        layer, CROSS_Q, h, quantized_x, row_scales, work.sums, work.qkv, first * head_dim, last * head_dim, False,
        is_half, sizes.is_bfloat16,
    )  # fmt: skip
    size = sizes.n_text * head_dim
    scale = np.float32(1) / np.sqrt(np.float32(head_dim))
    for row in range(n_rows):
        n_text = sizes.n_attended[row]
        scores = work.scores[thread][:n_text]
        for head in range(first, last):
            at = 4 * (row * n_heads + head) * size
            keys, values = floats(layer[CACHES + TEXT_KEYS] + at, size), floats(layer[CACHES + TEXT_VALUES] + at, size)
            for column in range(row * n_columns, (row + 1) * n_columns):
                query = work.qkv[column][head * head_dim : (head + 1) * head_dim]
                out = work.attended[column][head * head_dim : (head + 1) * head_dim]
                for j in range(head_dim):
                    out[j] = np.float32(0)
                if n_text == 0:
                    continue
                for i in range(n_text):
                    scores[i] = dot(query, keys[i * head_dim : (i + 1) * head_dim]) * scale
                softmax(scores)
                for i in range(n_text):
                    weight, value = scores[i], values[i * head_dim : (i + 1) * head_dim]
                    for j in range(head_dim):
                        out[j] += weight * value[j]
    barrier_wait(barrier, n_threads)
    _quantized_rows(work.attended, quantized_x, row_scales, is_half)
    start, stop = share(dim, CHANNELS, thread, n_threads)
    _matrix(
        layer, CROSS_OUT, work.attended, quantized_x, row_scales, work.sums, x, start, stop, True, is_half,
        sizes.is_bfloat16,
    )  # fmt: skip
    barrier_wait(barrier, n_threads)


@njit(**_JIT)
def _logits(thread, n_threads, x, end, work, logits):
    """x [n, D] of the last layer through the norm and the heads at `end` -> logits [n, K * cardinality]."""
    h = work.normed[thread]
    _normed_rows(x, end, END_NORM, h)
    start, stop = share(logits.shape[1], CHANNELS, thread, n_threads)
    is_bfloat16 = end[HEADS_BFLOAT16] != 0
    half_product(end[HEADS], x.shape[1], h, work.sums.view(np.float32), logits, start, stop, False, is_bfloat16)


@njit(**_JIT)
def step(thread, n_threads, barrier, x, start_column, layers, end, sizes, work, logits):
    """x [R * S, D] float32, S columns of each row from `start_column` of the cache on, through all layers in place.

    layers: [L, N_ADDRESSES] int64. logits: [R * S, K * cardinality], or [0, 0] where they are not asked for.
    """
    dim, n_hidden, is_half, is_bfloat16 = x.shape[1], work.hidden.shape[1], sizes.is_half, sizes.is_bfloat16
    quantized_x, row_scales, h = work.quantized[thread], work.row_scales[thread], work.normed[thread]
    quantized_hidden, sums = work.quantized_hidden[thread], work.sums
    start, stop = share(dim, CHANNELS, thread, n_threads)
    first, last = share(n_hidden, CHANNELS, thread, n_threads)
    any_folded, any_attended = sizes.n_folded.max() > 0, sizes.n_attended.max() > 0
    for number in range(len(layers)):
        layer = layers[number]
        _normed_rows(x, layer, SELF, h)
        _quantized_rows(h, quantized_x, row_scales, is_half)
        _attend_self(thread, n_threads, start_column, layer, sizes, work)
        barrier_wait(barrier, n_threads)
        _quantized_rows(work.attended, quantized_x, row_scales, is_half)
        _matrix(layer, OUT, work.attended, quantized_x, row_scales, sums, x, start, stop, True, is_half, is_bfloat16)
        barrier_wait(barrier, n_threads)
        if any_folded:
            _normed_rows(x, layer, CROSS, h)
            _attend_folded(thread, n_threads, barrier, x, number, sizes, work)
        if any_attended:
            _normed_rows(x, layer, CROSS, h)
            _quantized_rows(h, quantized_x, row_scales, is_half)
            _attend_text(thread, n_threads, barrier, x, layer, sizes, work)
        _normed_rows(x, layer, FFN, h)
        _quantized_rows(h, quantized_x, row_scales, is_half)
        _matrix(layer, UP, h, quantized_x, row_scales, sums, work.hidden, first, last, False, is_half, is_bfloat16)
        for row in range(len(x)):
            gelu(work.hidden[row, first:last])
        barrier_wait(barrier, n_threads)
        _quantized_rows(work.hidden, quantized_hidden, row_scales, is_half)
        _matrix(
            layer, DOWN, work.hidden, quantized_hidden, row_scales, sums, x, start, stop, True, is_half, is_bfloat16
        )
        barrier_wait(barrier, n_threads)
    if len(logits) > 0:
        _logits(thread, n_threads, x, end, work, logits)
