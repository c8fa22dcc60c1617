"""int8 and halves on a CPU by the kernels of `cpu_kernels`, where Numba is installed: columns through all layers, products.

Without Numba, `cpu_step` and FBGEMM do the same.
"""

import atexit
import contextlib
import functools
import importlib.util
import logging
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .cache import BLOCK, TableCache
from .tables import SCALE_BYTES

log = logging.getLogger(__name__)

# More rows have so much to multiply that FBGEMM's instructions are worth more than what lies between products.
MAX_ROWS = {torch.uint8: 4, torch.float16: 8}  # by what the caches are kept in
_WIDTHS = 16  # what a matrix's sizes are multiples of


@functools.cache
def kernels() -> ModuleType | None:
    """The compiled kernels, or None where there is no Numba that works. Compiling takes some twenty seconds, once a machine."""
    try:
        import numba
    except ImportError as error:
        log.info("This CPU would be faster with Numba (python -m pip install numba): %s", error)
        return None
    if numba.config.DISABLE_JIT:
        return None
    log.info("Preparing kernels for this CPU; where it has none yet they are compiled, in some twenty seconds")
    try:
        try:
            module = _load_kernels()
        except RuntimeError as error:  # neither beside the files nor at the user's is there a place to keep code
            log.info("Compiled kernels are not kept: %s", error)
            kept_at, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _passing_place()
            try:
                module = _load_kernels()
            finally:
                numba.config.CACHE_DIR = kept_at
    except Exception:  # what a compiler may raise has no end; music is made without it
        log.warning(
            "Numba could not compile the kernels for this CPU; going on without them, which is slower", exc_info=True
        )
        return None
    parts = sys.modules["musicgen_cpu_parts"]
    assert (parts.BLOCK, parts.SCALE_BYTES) == (BLOCK, SCALE_BYTES)
    return module


