"""Memory of the process."""

import contextlib
import ctypes
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_DELAY_S = 0.5  # a module that is dropped takes its tensors with it a moment later


def release_once_dropped(owner: object) -> None:
    """Call `release_freed_memory` shortly after `owner` is garbage: by then its tensors are freed too."""
    weakref.finalize(owner, _release_soon).atexit = False


def _release_soon() -> None:
    timer = threading.Timer(_DELAY_S, release_freed_memory)
    timer.daemon = True
    timer.start()


def release_freed_memory() -> None:
    """Return freed memory to the system: glibc caches freed blocks of up to 32 MB, the size of weight matrices."""
    _malloc_trim()(0)


@contextlib.contextmanager
def large_blocks_mapped() -> Iterator[None]:
    """Large blocks are given back to the system as soon as they are freed, while the context lasts.

    glibc raises the size from which it does so to that of the largest block freed so far. Then the matrices that a training
    allocates and frees layer by layer leave holes: 3.5 GB of them for musicgen-small.
    """
    if sys.platform != "linux":
        yield
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)  # musl has none
    mallopt(_M_MMAP_THRESHOLD, 2**20)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # where glibc's own adjustment ends
        release_freed_memory()


@functools.cache
def _malloc_trim() -> Callable[[int], int]:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(library, "malloc_trim", lambda pad: 0)
