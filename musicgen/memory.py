"""Memory of the process."""

import ctypes
import functools
import sys
import threading
import weakref
from collections.abc import Callable

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


@functools.cache
def _malloc_trim() -> Callable[[int], int]:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(library, "malloc_trim", lambda pad: 0)
