"""Values that a pickle may hold: plain ones, and inert objects that stand for everything else."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from ...errors import CheckpointError

MAX_DEPTH = 100
MAX_ITEMS = 500_000  # shared items count each time they appear; a large model has 20,000


@dataclass(frozen=True)
class Name:
    """The name of a class or function, and nothing else of it."""

    name: str


@dataclass(frozen=True)
class Storage:
    """One block of numbers in a torch file."""

    dtype: torch.dtype
    key: str
    n_elements: int


@dataclass(frozen=True)
class TensorRecord:
    """Position of a tensor in its storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False)
class Stub:
    """Stand-in for an object of a library's class; `state` is what the pickle sets."""

    name: str
    state: dict = field(default_factory=dict)


def content(value: object) -> object:
    """The dict, list, number, text or None inside an OmegaConf stand-in. Other values as they are."""
    for _ in range(MAX_DEPTH):
        if not isinstance(value, Stub):
            break
        value = value.state.get("_content") if "_content" in value.state else value.state.get("_val")
    return value


def check_size(value: object, source: str) -> None:
    """CheckpointError if `value` is too deep, or too large with everything that is shared written out."""
    n_items = 0
    levels = [iter((value,))]
    while levels:
        for item in levels[-1]:
            n_items += 1
            children = _children(item)
            if children is not None:
                levels.append(children)
                break
        else:
            levels.pop()
        if len(levels) > MAX_DEPTH or n_items > MAX_ITEMS:
            limit = f"{MAX_DEPTH} levels" if len(levels) > MAX_DEPTH else f"{MAX_ITEMS} items"
            raise CheckpointError(f"{source} unfolds to more than {limit} and is refused. Nothing in it was run.")


def _children(item: object) -> Iterator | None:
    item = content(item)
    if isinstance(item, dict):
        return iter(item.values())
    if isinstance(item, (list, tuple, set, frozenset)):
        return iter(item)
    return None
