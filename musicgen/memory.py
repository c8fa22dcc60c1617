"""The process's own memory."""

import ctypes
import functools
import sys
from collections.abc import Callable


def release_freed_memory() -> None:
    """Hand freed memory back to the system. glibc keeps blocks of up to 32 MB, which matrices are, for later."""
    _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int]:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(library, "malloc_trim", lambda pad: 0)
