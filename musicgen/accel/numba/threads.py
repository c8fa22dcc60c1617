"""Threads that run one kernel together and meet at a spin barrier inside it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch


class ThreadTeam:
    """The caller's thread, and as many others as torch has besides."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        self._reserved: int | None = None
        self._n_alone = 0
        self._barrier = np.zeros(3, np.int64)  # as `intrinsics.barrier` takes it

    @property
    def n_threads(self) -> int:
        return self._reserved or torch.get_num_threads()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Torch's own threads at rest: after each shared operator they spin for some milliseconds on the team's cores."""
        with self._lock:
            self._reserved = self.n_threads
            self._n_alone += 1
            torch.set_num_threads(1)
        try:
            yield
        finally:
            with self._lock:
                self._n_alone -= 1
                if self._n_alone == 0:  # runs may overlap, and end in any order
                    torch.set_num_threads(self._reserved)
                    self._reserved = None

    def run(self, kernel: Callable[..., None], *arguments: object) -> None:
        """kernel(thread, n_threads, address of the barrier, *arguments) on every thread; one kernel at a time."""
        n_threads = self.n_threads
        if not kernel.signatures:  # compiled at this call, by one thread; others would wait for it at the barrier
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
            except BaseException:  # Ctrl-C between submissions, say
                self._barrier[2] = 1
                raise
            finally:
                wait(others)
                self._barrier[:] = 0
        for other in others:
            other.result()

    def _take_part(self, thread: int, n_threads: int, kernel: Callable[..., None], *arguments: object) -> None:
        """One thread's part; if it fails, the others are released from the barrier."""
        try:
            kernel(thread, n_threads, self._barrier.ctypes.data, *arguments)
        except BaseException:
            self._barrier[2] = 1
            raise


team = ThreadTeam()