def _load_kernels() -> ModuleType:
    for name in ("cpu_basics", "cpu_vectors", "cpu_parts", "cpu_kernels"):
        # By names that are the same wherever the package is: compiled code is kept by them.
        spec = importlib.util.spec_from_file_location(f"musicgen_{name}", Path(__file__).with_name(f"{name}.py"))
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def _passing_place() -> str:
    """A directory that goes when this process does."""
    made = tempfile.mkdtemp(prefix="musicgen-kernels-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


class Crew:
    """Threads that run one kernel together: the caller's, and as many as torch has besides."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        self._kept: int | None = None
        self._barrier = np.zeros(3, np.int64)  # as `cpu_basics.meet` takes it

    @property
    def n_threads(self) -> int:
        return self._kept or torch.get_num_threads()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Torch's own threads at rest: they look out for work for some milliseconds after each operator that was shared
        among them, on the cores that the crew needs.
        """
        before, self._kept = self._kept, self.n_threads
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(self._kept)
            self._kept = before

    def run(self, kernel: Callable[..., None], *arguments: object) -> None:
        """kernel(thread, n_threads, address of the barrier, *arguments) on every thread; one kernel at a time."""
        n_threads = self.n_threads
        if not kernel.signatures:  # it is compiled now, by one; the others would wait for it
            n_threads = 1
        with self._lock:
            if self._pool is None or self._size < n_threads - 1:
                self._size = max(1, n_threads - 1)
                self._pool = ThreadPoolExecutor(self._size, "musicgen")
            others = []
            try:
                for n in range(1, n_threads):
                    others.append(self._pool.submit(self._take_part, n, n_threads, kernel, *arguments))
                self._take_part(0, n_threads, kernel, *arguments)
            except BaseException:  # Ctrl-C between them, say
                self._barrier[2] = 1
                raise
            finally:
                wait(others)
                self._barrier[:] = 0
        for other in others:
            other.result()

    def _take_part(self, thread: int, n_threads: int, kernel: Callable[..., None], *arguments: object) -> None:
        """As one of the threads; if it fails, the others do not wait for it at the barrier."""
        try:
            kernel(thread, n_threads, self._barrier.ctypes.data, *arguments)
        except BaseException:
            self._barrier[2] = 1
            raise


crew = Crew()


def fits(n_in: int, n_out: int) -> bool:
    """Whether the kernels can multiply by a matrix of that size."""
    return n_in % _WIDTHS == 0 and n_out % _WIDTHS == 0


def product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x [R, in] float32 times int8 [out, in] and a scale an output -> [R, out] float32. Rows never see each other's."""
    n_rows, n_out, n_room = len(x), len(weight), kernels().rows(len(x))
    out = torch.empty(n_rows, n_out)
    words = torch.zeros(n_room, x.shape[1] + kernels().SPARE, dtype=torch.int16)
    sums = torch.empty(kernels().SUMS * n_room * n_out, dtype=torch.int32)
    crew.run(
        kernels().multiply, x.detach().contiguous().numpy(), weight.data_ptr(), scale.data_ptr(),
        words.numpy(), torch.empty(n_rows).numpy(), sums.numpy(), out.numpy(),
    )  # fmt: skip
    return out


def product_of_halves(x: Tensor, weight: Tensor) -> Tensor:
    """x [R, in] float32 times float16, or bfloat16, [out, in] -> [R, out] float32."""
    out, sums = torch.empty(len(x), len(weight)), torch.empty(len(x) * len(weight))
    crew.run(
        kernels().multiply_half, x.detach().contiguous().numpy(), weight.data_ptr(), weight.dtype == torch.bfloat16,
        sums.numpy(), out.numpy(),
    )  # fmt: skip
    return out


class FusedStep:
    """Columns through all layers, and on to logits, for one run."""

    def __init__(
        self, layers: Sequence[tuple[Sequence[nn.LayerNorm], Sequence[nn.Module]]], caches: Sequence[TableCache],
        padding: Tensor | None, cross_mask: Tensor | None, norm: nn.LayerNorm, heads: nn.Module,
    ) -> None:  # fmt: skip
        """layers: each one's norms and matrices, in the order of `cpu_kernels`. padding [R]; cross_mask [R, 1, 1, N].

        norm, heads: what follows the layers; heads of 16 bits.
        """
        self._held: list[Tensor] = []  # the memory whose addresses the kernels are given, wherever its owners go
        self._kernels = kernels()
        self._addresses = np.stack([self._addresses_of(*each) for each in zip(layers, caches, strict=True)])
        brain = layers[0][1][0].weight.dtype == torch.bfloat16
        self._sizes = self._sizes_of(caches[0], padding, cross_mask, brain)
        end = [self._address(tensor) for tensor in (norm.weight, norm.bias, heads.weight)]
        self._end = np.array([*end, heads.weight.dtype == torch.bfloat16], np.int64)
        self._n_hidden, self._n_logits = len(layers[0][1][2].weight), len(heads.weight)
        self._room = None

    def __call__(self, x: Tensor, column: int) -> Tensor:
        """x [R, S, D] float32 from cache position `column` on -> [R, S, D], in its place."""
        x = x.contiguous()
        self._step(x, column, torch.empty(0, 0))
        return x

    def finish(self, x: Tensor) -> Tensor:
        """x [R, S, D] of the last layer -> logits [R, S, K * cardinality]."""
        made = torch.empty(*x.shape[:-1], self._n_logits)
        rows = x.contiguous().view(-1, x.shape[-1])
        crew.run(self._kernels.finish, rows.numpy(), self._end, self._room_for(rows), made.flatten(0, 1).numpy())
        return made

    def logits(self, x: Tensor, column: int) -> Tensor:
        """Both, at once. x is worked on."""
        made = torch.empty(*x.shape[:-1], self._n_logits)
        self._step(x.contiguous(), column, made.flatten(0, 1))
        return made

    def _step(self, x: Tensor, column: int, logits: Tensor) -> None:
        rows = x.view(-1, x.shape[-1])
        crew.run(
            self._kernels.step, rows.numpy(), column, self._addresses, self._end, self._sizes, self._room_for(rows),
            logits.numpy(),
        )  # fmt: skip

    def _address(self, tensor: Tensor) -> int:
        """Of what is held from now on."""
        assert tensor.is_contiguous()
        self._held.append(tensor.detach())
        return tensor.data_ptr()

    def _addresses_of(self, layer: tuple[Sequence[nn.LayerNorm], Sequence[nn.Module]], cache: TableCache) -> np.ndarray:
        """[N_ADDRESSES] int64; 0 where it has none."""
        names, (norms, linears) = self._kernels, layer
        tables = cache.keys, cache.values, cache.tail, cache.cross_keys, cache.cross_values
        made = np.zeros(names.N_ADDRESSES, np.int64)
        for start, tensors in (
            (names.NORMS, [tensor for norm in norms for tensor in (norm.weight, norm.bias)]),
            (names.MATRICES, [t for linear in linears for t in (linear.weight, getattr(linear, "scale", None))]),
            (names.CACHES, tables),
        ):
            for at, tensor in enumerate(tensors, start):
                if tensor is not None:
                    made[at] = self._address(tensor)
        return made

    def _sizes_of(
        self, cache: TableCache, padding: Tensor | None, cross_mask: Tensor | None, brain: bool
    ) -> NamedTuple:
        n_rows, n_heads, _, head_dim = cache.tail.shape
        cross, n_text, n_blocks = self._kernels.NO_TEXT, 1, 1
        if cache.n_folded:
            n_blocks, n_scores, _ = cache.cross_values.shape
            cross, n_text = self._kernels.FOLDED, n_scores // n_heads
        elif cache.cross_keys is not None:
            cross, n_text = self._kernels.ATTENDED, cache.cross_keys.shape[2]
        hidden = np.zeros((n_rows, n_text), bool)
        if cross_mask is not None:
            hidden |= ~cross_mask[:, 0, 0].numpy()
        before = np.zeros(n_rows, np.int64) if padding is None else padding.numpy().astype(np.int64)
        max_len = cache.values.shape[2]
        return self._kernels.Sizes(
            n_heads, head_dim, max_len, before, cross, n_text, cache.n_folded, n_blocks, hidden,
            cache.values.dtype == torch.float16, brain,
        )  # fmt: skip

    def _room_for(self, x: Tensor) -> NamedTuple:
        """For x [rows, D]. It is kept until another number of rows comes."""
        if self._room is None or len(self._room.attended) != len(x):
            self._room = None  # before there is another
            self._room = self._new_room(*x.shape)
        return self._room

    def _new_room(self, n_rows: int, dim: int) -> NamedTuple:
        n_room, n_threads, sizes = self._kernels.rows(n_rows), crew.n_threads, self._sizes
        n_hidden, n_sums = self._n_hidden, n_rows if sizes.halves else self._kernels.SUMS * n_room

        def floats(*size: int) -> np.ndarray:
            return np.zeros(size, np.float32)

        def words(width: int) -> np.ndarray:
            # By torch, which begins them where a line of memory begins.
            n_words = 1 if sizes.halves else width + self._kernels.SPARE
            return torch.zeros(n_threads, n_room, n_words, dtype=torch.int16).numpy()

        return self._kernels.Room(
            floats(n_rows, 3 * dim),
            floats(n_rows, dim),
            floats(n_rows, n_hidden),
            floats(n_rows, sizes.n_heads * sizes.n_text),
            np.zeros(max(n_sums * max(3 * dim, n_hidden), n_rows * self._n_logits), np.int32),
            floats(n_threads, n_rows, dim),
            floats(n_threads, max(sizes.max_len, sizes.n_text, dim)),
            floats(n_threads, n_rows),
            words(dim),
            words(n_hidden),
        )
