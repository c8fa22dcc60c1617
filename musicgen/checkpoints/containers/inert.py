"""What a pickle may hold once it is read: plain values, and inert objects that stand for everything else."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ...errors import CheckpointError

MAX_DEPTH = 100
MAX_ITEMS = 1_000_000  # with everything that is shared counted each time it appears


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names: only the name."""

    name: str


@dataclass(frozen=True)
class Storage:
    """One block of numbers in a torch file."""

    dtype: torch.dtype
    key: str
    n_elements: int


@dataclass(frozen=True)
class TensorRecord:
    """Where a tensor lies inside its storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False)
class Stub:
    """Stands for an object of one of OmegaConf's classes; `state` is what the pickle gave it."""

    name: str
    state: dict = field(default_factory=dict)


STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}

STUBS = {
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.StringNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.BytesNode",
    "omegaconf.nodes.InterpolationResultNode",
}

CONTAINERS: dict[str, Callable] = {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple, "dict": dict}

# Names that may stand as values, for instance as the declared type of a setting.
PLAIN = {
    "typing.Any",
    "torch.Size",
    "torch.device",
    "collections.OrderedDict",
    "collections.defaultdict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *(f"builtins.{name}" for name in (*CONTAINERS, "int", "str", "float", "bool", "bytes", "object")),
    *(f"torch.{name}" for name in ("float64", "float32", "float16", "bfloat16")),
    *(f"torch.{name}" for name in ("int64", "int32", "int16", "int8", "uint8", "bool")),
}

ALLOWED = STORAGES.keys() | STUBS | PLAIN


def content(value: object) -> object:
    """What an OmegaConf stand-in holds: dict, list, number, text or None. Other values as they are."""
    for _ in range(MAX_DEPTH):
        if not isinstance(value, Stub):
            break
        value = value.state.get("_content") if "_content" in value.state else value.state.get("_val")
    return value


def check_size(value: object, source: str) -> None:
    """CheckpointError if `value` is too deep, or too large once everything that is shared is written out."""
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


def _children(item: object) -> object:
    item = content(item)
    if isinstance(item, dict):
        return iter(item.values())
    if isinstance(item, (list, tuple, set, frozenset)):
        return iter(item)
    return None
