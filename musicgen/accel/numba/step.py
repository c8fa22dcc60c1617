"""Runs by the kernels: all layers, the last norm and the heads in one call a step."""

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...lm import LM, Rows, Stream
from ...lm.transformer import Block
from ...memory import release_freed_memory
from .compile import kernels
from .tables import Tables
from .texts import MAX_FOLDED, Texts, text_blocks
from .threads import team

# A pass of a prompt holds this many cells, columns times rows, and at least so many columns: its workspace stays in cache.
PREFILL_CELLS, _MIN_COLUMNS = 128, 4


class NumbaStepper:
    """A `Stepper` for plain weights of 8 or 16 bits on an x86 CPU. A row's result never depends on the number of rows."""

    def __init__(self, lm: LM, prefill_cells: int = PREFILL_CELLS, max_folded: float = MAX_FOLDED) -> None:
        self._lm, self._prefill_cells, self._max_folded = lm, prefill_cells, max_folded
        self._run: _Run | None = None
        self._quiet = contextlib.ExitStack()

    def start(self, streams: Sequence[Stream], n_columns: int, on_pass: Callable[[], None] | None = None) -> None:
        self._quiet.close()
        self._run = None  # freed before the new one is allocated
        lm = self._lm
        self._rows = Rows.of(streams, lm)
        n_columns += self._rows.prefix.shape[1]
        self._positions = self._rows.positions(n_columns)
        self._prefix: Tensor | None = self._rows.prefix
        self._length = 0
        dtype = torch.uint8 if lm.layers[0].qkv.weight.dtype == torch.int8 else torch.float16
        texts = Texts.of(lm, streams, dtype, self._max_folded, on_pass)
        release_freed_memory()
        self._run = _Run(lm, self._rows, Tables.of_layers(lm.config, len(streams), n_columns, dtype), texts)
        self._quiet.enter_context(team.alone())

    def take_in(self, codes: Tensor, on_pass: Callable[[], None] | None = None) -> Tensor:
        run, x = self._run, self._lm.embed(codes)
        if run is None:
            raise RuntimeError("take_in() needs a run: call start() first")
        if self._prefix is not None:
            x, self._prefix = torch.cat([self._prefix, x], dim=1), None
        n_at_once = max(self._prefill_cells // len(x), _MIN_COLUMNS)
        *passes, last = x.split(n_at_once, dim=1)
        if last.shape[1] > 1:  # logits are asked of one column
            passes, last = [*passes, last[:, :-1]], last[:, -1:]
        for columns in passes:
            if on_pass is not None:
                on_pass()
            run.step(*self._placed(columns), None)
        if passes:
            release_freed_memory()
            if on_pass is not None:
                on_pass()
        logits = torch.empty(len(x), self._lm.config.n_codebooks, self._lm.config.cardinality)
        run.step(*self._placed(last), logits.flatten(1))
        return logits

    def _placed(self, x: Tensor) -> tuple[Tensor, int]:
        """Columns [R, S, D] with their positions, and the first one's place in the cache."""
        start = self._length
        self._length += x.shape[1]
        return (x + self._positions[..., start : self._length, :]).contiguous(), start

    def __enter__(self) -> "NumbaStepper":
        return self

    def __exit__(self, *_: object) -> None:
        self._run = None
        self._quiet.close()


class _Run:
    """The addresses, sizes and workspace that the kernels take for one run."""

    def __init__(self, lm: LM, rows: Rows, tables: Sequence[Tables], texts: Texts) -> None:
        self._held: list[Tensor] = []  # keeps memory alive whose addresses the kernels have
        heads = lm.heads.weight
        attended = texts.attended or [(None, None)] * len(tables)
        self._addresses = np.stack([self._layer(*each) for each in zip(lm.layers, tables, attended, strict=True)])
        end = [self._address(tensor) for tensor in (lm.norm.weight, lm.norm.bias, heads)]
        self._end = np.array([*end, heads.dtype == torch.bfloat16], np.int64)
        self._sizes = self._sizes_of(lm, rows, tables[0], texts)
        self._n_text = max(1, max(texts.n_folded, default=0), max(texts.n_attended, default=0))
        self._n_hidden, self._n_logits = lm.config.ffn_dim, len(heads)
        self._workspace = None

    def step(self, x: Tensor, column: int, logits: Tensor | None) -> None:
        """x [R, S, D] float32 from cache position `column` on through all layers, in place; into logits [R, K * c] if asked."""
        rows = x.view(-1, x.shape[-1])
        out = np.empty((0, 0), np.float32) if logits is None else logits.numpy()
        if self._workspace is None or len(self._workspace.attended) != len(rows):
            self._workspace = None  # freed before the new one is allocated
            self._workspace = self._new_workspace(*rows.shape)
        team.run(kernels().step, rows.numpy(), column, self._addresses, self._end, self._sizes, self._workspace, out)

    def _address(self, tensor: Tensor) -> int:
        """The tensor's address; keeps the tensor alive."""
        assert tensor.is_contiguous()
        self._held.append(tensor.detach())
        return tensor.data_ptr()

    def _layer(self, block: Block, tables: Tables, text: tuple[Tensor | None, Tensor | None]) -> np.ndarray:
        """A layer's row of the table of addresses, [N_ADDRESSES] int64; 0 where it has none."""
        norms, matrices = [block.norm_self, block.norm_ffn], [block.qkv, block.out, block.up, block.down]
        if block.has_cross:
            norms, matrices = [*norms, block.norm_cross], [*matrices, block.cross_q, block.cross_out]
        row = np.zeros(kernels().N_ADDRESSES, np.int64)
        for start, tensors in (
            (kernels().NORMS, [tensor for norm in norms for tensor in (norm.weight, norm.bias)]),
            (kernels().MATRICES, [t for each in matrices for t in (each.weight, getattr(each, "scale", None))]),
            (kernels().CACHES, [tables.keys, tables.values, tables.tail, *text]),
        ):
            for at, tensor in enumerate(tensors, start):
                if tensor is not None:
                    row[at] = self._address(tensor)
        return row

    def _new_workspace(self, n_rows: int, dim: int):
        padded, n_threads, sizes = kernels().padded_rows(n_rows), team.n_threads, self._sizes
        n_sums = n_rows if sizes.is_half else kernels().SUMS * padded

        def floats(*size: int) -> np.ndarray:
            return np.zeros(size, np.float32)

        def quantized(width: int) -> np.ndarray:
            n_values = 1 if sizes.is_half else width + kernels().SPARE
            # Allocated by torch, which aligns to cache lines.
            return torch.zeros(n_threads, padded, n_values, dtype=torch.int16).numpy()

        return kernels().Workspace(
            floats(n_rows, 3 * dim),
            floats(n_rows, dim),
            floats(n_rows, self._n_hidden),
            floats(n_rows, sizes.n_heads * self._n_text),
            np.zeros(max(n_sums * max(3 * dim, self._n_hidden), n_rows * self._n_logits), np.int32),
            floats(n_threads, n_rows, dim),
            floats(n_threads, max(sizes.max_len, self._n_text, dim)),
            floats(n_threads, n_rows),
            quantized(dim),
            quantized(self._n_hidden),
        )

    def _sizes_of(self, lm: LM, rows: Rows, tables: Tables, texts: Texts):
        """`kernels.Sizes` of a run."""
        config, n_rows = lm.config, len(rows.prefix)
        folded = np.zeros((config.n_layers, n_rows, 2), np.int64)
        for layer, by_row in enumerate(texts.folded):
            for row, pair in enumerate(by_row):
                if pair is not None:
                    folded[layer, row] = [self._address(table) for table in pair]
        padding = np.zeros(n_rows, np.int64) if rows.padding is None else rows.padding.numpy().astype(np.int64)
        weight = lm.layers[0].qkv.weight
        return kernels().Sizes(
            config.n_heads, config.head_dim, tables.values.shape[2], padding, np.array(texts.n_folded, np.int64), folded,
            text_blocks(config), np.array(texts.n_attended, np.int64), max(1, *texts.n_attended),
            weight.dtype != torch.int8, weight.dtype == torch.bfloat16,
        )  # fmt: skip
