"""What nodes report: shown while they run, and again where ComfyUI has a node's result already."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from . import host

_shown: ContextVar[list[str] | None] = ContextVar("shown", default=None)  # by the node that runs now


def show(text: str) -> None:
    """Show a report on the node that runs now, in place of the one before. It stays with the node's result."""
    host.show_text(text)
    if (texts := _shown.get()) is not None:
        texts[:] = [text]


def with_report(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What a node's function returns; within ComfyUI a tuple becomes outputs with the report as `ui`.

    ComfyUI can send `ui` again for a node that it does not run again, to a page that was opened since; texts of progress it cannot.
    """
    if host.executing_node() is None:
        return function(**arguments)
    texts: list[str] = []
    token = _shown.set(texts)
    try:
        result = function(**arguments)
    finally:
        _shown.reset(token)
    return {"ui": {"text": texts}, "result": result} if texts and isinstance(result, tuple) else result
