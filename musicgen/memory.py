"""Memory of the process."""

import ctypes
import functools
import sys
from collections.abc import Callable


def release_freed_memory() -> None:
    """Return freed memory to the system: glibc caches freed blocks of up to 32 MB, the size of weight matrices."""
    _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int]:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(library, "malloc_trim", lambda pad: 0)
