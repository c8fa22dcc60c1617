"""LLVM IR helpers, and intrinsics that Numba lacks: typed pointers, prefetch, atomics, a spin barrier.

Addresses and sizes are int64.
"""
# Numba passes an intrinsic its typing context by itself.
# pyright: reportCallIssue=false

import ctypes
import sys

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_SPINS = 4096  # polls of the barrier between two yields of the core

I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def constant(value):
    return ir.Constant(I64, value)


def load(b, address, vector, align):
    return b.load(b.inttoptr(address, vector.as_pointer()), align=align)


def prefetch(b, address, nearness):
    """Prefetch the cache line at an address. nearness: 2 = into L2, 0 = non-temporal, for what is read once."""
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    ask = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
    b.call(ask, [b.inttoptr(address, I8.as_pointer()), *(ir.Constant(I32, how) for how in (0, nearness, 1))])


def add_product(b, total, one, other):
    return b.fadd(total, b.fmul(one, other, flags=("contract",)), flags=("contract",))


def splat(b, value, n):
    undefined = ir.Constant(ir.VectorType(value.type, n), ir.Undefined)
    first = b.insert_element(undefined, value, ir.Constant(I32, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, n), [0] * n))


def loop(b, start, stop, step, carried, body):
    """body(i, carried) -> carried for i in range(start, stop, step) -> the last carried values, and the final i."""
    entry, head, end = b.block, b.append_basic_block("loop"), b.append_basic_block("end")
    b.cbranch(b.icmp_signed("<", start, stop), head, end)
    b.position_at_end(head)
    i = b.phi(I64)
    phis = [b.phi(value.type) for value in carried]
    following = [*body(i, phis), b.add(i, constant(step))]
    before, inside = [*carried, start], b.block
    b.cbranch(b.icmp_signed("<", following[-1], stop), head, end)
    for phi, first, next_ in zip([*phis, i], before, following, strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(next_, inside)
    b.position_at_end(end)
    merged = []
    for first, last in zip(before, following, strict=True):
        merged.append(b.phi(first.type))
        merged[-1].add_incoming(first, entry)
        merged[-1].add_incoming(last, inside)
    return merged[:-1], merged[-1]


@intrinsic
def store_half(typing, address, value):
    """Store a float32 as float16."""

    def code(context, b, signature, arguments):
        at = b.inttoptr(arguments[0], ir.HalfType().as_pointer())
        b.store(b.fptrunc(arguments[1], ir.HalfType()), at, align=2)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), code


def _pointer_to(kind):
    @intrinsic
    def pointer(typing, address):
        def code(context, b, signature, arguments):
            return b.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), code

    return pointer


floats_at, bytes_at = _pointer_to(types.float32), _pointer_to(types.uint8)


@intrinsic
def float_of_bits(typing, bits):
    def code(context, b, signature, arguments):
        return b.bitcast(arguments[0], F32)

    return types.float32(types.int32), code


@intrinsic
def _add_shared(typing, address, value):
    """Atomic add; the value before it."""

    def code(context, b, signature, arguments):
        return b.atomic_rmw("add", b.inttoptr(arguments[0], I64.as_pointer()), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), code


@intrinsic
def _read_shared(typing, address):
    def code(context, b, signature, arguments):
        return b.load_atomic(b.inttoptr(arguments[0], I64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), code


@intrinsic
def _write_shared(typing, address, value):
    def code(context, b, signature, arguments):
        b.store_atomic(arguments[1], b.inttoptr(arguments[0], I64.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic
def _pause(typing):
    """The processor's pause instruction, for a spinning thread."""

    def code(context, b, signature, arguments):
        b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), code


def _register_yield_core():
    """The system's yield of a core, registered under a name that compiled code refers to."""
    system = ctypes.CDLL("kernel32").SwitchToThread if sys.platform == "win32" else ctypes.CDLL(None).sched_yield
    binding.add_symbol("musicgen_yield_core", ctypes.cast(system, ctypes.c_void_p).value)


_register_yield_core()
_yield_core = types.ExternalFunction("musicgen_yield_core", types.int32())


@njit("void(int64, int64)", nogil=True, cache=True)
def barrier_wait(barrier, n_threads):
    """Wait for all threads. barrier: address of three int64: threads that arrived, rounds completed, and 1 if a thread failed,
    which no other waits for.
    """
    if n_threads == 1:
        return
    round_ = _read_shared(barrier + 8)
    if _add_shared(barrier, 1) == n_threads - 1:
        _write_shared(barrier, 0)
        _write_shared(barrier + 8, round_ + 1)
        return
    spins = 0
    while _read_shared(barrier + 8) == round_ and _read_shared(barrier + 16) == 0:
        _pause()
        spins += 1
        if spins % _SPINS == 0:
            _yield_core()
