"""Operations of a layer for `kernels`: norms, products, attention to `tables.Tables`.

Weights are plain [out, in]. For int8, rows are quantized to as many bits as keep the sums within int32.
"""
# Numba passes an intrinsic its typing context by itself.
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

import numpy as np
from numba import carray, njit

from .dot_products import (
    SPLIT,
    add_1,
    add_1_halves,
    add_8,
    add_8_halves,
    add_32,
    add_32_halves,
    add_64,
    add_64_halves,
    bfloat16_dots_4_1,
    bfloat16_dots_4_2,
    dots_2_4,
    dots_4_2,
    float16_dots_4_1,
    float16_dots_4_2,
    spread_2_4,
    spread_4_2,
    spread_halves,
)
from .intrinsics import bytes_at, float_of_bits, floats_at, store_half

BLOCK, SCALE_BYTES = 32, 8  # tables.BLOCK, tables.SCALE_BYTES
CHANNELS = 4  # outputs are shared out among threads in multiples; widths are multiples too
SPARE = 64  # int16 at the end of a quantized row
SUMS = 2 if SPLIT else 1  # int32 sums of one row and output
_INPUTS, _OUTPUTS, _ROWS = 1024, 512, 16  # a tile of many rows' product, which stays in L2
_JIT = {"nogil": True, "cache": True, "error_model": "numpy", "boundscheck": False}
_MATHS = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order; a NaN stays one

F = np.float32
# _EPSILON: the eps of LayerNorm, which `fits` demands.
_LOG2_E, _HALF, _ONE, _ZERO, _EPSILON = F(1.4426950408889634), F(0.5), F(1), F(0), F(1e-5)


@njit("UniTuple(int64, 2)(int64, int64, int64, int64)", **_JIT)
def share(n, unit, thread, n_threads):
    """The range of n that a thread takes, in multiples of `unit`."""
    units = n // unit
    return units * thread // n_threads * unit, units * (thread + 1) // n_threads * unit


@njit("float32[::1](int64, int64)", **_JIT)
def floats(address, n):
    return carray(floats_at(address), (n,))


@njit("float32(float32)", **_JIT, fastmath=_MATHS)
def _exp(x):
    """e^x for x <= 0, to 2e-7 of it; 0 below -87."""
    t = x * _LOG2_E
    whole = np.floor(t + _HALF)
    r = t - whole
    y = F(1.5403530e-4)
    for factor in (F(1.3333558e-3), F(9.6181291e-3), F(5.5504109e-2), F(0.24022651), F(0.69314718), _ONE):
        y = y * r + factor
    return y * float_of_bits(np.int32((np.int32(max(whole, F(-127))) + np.int32(127)) << np.int32(23)))


@njit("void(float32[::1])", **_JIT, fastmath=_MATHS)
def gelu(x):
    """GELU in place. erf to 1.5e-7: Abramowitz and Stegun 7.1.26."""
    for i in range(len(x)):
        z = abs(x[i]) * F(0.7071067811865476)
        t = _ONE / (_ONE + F(0.3275911) * z)
        series = t * (
            F(0.254829592) + t * (F(-0.284496736) + t * (F(1.421413741) + t * (F(-1.453152027) + t * F(1.061405429))))
        )
        erf = _ONE - series * _exp(-z * z)
        x[i] = _HALF * (x[i] + abs(x[i]) * erf)


@njit("void(float32[::1], float32[::1], float32[::1], float32[::1])", **_JIT, fastmath=_MATHS)
def normed(x, weight, bias, out):
    """Layer norm of one row."""
    n = F(len(x))
    total = _ZERO
    for i in range(len(x)):
        total += x[i]
    mean = total / n
    total = _ZERO
    for i in range(len(x)):
        total += (x[i] - mean) * (x[i] - mean)
    factor = _ONE / np.sqrt(total / n + _EPSILON)
    for i in range(len(x)):
        out[i] = (x[i] - mean) * factor * weight[i] + bias[i]


