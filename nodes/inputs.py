"""Inputs of a node: which wires fit, before anything runs; and the check of what a wire brings, when the node runs.

Every widget can be a wire. ComfyUI checks a widget's constant, but of a wire only the type, and hands its value over
as it is: None, a NumPy number, anything.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from ..musicgen.codes import Codes
from ..musicgen.config import check_text
from ..musicgen.errors import InputError
from .host import Managed
from .reports import with_report
from .sockets import CODEC, CODES, CONDITIONER, DIFFUSION, MODEL
from .widgets import Widget

_CLASSES = {MODEL: Managed, CONDITIONER: Managed, CODEC: Managed, DIFFUSION: Managed, CODES: Codes}
# Types of a wire that fit a widget, besides the widget's own.
_RELATED = {"FLOAT": {"INT"}, "INT": {"FLOAT"}, "STRING": {"COMBO"}, "COMBO": {"STRING"}}
_SHOWN = 80  # characters of a wrong value in a message


class Node:
    """Base of the nodes: its VALIDATE_INPUTS takes the check of wires over from ComfyUI, which knows equal types only."""

    # Cores that know it send a node's report again where its result is cached; others do not visit a node that nothing needs.
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: Mapping[str, Any]) -> bool | str:
        return wiring_fault(cls, input_types) or True


def wiring_fault(node: type, received: Mapping[str, Any]) -> str | None:
    """What is wrong with the types of a node's wires, name -> type; None if each fits its input."""
    inputs = declared(node)
    for name, kind in received.items():
        if name in inputs and not _fits(kind, inputs[name][0]):
            wanted = "COMBO" if isinstance(inputs[name][0], list) else inputs[name][0]
            return f"'{name}' takes {wanted}, but the node wired to it gives {kind}. Connect another output."
    return None


def declared(node: type) -> dict[str, Widget]:
    """Inputs of a node, required and optional, in their order."""
    types = node.INPUT_TYPES()
    return {**types["required"], **types.get("optional", {})}


def checked(*open_lists: str, of_lists: bool = False) -> Callable[[Callable], Callable]:
    """Decorator of a node's function: each input is checked by its declaration and converted to its type.

    open_lists: names of lists whose entries the function looks up itself. of_lists: for a node with INPUT_IS_LIST, each
    entry of an input is checked; an optional socket of which nothing came is None. InputError names the input.
    """

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(self, *args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(self, *args, **kwargs).arguments
            required = self.INPUT_TYPES()["required"]
            for name, (kind, options) in declared(type(self)).items():
                is_optional = "default" not in options and name not in required
                if name not in arguments or (is_optional and arguments[name] in (None, [None])):
                    arguments.pop(name, None)
                    continue
                kind = "STRING" if name in open_lists else kind
                is_list = of_lists and isinstance(arguments[name], list)
                values = arguments[name] if is_list else [arguments[name]]
                converted = [_converted(name, kind, options, value) for value in values]
                arguments[name] = converted if of_lists else converted[0]
            return with_report(function, arguments)

        return run

    return decorate


def checked_text(name: str, value: Any, max_length: int | None = None) -> str:
    """`value` if it is a text that can be encoded, of at most `max_length` characters; else InputError."""
    if value is None:
        raise InputError(f"'{name}' carries no value: what is connected gave nothing.")
    if not isinstance(value, str):
        raise InputError(f"'{name}' must be a text, got {_shown(value)} ({type(value).__name__}).")
    check_text(name, value)
    if max_length is not None and len(value) > max_length:
        raise InputError(f"'{name}' has {len(value)} characters, at most {max_length} are allowed: {_shown(value)}.")
    return value


def named_file(field: str, value: Any, folders: Sequence[Path], place: str, hint: str) -> Path | None:
    """The file of a name in one of the folders; None for an empty name.

    InputError, with `place` (what the folders are called) and `hint` (what to put there), for any other name.
    """
    name = checked_text(field, value, 900).strip()
    if not name:
        return None
    for folder in folders:
        try:
            path = (folder / name).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_file():
                return path
        except (OSError, ValueError):  # too long for the system, or with a NUL
            break
    raise InputError(f"'{field}' must name a file in {place}, and there is no {_shown(name)}. {hint}")


def file_state(path: Path | None) -> str:
    """What IS_CHANGED says of a file: a replaced one is read again."""
    if path is None:
        return ""
    stat = path.stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _fits(received: Any, wanted: str | list[str]) -> bool:
    wanted = "COMBO" if isinstance(wanted, list) else wanted
    received = "COMBO" if isinstance(received, (list, tuple)) else received
    if received == "*" or not received != wanted:  # noqa: SIM202 (types that fit all others override `!=` alone)
        return True
    kinds = {kind.strip() for kind in str(received).split(",")}
    return bool(kinds & {"*", wanted, *_RELATED.get(wanted, ())})


def _converted(name: str, kind: str | list[str], options: Mapping[str, Any], value: Any) -> Any:
    """A checked value in the type that the node's function takes."""
    if kind == "AUDIO":  # `audio_in` says more about it
        return value
    if value is None:
        raise InputError(f"'{name}' carries no value: what is connected gave nothing.")
    if isinstance(kind, list):
        if checked_text(name, value) not in kind:
            raise InputError(f"'{name}' must be one of {', '.join(kind)}, got {_shown(value)}.")
        return value
    if kind in ("INT", "FLOAT"):
        return _number(name, kind, options, value)
    if kind == "STRING":
        return checked_text(name, value)
    if kind == "BOOLEAN":
        if not isinstance(value, (bool, np.bool_)):
            raise InputError(f"'{name}' must be true or false, got {_shown(value)} ({type(value).__name__}).")
        return bool(value)
    if not isinstance(value, _CLASSES.get(kind, object)):
        raise InputError(f"'{name}' must be {kind}, got {type(value).__name__}. Connect a node that outputs {kind}.")
    return value


def _number(name: str, kind: str, options: Mapping[str, Any], value: Any) -> int | float:
    low, high = options["min"], options["max"]
    valid = isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high  # NaN is in no range
    if valid and kind == "INT":
        valid = isinstance(value, Integral) or float(value).is_integer()
    if not valid:
        noun = "a whole number" if kind == "INT" else "a number"
        raise InputError(f"'{name}' must be {noun} from {low} to {high}, got {_shown(value)} ({type(value).__name__}).")
    number: Any = value  # narrowed to Real above, which int() does not take
    return int(number) if kind == "INT" else float(number)


def _shown(value: Any) -> str:
    """ASCII form of a value for a message, shortened."""
    try:
        text = ascii(value)
    except Exception:  # of a class that is not ours
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
