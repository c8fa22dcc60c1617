"""Late import of optional libraries, with an error that says what to install."""

import contextlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

from .errors import DependencyError

logger = logging.getLogger(__name__)

# Libraries that another one imports if they are installed, though we use nothing of them. A broken one (a torchaudio
# built for another torch, say) would break the import of both.
_UNUSED_EXTRAS = {"transformers": ("torchaudio", "soundfile", "librosa", "torchvision", "torchcodec")}


def require(module: str, purpose: str, install: str | None = None) -> ModuleType:
    """Import `module` when it is first needed.

    Raises DependencyError, naming `purpose`, the cause and the remedy, when the library is absent or
    broken. Broken installations raise anything from OSError to RuntimeError on import, so every
    exception counts.
    """
    package = module.partition(".")[0]
    try:
        try:
            return importlib.import_module(module)
        except Exception:
            broken = _broken(_UNUSED_EXTRAS.get(package, ()))
            if not broken:
                raise
            logger.warning("%s cannot be imported and is left out of %s, which does not need it", broken, package)
            with _hidden(package, broken):
                return importlib.import_module(module)
    except Exception as error:
        package = install or package
        raise DependencyError(
            f"{purpose} needs the Python package '{package}', which cannot be imported "
            f"({type(error).__name__}: {error}). Install or repair it in the environment that runs "
            f"this program: python -m pip install {package}"
        ) from error


def _broken(names: tuple[str, ...]) -> list[str]:
    """The installed libraries among `names` whose import fails."""
    found = []
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                found.append(name)
        except Exception:
            found.append(name)
    return found


@contextlib.contextmanager
def _hidden(package: str, names: list[str]) -> Iterator[None]:
    """Make the libraries `names` look uninstalled to `package`, which caches the answer."""
    utilities = sys.modules.get(f"{package}.utils.import_utils")
    for name in names:
        known = getattr(utilities, f"is_{name}_available", None)
        if known is not None and hasattr(known, "cache_clear"):
            known.cache_clear()
        if hasattr(utilities, f"_{name}_available"):  # transformers 4
            setattr(utilities, f"_{name}_available", False)
    find_spec = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> object:
        return None if name.partition(".")[0] in names else find_spec(name, package)

    with mock.patch("importlib.util.find_spec", find):
        yield
