"""GEMV inner loops that Numba's vectorizer does not find: int8 and 16-bit dot products, weighted row sums, prefetch.

Written as LLVM IR for the host's instruction set. Addresses and sizes are int64.
"""
# Numba makes its settings when it is imported.
# pyright: reportAttributeAccessIssue=false

from llvmlite import ir
from numba import config, types
from numba.core import cgutils, codegen
from numba.extending import intrinsic

from .intrinsics import F32, I8, I16, I32, add_product, constant, load, loop, prefetch, splat

_FEATURES = config.CPU_FEATURES or codegen.get_host_cpu_features()  # of this processor that Numba may use
SPLIT = "+avx512vnni" in _FEATURES  # rows are split into bytes for vpdpbusd, which adds four byte products at once

_LANES, _BYTES, _TABLE_FLOATS = 16, 64, 16  # vector lengths: of int16, of int8, of a table's values
_FLOATS = 16 if "+avx512f" in _FEATURES else 8  # and of float32
_LINE, _AHEAD = 64, 1024  # bytes of a cache line, and the prefetch distance


def _wide(b, address, kind):
    """Load _LANES integers as int32."""
    vector = ir.VectorType(kind, _LANES)
    return b.sext(load(b, address, vector, kind.width // 8), ir.VectorType(I32, _LANES))


def _evens_and_odds(b, vector):
    undefined = ir.Constant(vector.type, ir.Undefined)
    for start in (0, 1):
        places = ir.Constant(ir.VectorType(I32, _LANES // 2), list(range(start, _LANES, 2)))
        yield b.shuffle_vector(vector, undefined, places)


def _lane_sums(b, vectors):
    """Horizontal sums of n vectors, in one vector of n lanes; n is the number of lanes over a power of two.

    The order of each sum does not depend on n.
    """
    add = b.fadd if vectors[0].type.element == F32 else b.add
    flags = {"flags": ("reassoc",)} if vectors[0].type.element == F32 else {}
    n_lanes, n_left = vectors[0].type.count, len(vectors)
    undefined = ir.Constant(vectors[0].type, ir.Undefined)
    while len(vectors) > 1 or n_lanes > n_left:
        if len(vectors) > 1:
            pairs, n_made = zip(vectors[::2], vectors[1::2], strict=True), n_lanes
        else:
            pairs, n_made = [(vectors[0], undefined)], n_lanes // 2
        evens, odds = (
            ir.Constant(ir.VectorType(I32, n_made), [2 * i + start for i in range(n_made)]) for start in (0, 1)
        )
        vectors = [add(b.shuffle_vector(*pair, evens), b.shuffle_vector(*pair, odds), **flags) for pair in pairs]
        if n_made < n_lanes:
            n_lanes, undefined = n_made, ir.Constant(vectors[0].type, ir.Undefined)
    return vectors[0]


def _store_sums(b, vectors, out):
    """Add the horizontal sums to the vector at an address."""
    result = _lane_sums(b, vectors)
    at = b.inttoptr(out, result.type.as_pointer())
    before = b.load(at, align=4)
    b.store(b.fadd(before, result) if result.type.element == F32 else b.add(before, result), at, align=4)


def _dots_of(n_outputs, n_rows):
    @intrinsic
    def dots(typing, weight, weight_stride, x, x_stride, n, out):
        """Dot products of n_outputs rows of an int8 weight with n_rows rows of int16, added to int32 at `out`, [n_outputs, n_rows].

        Strides are in bytes. n: inputs, a multiple of _LANES. The sums are contiguous: a power-of-two stride conflicts in L1.
        """

        def code(context, b, signature, arguments):
            weight, weight_stride, x, x_stride, n, out = arguments
            weights = [b.add(weight, b.mul(weight_stride, constant(output))) for output in range(n_outputs)]
            rows = [b.add(x, b.mul(x_stride, constant(row))) for row in range(n_rows)]

            def add(i, sums):
                operands = [_wide(b, b.add(row, b.shl(i, constant(1))), I16) for row in rows]
                values = [_wide(b, b.add(each, i), I8) for each in weights]
                # Products of 16 bits, added in pairs: what processors have one instruction for (vpmaddwd).
                result = [b.add(*_evens_and_odds(b, b.mul(one, other))) for one in values for other in operands]
                return [b.add(total, each) for total, each in zip(sums, result, strict=True)]

            def add_line(i, sums):
                for each in weights:
                    prefetch(b, b.add(b.add(each, i), constant(_AHEAD)), 0)
                for start in range(0, _LINE, _LANES):
                    sums = add(b.add(i, constant(start)), sums)
                return sums

            pairs = ir.VectorType(I32, _LANES // 2)
            zeros = [ir.Constant(pairs, None)] * (n_outputs * n_rows)
            sums, at = loop(b, constant(0), b.and_(n, constant(-_LINE)), _LINE, zeros, add_line)
            sums, _ = loop(b, at, n, _LANES, sums, add)
            _store_sums(b, sums, out)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), code

    return dots


def _byte_dots_of(n_outputs, n_rows):
    @intrinsic
    def dots(typing, weight, weight_stride, x, x_stride, n, out):
        """As `_dots_of`, of rows of int8. 128 is added to each weight: vpdpbusd takes one factor unsigned."""

        def code(context, b, signature, arguments):
            weight, weight_stride, x, x_stride, n, out = arguments
            weights = [b.add(weight, b.mul(weight_stride, constant(output))) for output in range(n_outputs)]
            rows = [b.add(x, b.mul(x_stride, constant(row))) for row in range(n_rows)]
            fours = ir.VectorType(I32, _BYTES // 4)
            kind = ir.FunctionType(fours, [fours] * 3)
            add_products = cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx512.vpdpbusd.512")
            signs = ir.Constant(ir.VectorType(I8, _BYTES), [-128] * _BYTES)

            def padded(address, n_lanes):
                """n_lanes bytes, zero-padded."""
                result = load(b, address, ir.VectorType(I8, n_lanes), 1)
                if n_lanes < _BYTES:
                    places = [*range(n_lanes), *[n_lanes] * (_BYTES - n_lanes)]
                    places = ir.Constant(ir.VectorType(I32, _BYTES), places)
                    result = b.shuffle_vector(result, ir.Constant(result.type, None), places)
                return result

            def add(i, sums, n_lanes):
                operands = [b.bitcast(padded(b.add(row, i), n_lanes), fours) for row in rows]
                values = [b.bitcast(b.xor(padded(b.add(each, i), n_lanes), signs), fours) for each in weights]
                pairs = [(one, other) for one in values for other in operands]
                return [b.call(add_products, [total, *pair]) for total, pair in zip(sums, pairs, strict=True)]

            def add_line(i, sums):
                for each in weights:
                    prefetch(b, b.add(b.add(each, i), constant(_AHEAD)), 0)
                return add(i, sums, _BYTES)

            zeros = [ir.Constant(fours, None)] * (n_outputs * n_rows)
            sums, at = loop(b, constant(0), b.and_(n, constant(-_BYTES)), _BYTES, zeros, add_line)
            sums, _ = loop(b, at, n, _LANES, sums, lambda i, sums: add(i, sums, _LANES))
            _store_sums(b, sums, out)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), code

    return dots


# Several sequential weight streams reach more bandwidth than one, and than interleaved rows. Split rows are two each.
dots_4_2, dots_2_4 = (_byte_dots_of(4, 4), _byte_dots_of(2, 8)) if SPLIT else (_dots_of(4, 2), _dots_of(2, 4))


def _widened(b, address, is_bfloat16):
    """Load _FLOATS float16, or bfloat16, as float32."""
    floats = ir.VectorType(F32, _FLOATS)
    if not is_bfloat16:
        return b.fpext(load(b, address, ir.VectorType(ir.HalfType(), _FLOATS), 2), floats)
    words = ir.VectorType(I32, _FLOATS)
    upper = b.zext(load(b, address, ir.VectorType(I16, _FLOATS), 2), words)
    return b.bitcast(b.shl(upper, ir.Constant(words, [16] * _FLOATS)), floats)


def _half_dots_of(n_outputs, n_rows, is_bfloat16=False):
    @intrinsic
    def half_dots(typing, weight, weight_stride, x, x_stride, n, out):
        """As `dots`, of a float16 (or bfloat16) weight and rows of float32 to float32. n: a multiple of _FLOATS."""

        def code(context, b, signature, arguments):
            weight, weight_stride, x, x_stride, n, out = arguments
            floats = ir.VectorType(F32, _FLOATS)
            weights = [b.add(weight, b.mul(weight_stride, constant(output))) for output in range(n_outputs)]
            rows = [b.add(x, b.mul(x_stride, constant(row))) for row in range(n_rows)]

            def add(i, sums):
                operands = [load(b, b.add(row, b.shl(i, constant(2))), floats, 4) for row in rows]
                values = [_widened(b, b.add(each, b.shl(i, constant(1))), is_bfloat16) for each in weights]
                result = [(one, other) for one in values for other in operands]
                return [add_product(b, total, *pair) for total, pair in zip(sums, result, strict=True)]

            def add_line(i, sums):
                for each in weights:
                    prefetch(b, b.add(b.add(each, b.shl(i, constant(1))), constant(_AHEAD)), 0)
                for start in range(0, _LINE // 2, _FLOATS):
                    sums = add(b.add(i, constant(start)), sums)
                return sums

            zeros = [ir.Constant(floats, None)] * (n_outputs * n_rows)
            sums, at = loop(b, constant(0), b.and_(n, constant(-_LINE // 2)), _LINE // 2, zeros, add_line)
            sums, _ = loop(b, at, n, _FLOATS, sums, add)
            _store_sums(b, sums, out)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), code

    return half_dots


float16_dots_4_1, float16_dots_4_2 = _half_dots_of(4, 1), _half_dots_of(4, 2)
bfloat16_dots_4_1, bfloat16_dots_4_2 = _half_dots_of(4, 1, True), _half_dots_of(4, 2, True)


def _spread_of(n_outputs, n_rows, dequantizes):
    @intrinsic
    def spread(typing, sums, n, x, x_stride, n_in, steps, scales, out, output_stride, row_stride, adds):
        """Transpose the dots' sums [n, n_outputs, n_rows] into n floats for each output and row, at their strides.

        dequantizes: sums are integers of quantized rows x, whose offsets are n_in bytes into a row; they are multiplied by
        `steps` of rows and `scales` of outputs. Else they are float32. adds: not 0 = add to `out`. n: a multiple of 4.
        """

        def code(context, b, signature, arguments):
            sums, n, x, x_stride, n_in, steps, scales, out, output_stride, row_stride, adds = arguments
            n_values, n_each = n_outputs * n_rows, 2 if dequantizes and SPLIT else 1
            n_stored = n_values * n_each
            stored, floats = ir.VectorType(I32 if dequantizes else F32, n_stored), ir.VectorType(F32, n_stored)
            fours = ir.VectorType(F32, 4)

            def places(of):
                return ir.Constant(ir.VectorType(I32, len(of)), list(of))

            def of_rows(kind, value):
                """A vector of value(row, byte) in the order of the sums."""
                result = ir.Constant(ir.VectorType(kind, n_stored), ir.Undefined)
                each = [value(row, n) for row in range(n_rows) for n in range(n_each)]
                for i in range(n_stored):
                    result = b.insert_element(result, each[i % (n_rows * n_each)], ir.Constant(I32, i))
                return result

            def offset(row, n):
                return load(b, b.add(b.add(x, b.mul(x_stride, constant(2 * row + n))), n_in), I32, 4)

            def factor(row, n):
                step = load(b, b.add(steps, constant(4 * row)), F32, 4)
                return b.fmul(step, ir.Constant(F32, 256.0)) if n_each == 2 and n == 0 else step

            offsets = of_rows(I32, offset) if n_each == 2 else None
            factors = of_rows(F32, factor) if dequantizes else None
            adding = b.icmp_signed("!=", adds, constant(0))

            def values(i):
                result = load(b, b.add(sums, b.mul(i, constant(4 * n_stored))), stored, 4)
                if n_each == 2:
                    result = b.sub(result, offsets)
                if dequantizes:
                    result = b.fmul(b.sitofp(result, floats), factors)
                if n_each == 2:
                    halves = [b.shuffle_vector(result, result, places(range(start, n_stored, 2))) for start in (0, 1)]
                    result = b.fadd(*halves)
                return result

            def body(i, carried):
                operands = [values(b.add(i, constant(k))) for k in range(4)]
                pairs = []
                for one, other in (operands[:2], operands[2:]):
                    for first in range(0, n_values, n_values // 2):
                        zipped = [k + m * n_values for k in range(first, first + n_values // 2) for m in range(2)]
                        pairs.append(b.shuffle_vector(one, other, places(zipped)))
                for j in range(n_values):
                    half, k = divmod(j, n_values // 2)
                    of = (2 * k, 2 * k + 1, n_values + 2 * k, n_values + 2 * k + 1)
                    result = b.shuffle_vector(pairs[half], pairs[half + 2], places(of))
                    output, row = divmod(j, n_rows)
                    along = b.add(b.mul(output_stride, constant(output)), b.shl(i, constant(2)))
                    if dequantizes:
                        result = b.fmul(result, load(b, b.add(scales, along), fours, 4))
                    at = b.add(b.add(out, along), b.mul(row_stride, constant(row)))
                    result = b.select(adding, b.fadd(load(b, at, fours, 4), result), result)
                    b.store(result, b.inttoptr(at, fours.as_pointer()), align=4)
                return []

            loop(b, constant(0), n, 4, [], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11), code

    return spread


spread_4_2, spread_2_4, spread_halves = _spread_of(4, 2, True), _spread_of(2, 4, True), _spread_of(4, 2, False)


def _adder_of(lanes, in_bytes):
    @intrinsic
    def add(typing, table, n_rows, width, scales, weights, out, ahead):
        """Weighted sum of the rows at table, table + width, ...: `lanes` float32 at `out`.

        in_bytes: rows are bytes with a scale and an offset, the first row's at `scales`; else they are float16.
        weights: float32 [n_rows]. ahead: address of the next read, which is prefetched.
        """

        def code(context, b, signature, arguments):
            table, n_rows, width, scales, weights, out, ahead = arguments
            part = min(lanes, _TABLE_FLOATS)
            floats = ir.VectorType(F32, part)
            stored = ir.VectorType(I8 if in_bytes else ir.HalfType(), part)
            size = 1 if in_bytes else 2

            def float_at(address):
                return load(b, address, F32, 4)

            def body(i, sums):
                at, weight = b.mul(i, width), float_at(b.add(weights, b.shl(i, constant(2))))
                prefetch(b, b.add(ahead, at), 2)
                offset = sums[0]
                if in_bytes:
                    scale_at = b.add(scales, at)
                    offset = add_product(b, offset, weight, float_at(b.add(scale_at, constant(4))))
                    weight = b.fmul(weight, float_at(scale_at))
                factor, result = splat(b, weight, part), [offset]
                for n, total in enumerate(sums[1:]):
                    values = load(b, b.add(b.add(table, at), constant(n * part * size)), stored, size)
                    values = b.uitofp(values, floats) if in_bytes else b.fpext(values, floats)
                    result.append(add_product(b, total, values, factor))
                return result

            zeros = [ir.Constant(F32, 0.0), *[ir.Constant(floats, None)] * (lanes // part)]
            (offset, *sums), _ = loop(b, constant(0), n_rows, 1, zeros, body)
            for n, total in enumerate(sums):
                at = b.inttoptr(b.add(out, constant(4 * n * part)), floats.as_pointer())
                b.store(b.fadd(total, splat(b, offset, part)), at, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), code

    return add


add_64, add_32, add_8, add_1 = (_adder_of(lanes, True) for lanes in (64, 32, 8, 1))
add_64_halves, add_32_halves, add_8_halves, add_1_halves = (_adder_of(lanes, False) for lanes in (64, 32, 8, 1))
