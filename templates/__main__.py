"""`python -m templates` from the root of the repository writes workflows/, workflows/api/ and subgraphs/ anew.

The package imports the nodes relatively, so it is run as a part of the pack, as `python -m training` is.
"""

import importlib
import sys
import types
from pathlib import Path

_PACK = "musicgen_pansori_pack"

if __name__ == "__main__":
    _module = types.ModuleType(_PACK)
    _module.__path__ = [str(Path(__file__).resolve().parent.parent)]
    sys.modules[_PACK] = _module
    importlib.import_module(f"{_PACK}.templates.build").write_all()
