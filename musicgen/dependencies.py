"""Late import of optional libraries, with an error that says what to install."""

import importlib
from types import ModuleType

from .errors import DependencyError


def require(module: str, purpose: str, install: str | None = None) -> ModuleType:
    """Import `module` when it is first needed.

    Raises DependencyError, naming `purpose`, the cause and the remedy, when the library is absent or
    broken. Broken installations raise anything from OSError to RuntimeError on import, so every
    exception counts.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        package = install or module.partition(".")[0]
        raise DependencyError(
            f"{purpose} needs the Python package '{package}', which cannot be imported "
            f"({type(error).__name__}: {error}). Install or repair it in the environment that runs "
            f"this program: python -m pip install {package}"
        ) from error