@njit("float32(float32[::1], float32, int16[::1])", **_JIT)
def quantized(x, limit, out):
    """Quantize one row to integers from -limit to limit -> the scale of a step. NaN gives NaN.

    out: n int16 and SPARE. Split rows hold the upper bytes, SPARE bytes, then the lower bytes from -128 to 127; after each,
    as int32, what the 128 added to each weight adds to a product.
    """
    bits, largest = x.view(np.int32), np.int32(0)
    for i in range(len(x)):
        largest = max(largest, np.int32(bits[i] & np.int32(0x7FFFFFFF)))
    peak = float_of_bits(largest)
    factor = limit / peak if peak != _ZERO else _ZERO
    if SPLIT:
        parts, places, n = out.view(np.int8), out.view(np.int32), len(x)
        upper, lower = np.int32(0), np.int32(0)
        for i in range(n):
            value = np.int32(np.floor(x[i] * factor + _HALF)) + np.int32(128)
            high, low = value >> np.int32(8), (value & np.int32(255)) - np.int32(128)
            parts[i], parts[n + SPARE + i] = high, low
            upper += high
            lower += low
        places[n // 4], places[(2 * n + SPARE) // 4] = np.int32(128) * upper, np.int32(128) * lower
    else:
        for i in range(len(x)):
            out[i] = np.int16(np.int32(np.floor(x[i] * factor + _HALF)))
    return peak / limit


@njit("float32(int64)", **_JIT)
def limit(n_in):
    """The largest quantized input: n_in products with int8 fit in 32 bits, or two bytes hold it."""
    return F(127 * 256 + 127) if SPLIT else F(min(32767, (2**31 - 1) // (127 * n_in)))


@njit(**_JIT)
def _scaled(sums, at, n_outputs, n_rows, part, x, first_row, scales, steps, out, first, adds):
    """Dequantize sums from `at` on, [part, n_outputs, n_rows], into `part` outputs from each of `first`, `first` + `part`, ..."""
    n_in, done = x.shape[1] - SPARE, 0
    if first_row + n_rows <= len(out):
        done = part // 4 * 4
        source, to = (
            x.ctypes.data + first_row * 2 * x.shape[1],
            out.ctypes.data + 4 * (first_row * out.shape[1] + first),
        )
        of_sums, of_steps, of_scales = sums.ctypes.data + 4 * at, steps.ctypes.data + 4 * first_row, scales + 4 * first
        if n_rows == 2:
            spread_4_2(
                of_sums, done, source, x.shape[1], n_in, of_steps, of_scales, to, 4 * part, 4 * out.shape[1], adds
            )
        else:
            spread_2_4(
                of_sums, done, source, x.shape[1], n_in, of_steps, of_scales, to, 4 * part, 4 * out.shape[1], adds
            )
    for row in range(first_row, min(first_row + n_rows, len(out))):
        step, to, places = steps[row], out[row], x[row].view(np.int32)
        for output in range(n_outputs):
            number = at + (done * n_outputs * n_rows + output * n_rows + row - first_row) * SUMS
            scale = floats(scales, first + n_outputs * part)
            for n in range(first + output * part + done, first + (output + 1) * part):
                if SPLIT:
                    upper, lower = sums[number] - places[n_in // 4], sums[number + 1] - places[(2 * n_in + SPARE) // 4]
                    value = (F(upper) * (F(256) * step) + F(lower) * step) * scale[n]
                else:
                    value = F(sums[number]) * step * scale[n]
                to[n] = to[n] + value if adds else value
                number += n_outputs * n_rows * SUMS


@njit(
    "void(int64, int64, int64, int16[:, ::1], float32[::1], int32[::1], float32[:, ::1], int64, int64, boolean)",
    **_JIT,
)
def product(weight, scale, n_in, x, steps, sums, out, start, stop, adds):
    """Outputs from `start` to `stop` of rows x int16 [rows(R), n_in + SPARE] whose steps are [R]: written to, or added to,
    out [R, n_out]. sums: int32, SUMS * rows(R) * n_out.
    """
    n_sums, pitch = SUMS * len(x), 2 * (n_in + SPARE)
    sums[start * n_sums : stop * n_sums] = 0
    if len(x) == 2:
        part = (stop - start) // 4
        for n in range(part):
            to = sums.ctypes.data + 4 * (start + 4 * n) * n_sums
            dots_4_2(weight + (start + n) * n_in, part * n_in, x.ctypes.data, pitch // SUMS, n_in, to)
        _scaled(sums, start * n_sums, 4, 2, part, x, 0, scale, steps, out, start, adds)
        return
    n_inputs = n_in if len(x) <= 4 else _INPUTS
    for i in range(0, n_in, n_inputs):
        size = min(n_inputs, n_in - i)
        for first in range(start, stop, _OUTPUTS):
            part = min(_OUTPUTS, stop - first) // 2
            for first_row in range(0, len(x), _ROWS):
                for n in range(part):
                    of = weight + (first + n) * n_in + i
                    for row in range(first_row, min(first_row + _ROWS, len(x)), 4):
                        at = x.ctypes.data + row * pitch + i * 2 // SUMS
                        to = sums.ctypes.data + 4 * (first * n_sums + (row * 2 * part + 8 * n) * SUMS)
                        dots_2_4(of, part * n_in, at, pitch // SUMS, size, to)
    for first in range(start, stop, _OUTPUTS):
        part = min(_OUTPUTS, stop - first) // 2
        for row in range(0, len(x), 4):
            at = first * n_sums + row * 2 * part * SUMS
            _scaled(sums, at, 2, 4, part, x, row, scale, steps, out, first, adds)


@njit(
    "void(int64, int64, float32[:, ::1], float32[::1], float32[:, ::1], int64, int64, boolean, boolean)",
    **_JIT,
)
def half_product(weight, n_in, x, sums, out, start, stop, adds, is_bfloat16):
    """Outputs from `start` to `stop` of rows x [R, n_in] times float16 [n_out, n_in]: written to, or added to, out [R, n_out].

    sums: float32, R * n_out. is_bfloat16: bfloat16.
    """
    n_rows, n_out = len(x), out.shape[1]
    if start == stop:
        return
    sums[start * n_rows : stop * n_rows] = _ZERO
    # Sums are of _INPUTS inputs each, in this order, whatever the number of rows. The weights of few rows are read in order
    # of memory; those of many rows are reused from the cache.
    n_outputs = 4 if n_rows <= 4 else _OUTPUTS
    for first in range(start, stop, _OUTPUTS):
        part = min(_OUTPUTS, stop - first) // 4
        for n_first in range(0, part, n_outputs // 4):
            for i in range(0, n_in, _INPUTS):
                size = min(_INPUTS, n_in - i)
                for first_row in range(0, n_rows, _ROWS):
                    for n in range(n_first, min(n_first + n_outputs // 4, part)):
                        of = weight + 2 * ((first + n) * n_in + i)
                        for row in range(first_row, min(first_row + _ROWS, n_rows), 2):
                            at, n_together = x.ctypes.data + 4 * (row * n_in + i), min(2, n_rows - row)
                            to = sums.ctypes.data + 4 * (first * n_rows + row * 4 * part + 4 * n_together * n)
                            if n_together == 2 and is_bfloat16:
                                bfloat16_dots_4_2(of, 2 * part * n_in, at, 4 * n_in, size, to)
                            elif n_together == 2:
                                float16_dots_4_2(of, 2 * part * n_in, at, 4 * n_in, size, to)
                            elif is_bfloat16:
                                bfloat16_dots_4_1(of, 2 * part * n_in, at, 4 * n_in, size, to)
                            else:
                                float16_dots_4_1(of, 2 * part * n_in, at, 4 * n_in, size, to)
    for first in range(start, stop, _OUTPUTS):
        part = min(_OUTPUTS, stop - first) // 4
        for row in range(n_rows):
            n_together, done = min(2, n_rows - row // 2 * 2), 0
            at = first * n_rows + row // 2 * 2 * 4 * part
            if n_together == 2:
                done = part // 4 * 4
                if row % 2 == 0:
                    to = out.ctypes.data + 4 * (row * n_out + first)
                    spread_halves(sums.ctypes.data + 4 * at, done, 0, 0, 0, 0, 0, to, 4 * part, 4 * n_out, adds)
            for output in range(4):
                number = at + (4 * done + output) * n_together + row % 2
                for n in range(first + output * part + done, first + (output + 1) * part):
                    out[row, n] = out[row, n] + sums[number] if adds else sums[number]
                    number += 4 * n_together


@njit("int64(int64, boolean)", **_JIT)
def width_of(n_values, is_half):
    """Bytes of a table's row of n values."""
    return 2 * n_values if is_half else n_values + SCALE_BYTES


@njit("void(int64, int64, int64, int64, int64, int64, boolean)", **_JIT)
def weighted_sum(table, n_rows, n_values, weights, out, ahead, is_half):
    """Sum of n_rows weighted rows of a table (`tables.add_up`): n_values float32 at address `out`."""
    width, scales, start = width_of(n_values, is_half), table + n_values, 0
    while n_values - start >= 64:
        if is_half:
            add_64_halves(table + 2 * start, n_rows, width, 0, weights, out + 4 * start, ahead + 2 * start)
        else:
            add_64(table + start, n_rows, width, scales, weights, out + 4 * start, ahead + start)
        start += 64
    while n_values - start >= 32:
        if is_half:
            add_32_halves(table + 2 * start, n_rows, width, 0, weights, out + 4 * start, ahead + 2 * start)
        else:
            add_32(table + start, n_rows, width, scales, weights, out + 4 * start, ahead + start)
        start += 32
    while n_values - start >= 8:
        if is_half:
            add_8_halves(table + 2 * start, n_rows, width, 0, weights, out + 4 * start, ahead + 2 * start)
        else:
            add_8(table + start, n_rows, width, scales, weights, out + 4 * start, ahead + start)
        start += 8
    while start < n_values:
        if is_half:
            add_1_halves(table + 2 * start, n_rows, width, 0, weights, out + 4 * start, ahead + 2 * start)
        else:
            add_1(table + start, n_rows, width, scales, weights, out + 4 * start, ahead + start)
        start += 1


@njit("void(float32[::1], int64, int64, int64, boolean)", **_JIT, fastmath=True)
def _to_row(values, n, stride, row, is_half):
    """n values at their stride to a table's row at an address. Source: FBGEMM `FloatToFused8BitRowwiseQuantizedSBFloat`."""
    if is_half:
        for i in range(n):
            store_half(row + 2 * i, values[i * stride])
        return
    least, largest = values[0], values[0]
    for i in range(n):
        least, largest = min(least, values[i * stride]), max(largest, values[i * stride])
    span = largest - least
    factor = F(255) / (span + F(1e-8))
    value = carray(bytes_at(row), (n,))
    for i in range(n):
        value[i] = np.uint8(np.int32((values[i * stride] - least) * factor + _HALF))
    scale = floats(row + n, 2)
    scale[0], scale[1] = span / F(255), least


@njit("void(float32[::1])", **_JIT, fastmath=True)
def softmax(scores):
    """Softmax in place."""
    largest = scores[0]
    for i in range(len(scores)):
        largest = max(largest, scores[i])
    total = _ZERO
    for i in range(len(scores)):
        scores[i] = _exp(scores[i] - largest)
        total += scores[i]
    factor = _ONE / total
    for i in range(len(scores)):
        scores[i] *= factor


@njit("float32(float32[::1], float32[::1])", **_JIT, fastmath=_MATHS)
def dot(x, y):
    total = _ZERO
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@njit("void(float32[::1], float32[::1], int64, int64, float32[::1], int64, boolean)", **_JIT, fastmath=_MATHS)
def remember(key, value, keys, values, tail, column, is_half):
    """Key and value [Dh] of one column of one head into its part of a `cache.TableCache`."""
    n, place = len(key), column % BLOCK
    row, row_of_keys = width_of(n, is_half), width_of(BLOCK, is_half)
    if place == 0:
        ahead = carray(bytes_at(values + column * row), (BLOCK * row,))
        for i in range(len(ahead)):
            ahead[i] = np.uint8(0)
    _to_row(value, n, 1, values + column * row, is_half)
    for i in range(n):
        tail[place * n + i] = key[i]
    if place == BLOCK - 1:
        for i in range(n):
            _to_row(tail[i:], BLOCK, n, keys + (column // BLOCK * n + i) * row_of_keys, is_half)


@njit("void(float32[::1], int64, int64, float32[::1], int64, float32[::1], float32[::1], int64, boolean)", **_JIT)
def attend(query, keys, values, tail, column, scores, out, ahead, is_half):
    """One column's attention to a head's `tables.Tables`: query [Dh], scaled -> out [Dh]. ahead: address of the next keys."""
    n, complete = len(query), column // BLOCK * BLOCK
    block = n * width_of(BLOCK, is_half)
    for start in range(0, complete, BLOCK):
        at, to = start // BLOCK * block, scores.ctypes.data + 4 * start
        weighted_sum(keys + at, n, BLOCK, query.ctypes.data, to, values + at, is_half)
    for i in range(complete, column + 1):
        scores[i] = dot(query, tail[(i - complete) * n : (i - complete + 1) * n])
    softmax(scores[: column + 1])
    weighted_sum(values, column + 1, n, scores.ctypes.data, out.ctypes.data, ahead, is_half)
