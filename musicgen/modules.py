"""Lists of torch modules whose kind the type checker knows: nn.ModuleList itself says nn.Module of each."""

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)


def module_list(modules: Iterable[M]) -> Sequence[M]:
    """An nn.ModuleList, read as a sequence of what it is made of."""
    return cast("Sequence[M]", nn.ModuleList(modules))
