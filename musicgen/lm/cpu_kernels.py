"""int8 and float16 steps of a few rows as machine code, by Numba: all layers in one call, all cores in step.

A step reads every weight once, so that memory sets its time; torch's operators lose a third of it between products. Here
cores meet six times a layer, at a barrier of some hundred nanoseconds, and each keeps its heads from their projection to
their attention.

Kernels take addresses (int64) of what layers own, so that one compilation serves all models. Numba keeps what it has
compiled beside this file, and knows it by this file's date and this module's name: see MADE_OF, and `cpu_fused.kernels`.
"""

from typing import NamedTuple

import numpy as np
from musicgen_cpu_basics import meet
from musicgen_cpu_parts import (
    BLOCK,
    CHANNELS,
    HIDDEN,
    SPARE,  # noqa: F401 - for cpu_fused, as SUMS and meet
    SUMS,  # noqa: F401
    add_up,
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
    width_of,
)
from numba import njit

MADE_OF = "61980504a18e8ad1"  # cpu_parts.py, as there

# Where a layer's addresses are in its row of the table.
NORMS, MATRICES, CACHES = 0, 6, 18  # (weight, bias) of three norms; (weight, scale) of six matrices; five caches
N_ADDRESSES = 23
SELF, FFN, CROSS = 0, 2, 4  # norms
QKV, OUT, UP, DOWN, CROSS_Q, CROSS_OUT = 0, 2, 4, 6, 8, 10  # matrices
KEYS, VALUES, TAIL, CROSS_KEYS, CROSS_VALUES = 0, 1, 2, 3, 4  # caches
NO_TEXT, FOLDED, ATTENDED = 0, 1, 2  # cross-attention
END_NORM, HEADS, BRAIN = 0, 2, 3  # after the layers: (weight, bias) of the norm, the heads; whether they are bfloat16

_JIT = {"nogil": True, "cache": True, "error_model": "numpy", "boundscheck": False}
_MATHS = {"reassoc", "contract", "nsz", "arcp"}


