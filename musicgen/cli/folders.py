"""Folders that the commands use when none is given. Imports nothing that may be broken: `doctor` starts here too."""

import os
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]


def comfyui_dir() -> Path | None:
    """The ComfyUI that the pack is installed in, or that $COMFYUI_PATH names."""
    if PACK.parent.name == "custom_nodes":
        return PACK.parent.parent
    root = os.environ.get("COMFYUI_PATH")
    return Path(root) if root else None


def models_dir() -> Path:
    """The models folder of that ComfyUI; else ./models."""
    root = comfyui_dir()
    return root / "models" if root else Path("models")
