"""Compilation of the kernels: once a machine, kept in a folder named by what they are made of."""

import atexit
import contextlib
import functools
import hashlib
import importlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ..stock import has_fbgemm

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
_MODULES = ("intrinsics", "dot_products", "ops", "kernels")


@functools.cache
def load_kernels() -> ModuleType | None:
    """The module of compiled kernels, or None where Numba is missing or does not work. Compiling takes some 20 s."""
    if not has_fbgemm():  # torch's own mark of an x86 CPU with AVX2
        return None
    try:
        config = _numba_config()
    except ImportError as error:
        log.info("16-bit and int8 models run about twice as fast with Numba (python -m pip install numba): %s", error)
        return None
    if config.DISABLE_JIT:
        return None
    log.info("Preparing the CPU kernels; they are compiled once, in some 20 s")
    try:
        with _cached_in(cache_folder(config.CACHE_DIR)):
            return importlib.import_module(f"{__package__}.kernels")
    except Exception:  # a compiler's errors have no common class; music is made without it
        log.warning(
            "Numba could not compile the kernels for this CPU; torch's slower operators take over", exc_info=True
        )
        return None


@functools.cache
def kernels() -> ModuleType:
    """`load_kernels` for what runs only where there are some."""
    module = load_kernels()
    assert module is not None
    return module


def digest(sources: Path = SOURCES, package: str = __package__ or "") -> str:
    """Changes with the files in `sources`, and with the package's name, which compiled code refers to."""
    sha256 = hashlib.sha256(package.encode())
    for name in _MODULES:
        sha256.update((sources / f"{name}.py").read_bytes())
    return sha256.hexdigest()[:16]


def cache_folder(configured: str, sources: Path = SOURCES) -> Path:
    """A writable folder for this digest: the user's own choice, else beside the sources, else the user's cache, else temporary."""
    home_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    roots = [Path(configured)] if configured else []
    roots += [sources / "__pycache__", Path(home_cache) / "musicgen-pansori"]
    for root in roots:
        folder = root / f"kernels-{digest(sources)}"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    log.info("No folder can be written for compiled kernels (%s); they are compiled again in the next process", roots)
    folder = Path(tempfile.mkdtemp(prefix="musicgen-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _cached_in(folder: Path) -> Iterator[None]:
    """Numba's cache in this folder for functions that are defined meanwhile."""
    config = _numba_config()
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _numba_config() -> Any:
    """numba.config, whose settings are made when it is imported. ImportError without Numba."""
    import numba

    module: Any = numba
    return module.config
