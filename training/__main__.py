"""`python -m training` from the root of the repository.

The package imports the engine relatively, so it is run as a part of the pack, under a name for the pack that does not
clash. No guard around the registration: worker processes that start afresh need it too.
"""

import importlib
import sys
import types
from pathlib import Path

_PACK = "musicgen_pansori_pack"

if _PACK not in sys.modules:
    _module = types.ModuleType(_PACK)
    _module.__path__ = [str(Path(__file__).resolve().parent.parent)]
    sys.modules[_PACK] = _module

if __name__ == "__main__":
    sys.exit(importlib.import_module(f"{_PACK}.training.cli").main())