def rows(n):
    """What kernels take for n rows: two, or fours."""
    return 2 if n <= 2 else -(-n // 4) * 4


class Sizes(NamedTuple):
    """What the kernels are told of a run."""

    n_heads: int
    head_dim: int
    max_len: int  # of the cache
    padding: np.ndarray  # [R] int64, columns at a row's start that it may not attend to
    cross: int  # NO_TEXT, FOLDED or ATTENDED
    n_text: int
    n_folded: int  # rows that have text, where it is folded
    n_blocks: int  # of a folded text's tables
    hidden: np.ndarray  # [R, N] bool, tokens that a row may not attend to
    halves: bool  # whether weights are of 16 bits, and tables float16; else int8 and bytes
    brain: bool  # whether those weights are bfloat16


class Room(NamedTuple):
    """Where the kernels work, float32 but for `words` and `sums`: R rows times columns, T threads."""

    qkv: np.ndarray  # [R, 3 D]
    attended: np.ndarray  # [R, D]
    hidden: np.ndarray  # [R, F]
    text: np.ndarray  # [R, H * N]
    sums: np.ndarray  # [SUMS * rows(R) * widest] int32; float32 of R rows for halves, and for heads
    normed: np.ndarray  # [T, R, D]
    scores: np.ndarray  # [T, longest]
    steps: np.ndarray  # [T, R]
    words: np.ndarray  # [T, rows(R), D + SPARE] int16
    wide_words: np.ndarray  # [T, rows(R), F + SPARE] int16


@njit(
    "void(int64, int64, int64, float32[:, ::1], int64, int64, int16[:, ::1], float32[::1], int32[::1], float32[:, ::1])",
    **_JIT,
)
def multiply(thread, n_threads, barrier, x, weight, scale, words, steps, sums, out):
    """x [R, in] float32 through a weight [n_out, in] -> out [R, n_out]. words, steps, sums: as in `Room`."""
    start, stop = share(len(x), 1, thread, n_threads)
    for row in range(start, stop):
        steps[row] = quantized(x[row], limit(x.shape[1]), words[row])
    meet(barrier, n_threads)
    start, stop = share(out.shape[1], CHANNELS, thread, n_threads)
    product(weight, scale, x.shape[1], words, steps, sums, out, start, stop, False)


@njit("void(int64, int64, int64, float32[:, ::1], int64, boolean, float32[::1], float32[:, ::1])", **_JIT)
def multiply_half(thread, n_threads, barrier, x, weight, brain, sums, out):
    """x [R, in] float32 through a weight [n_out, in] float16, or bfloat16 -> out [R, n_out]. sums: R * n_out."""
    start, stop = share(out.shape[1], CHANNELS, thread, n_threads)
    half_product(weight, x.shape[1], x, sums, out, start, stop, False, brain)


@njit("void(float32[:, ::1], int64[::1], int64, float32[:, ::1])", **_JIT, fastmath=_MATHS)
def _normed_rows(x, layer, norm, out):
    dim = x.shape[1]
    weight, bias = floats(layer[NORMS + norm], dim), floats(layer[NORMS + norm + 1], dim)
    for row in range(len(x)):
        normed(x[row], weight, bias, out[row])


@njit("void(float32[:, ::1], int16[:, ::1], float32[::1], boolean)", **_JIT)
def _given(x, words, steps, halves):
    """x [R, n_in] as a matrix takes it: as it is, or quantized."""
    if not halves:
        for row in range(len(x)):
            steps[row] = quantized(x[row], limit(x.shape[1]), words[row])


@njit(
    "void(int64[::1], int64, float32[:, ::1], int16[:, ::1], float32[::1], int32[::1], float32[:, ::1], int64, int64, "
    "boolean, boolean, boolean)",
    **_JIT,
)
def _matrix(layer, matrix, x, words, steps, sums, out, start, stop, adds, halves, brain):
    """x, which `_given` has seen."""
    weight, scale = layer[MATRICES + matrix], layer[MATRICES + matrix + 1]
    if halves:
        half_product(weight, x.shape[1], x, sums.view(np.float32), out, start, stop, adds, brain)
    else:
        product(weight, scale, x.shape[1], words, steps, sums, out, start, stop, adds)


@njit(**_JIT)
def _attend_self(thread, n_threads, start, layer, sizes, room):
    """From the normed x to what its heads have attended to, each thread's own heads."""
    n_heads, head_dim, n_columns = sizes.n_heads, sizes.head_dim, len(room.attended) // len(sizes.padding)
    dim, halves = n_heads * head_dim, sizes.halves
    first, last = share(n_heads, 1, thread, n_threads)
    for part in range(0, 3 * dim, dim):
        _matrix(
            layer, QKV, room.normed[thread], room.words[thread], room.steps[thread], room.sums, room.qkv,
            part + first * head_dim, part + last * head_dim, False, halves, sizes.brain,
        )  # fmt: skip
    keys_of = sizes.max_len // BLOCK * head_dim * width_of(BLOCK, halves)
    values_of, tail_of = sizes.max_len * width_of(head_dim, halves), BLOCK * head_dim
    scale = np.float32(1) / np.sqrt(np.float32(head_dim))
    for row in range(len(sizes.padding)):
        for head in range(first, last):
            number, at = row * n_heads + head, head * head_dim
            keys, values = layer[CACHES + KEYS] + number * keys_of, layer[CACHES + VALUES] + number * values_of
            tail = floats(layer[CACHES + TAIL] + 4 * number * tail_of, tail_of)
            for i in range(n_columns):
                qkv, out = room.qkv[row * n_columns + i], room.attended[row * n_columns + i]
                query = qkv[at : at + head_dim]
                for j in range(head_dim):
                    query[j] *= scale
                key, value = qkv[dim + at : dim + at + head_dim], qkv[2 * dim + at : 2 * dim + at + head_dim]
                remember(key, value, keys, values, tail, start + i, halves)
                attend(
                    query, keys, values, tail, start + i, sizes.padding[row], room.scores[thread],
                    out[at : at + head_dim], keys + keys_of, halves,
                )  # fmt: skip


@njit(**_JIT, fastmath=_MATHS)
def _attend_folded(thread, n_threads, barrier, x, layer, sizes, room):
    """Cross-attention and what follows it, through the tables of `Block.folded_cross`, added to x."""
    dim, n_blocks, n_text, halves = x.shape[1], sizes.n_blocks, sizes.n_text, sizes.halves
    of_scores, of_x = sizes.n_heads // n_blocks * n_text, dim // n_blocks
    keys_of, values_of = dim * width_of(of_scores, halves), sizes.n_heads * n_text * width_of(of_x, halves)
    first, last = share(n_blocks, 1, thread, n_threads)
    n_rows = sizes.n_folded * (len(x) // len(sizes.padding))
    for row in range(n_rows):
        for block in range(first, last):
            scores = room.text[row, block * of_scores : (block + 1) * of_scores]
            table = layer[CACHES + CROSS_KEYS] + block * keys_of
            ahead = layer[CACHES + CROSS_VALUES] + block * values_of
            add_up(table, dim, of_scores, room.normed[thread, row].ctypes.data, scores.ctypes.data, ahead, halves)
            for start in range(0, of_scores, n_text):
                softmax(scores[start : start + n_text])
    meet(barrier, n_threads)
    for row in range(n_rows):
        for block in range(first, last):
            made, to = room.scores[thread][:of_x], x[row, block * of_x : (block + 1) * of_x]
            table = layer[CACHES + CROSS_VALUES] + block * values_of
            weights = room.text[row].ctypes.data
            add_up(table, sizes.n_heads * n_text, of_x, weights, made.ctypes.data, table + values_of, halves)
            for i in range(of_x):
                to[i] += made[i]
    meet(barrier, n_threads)


@njit(**_JIT, fastmath=_MATHS)
def _attend_text(thread, n_threads, barrier, x, layer, sizes, room):
    """Cross-attention to keys and values [R, H, N, Dh] float32, each thread's own heads; added to x."""
    dim, n_rows, n_columns = x.shape[1], len(sizes.padding), len(x) // len(sizes.padding)
    n_heads, head_dim, n_text = sizes.n_heads, sizes.head_dim, sizes.n_text
    first, last = share(n_heads, 1, thread, n_threads)
    words, steps = room.words[thread], room.steps[thread]
    h, halves, part = room.normed[thread], sizes.halves, (first * head_dim, last * head_dim)
    _matrix(layer, CROSS_Q, h, words, steps, room.sums, room.qkv, part[0], part[1], False, halves, sizes.brain)
    size = n_text * head_dim
    scale = np.float32(1) / np.sqrt(np.float32(head_dim))
    scores = room.scores[thread][:n_text]
    for row in range(n_rows):
        for head in range(first, last):
            at = 4 * (row * n_heads + head) * size
            keys = floats(layer[CACHES + CROSS_KEYS] + at, size)
            values = floats(layer[CACHES + CROSS_VALUES] + at, size)
            for column in range(row * n_columns, (row + 1) * n_columns):
                query = room.qkv[column][head * head_dim : (head + 1) * head_dim]
                out = room.attended[column][head * head_dim : (head + 1) * head_dim]
                for i in range(n_text):
                    scores[i] = dot(query, keys[i * head_dim : (i + 1) * head_dim]) * scale
                    if sizes.hidden[row, i]:
                        scores[i] = HIDDEN
                softmax(scores)
                for j in range(head_dim):
                    out[j] = np.float32(0)
                for i in range(n_text):
                    weight, value = scores[i], values[i * head_dim : (i + 1) * head_dim]
                    for j in range(head_dim):
                        out[j] += weight * value[j]
    meet(barrier, n_threads)
    _given(room.attended, words, steps, halves)
    start, stop = share(dim, CHANNELS, thread, n_threads)
    _matrix(layer, CROSS_OUT, room.attended, words, steps, room.sums, x, start, stop, True, halves, sizes.brain)
    meet(barrier, n_threads)


@njit(**_JIT)
def finish(thread, n_threads, barrier, x, end, room, logits):
    """x [n, D] float32 of the last layer to logits [n, K * cardinality], through the norm and heads at `end`."""
    h = room.normed[thread]
    _normed_rows(x, end, END_NORM, h)
    start, stop = share(logits.shape[1], CHANNELS, thread, n_threads)
    half_product(end[HEADS], x.shape[1], h, room.sums.view(np.float32), logits, start, stop, False, end[BRAIN] != 0)


@njit(**_JIT)
def step(thread, n_threads, barrier, x, start_column, layers, end, sizes, room, logits):
    """x [R * S, D] float32, S columns of each row, from `start_column` of the cache on: in place, through all layers.

    layers: [L, N_ADDRESSES] int64. logits: what `finish` makes of it then, or [0, 0] where they are not asked for.
    """
    dim, n_hidden, halves, brain = x.shape[1], room.hidden.shape[1], sizes.halves, sizes.brain
    words, steps, h = room.words[thread], room.steps[thread], room.normed[thread]
    start, stop = share(dim, CHANNELS, thread, n_threads)
    first, last = share(n_hidden, CHANNELS, thread, n_threads)
    for number in range(len(layers)):
        layer = layers[number]
        _normed_rows(x, layer, SELF, h)
        _given(h, words, steps, halves)
        _attend_self(thread, n_threads, start_column, layer, sizes, room)
        meet(barrier, n_threads)
        _given(room.attended, words, steps, halves)
        _matrix(layer, OUT, room.attended, words, steps, room.sums, x, start, stop, True, halves, brain)
        meet(barrier, n_threads)
        if sizes.cross == FOLDED:
            _normed_rows(x, layer, CROSS, h)
            _attend_folded(thread, n_threads, barrier, x, layer, sizes, room)
        elif sizes.cross == ATTENDED:
            _normed_rows(x, layer, CROSS, h)
            _given(h, words, steps, halves)
            _attend_text(thread, n_threads, barrier, x, layer, sizes, room)
        _normed_rows(x, layer, FFN, h)
        _given(h, words, steps, halves)
        _matrix(layer, UP, h, words, steps, room.sums, room.hidden, first, last, False, halves, brain)
        for row in range(len(x)):
            gelu(room.hidden[row, first:last])
        meet(barrier, n_threads)
        _given(room.hidden, room.wide_words[thread], steps, halves)
        _matrix(
            layer, DOWN, room.hidden, room.wide_words[thread], steps, room.sums, x, start, stop, True, halves, brain
        )
        meet(barrier, n_threads)
    if len(logits) > 0:
        finish(thread, n_threads, barrier, x, end, room, logits)
