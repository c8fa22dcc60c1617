"""The contract of a run, columns of codes in and logits out, and the plain model's way to keep it."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .cache import Columns, KVCache, TextCache
from .model import LM, Rows, Stream, each

# Columns, and rows times columns, of a prompt in one pass, at most: they bound the memory, and the time to a Cancel.
PREFILL_COLUMNS, PREFILL_CELLS = 256, 1024


class Stepper(Protocol):
    """Logits of a run's columns, one pass after the other; a context manager whose end gives everything back.

    A stepper owns what its speed needs: caches, workspaces, threads, captured graphs. It never changes the weights.
    """

    def start(self, streams: Sequence[Stream], n_columns: int, on_pass: Callable[[], None] | None = None) -> None:
        """Begin a run of len(streams) rows with room for their prefixes and `n_columns` of codes. Ends the run before it.

        on_pass is called before each layer's part of the work; what it raises ends the run.
        """

    def take_in(self, codes: Tensor, on_pass: Callable[[], None] | None = None) -> Tensor:
        """The next columns of codes [R, K, S], S >= 1 -> logits of the last one, [R, K, cardinality] float32.

        on_pass is called before each part of the work that a long prompt takes; what it raises ends the run.
        """
        ...

    def __enter__(self) -> "Stepper": ...

    def __exit__(self, *_: object) -> None: ...


class PlainStepper:
    """The model's own layers, on whatever device it is."""

    def __init__(self, lm: LM, prefill_columns: int = PREFILL_COLUMNS) -> None:
        self._lm, self._prefill_columns = lm, prefill_columns
        self._caches: list[KVCache] = []
        self._texts: list[TextCache | None] = []

    def start(self, streams: Sequence[Stream], n_columns: int, on_pass: Callable[[], None] | None = None) -> None:
        lm, config = self._lm, self._lm.config
        self._rows = Rows.of(streams, lm)
        n_columns += self._rows.prefix.shape[1]
        self._positions = self._rows.positions(n_columns)
        self._texts = self._rows.texts(lm, on_pass)
        shape = (len(streams), config.n_heads, n_columns, config.head_dim)
        self._caches = self._new_caches(shape, on_pass)
        self._prefix: Tensor | None = self._rows.prefix
        self._length = 0  # columns in the caches

    def take_in(self, codes: Tensor, on_pass: Callable[[], None] | None = None) -> Tensor:
        x = self._lm.embed(codes)
        if self._prefix is not None:
            x, self._prefix = torch.cat([self._prefix, x], dim=1), None
        for columns in x.split(max(1, min(self._prefill_columns, PREFILL_CELLS // len(x))), dim=1):
            x = self._through_layers(columns, on_pass if columns.shape[1] > 1 else None)
        return self._lm.logits(x[:, -1:])[:, :, 0]

    def _new_caches(self, shape: tuple[int, int, int, int], on_pass: Callable[[], None] | None) -> list[KVCache]:
        """Empty caches of every layer, each (R, H, L, D / H)."""
        self._caches = []  # freed before the new ones are allocated
        layers = each(self._lm.layers, on_pass)
        return [KVCache.empty(shape, block.qkv.compute_dtype, self._lm.device) for block in layers]

    def _through_layers(self, x: Tensor, on_pass: Callable[[], None] | None = None) -> Tensor:
        """The next columns [R, S, D] through all layers; on_pass is called before each."""
        start, end = self._length, self._length + x.shape[1]
        columns = Columns(start, end, self._rows.mask(start, end))
        x = x + self._positions[..., start:end, :]
        layers = each(self._lm.layers, on_pass)
        for block, cache, text in zip(layers, self._caches, self._texts, strict=True):
            x = block(x, columns, cache, text)
        self._length = end
        return x

    def __enter__(self) -> "PlainStepper":
        return self

    def __exit__(self, *_: object) -> None:
        self._caches, self._texts = [], []
