"""One line a widget: functions that build the (type, options) pairs of INPUT_TYPES."""

from collections.abc import Sequence
from typing import Any

from ..musicgen.config import MAX_SEED, PARAMETERS

Widget = tuple[str | list[str], dict[str, Any]]


def socket(type: str, tooltip: str) -> Widget:
    """An input that another node's output is wired to."""
    return type, {"tooltip": tooltip}


def number(default: float, low: float, high: float, step: float, tooltip: str, **options: Any) -> Widget:
    """A decimal number; `options` are further ones of ComfyUI's FLOAT."""
    return "FLOAT", {"default": default, "min": low, "max": high, "step": step, **options, "tooltip": tooltip}


def whole(default: int, low: int, high: int, tooltip: str) -> Widget:
    """A whole number."""
    return "INT", {"default": default, "min": low, "max": high, "step": 1, "tooltip": tooltip}


def seed(tooltip: str) -> Widget:
    """A random seed, with the page's own control after generating."""
    return "INT", {
        "default": 0,
        "min": 0,
        "max": MAX_SEED,
        "step": 1,
        "control_after_generate": True,
        "tooltip": tooltip,
    }


def parameter(name: str) -> Widget:
    """The widget of a field of GenerationParams."""
    entry = PARAMETERS[name]
    if name == "seed":
        return seed(entry.description)
    kind = "INT" if entry.is_whole else "FLOAT"
    limits = {"default": entry.default, "min": entry.low, "max": entry.high, "step": entry.step}
    return kind, {**limits, "tooltip": entry.description}


def choice(options: Sequence[str], tooltip: str, default: str | None = None) -> Widget:
    """A list to choose from; the default is its first entry."""
    return list(options), {"default": options[0] if default is None else default, "tooltip": tooltip}


def text(default: str, tooltip: str, **options: Any) -> Widget:
    """A text; `options` are further ones of ComfyUI's STRING."""
    return "STRING", {"default": default, **options, "tooltip": tooltip}


def switch(default: bool, tooltip: str) -> Widget:
    """On or off."""
    return "BOOLEAN", {"default": default, "tooltip": tooltip}
