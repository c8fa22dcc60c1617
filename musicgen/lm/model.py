"""The language model over K parallel codebooks, and the state of one run of it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import LMConfig
from ..memory import release_freed_memory
from .cache import Columns, LayerCache, TableCache
from .cpu_fused import MAX_ROWS, FusedStep, kernels
from .cpu_step import TorchStep, Weights, weights_of
from .linear import Int8Linear, Linear
from .transformer import Block, folded_bytes, sin_positions

# What a CPU takes in at a time: what is between the layers of a long prompt takes memory. Columns, whose number float32's
# rounding depends on; and of a TableCache, columns times rows, by operators and by kernels.
_CPU_COLUMNS, _CPU_CELLS, _FUSED_CELLS, _LEAST_COLUMNS = 256, 256, 128, 16
_TABLES_FROM = 512  # a model's width; narrower ones have so little to remember that its layout costs more than it saves
_PACKERS = 4  # threads that pack weights: each holds a matrix in float32 meanwhile
# A text's tokens times heads, over the model's width, up to which it is folded into cross-attention: at 0.5 that takes as
# much memory as one of the two matrices it stands for. And that times the rows that attend to it, for each reads it anew.
_FOLDED_TEXT, _FOLDED_ROWS = 0.5, 2.0


@dataclass(frozen=True)
class Stream:
    """What one row of a run is conditioned on: rows never see each other's."""

    prefix: Tensor  # [P, D] put in front of the codes; P = 0 for cross-attention models
    cross: Tensor  # [N, D] attended to; N = 0 for prefix models and for the null row


@dataclass
class State:
    """One run: caches and masks of R rows, apart from the weights. Dropped when the run ends."""

    layers: Sequence[LayerCache]
    positions: Tensor  # [max_len, D], or [R, max_len, D] where rows start at different columns
    padding: Tensor | None  # [R] columns of left padding, None where no row has any
    cross_mask: Tensor | None  # [R, 1, 1, N] boolean
    prefix: Tensor | None  # [R, P, D] until the first step has taken it in
    cpu: TorchStep | FusedStep | None = None  # what makes steps on a CPU fast
    length: int = 0  # columns in the cache

    @property
    def max_len(self) -> int:
        return self.layers[0].values.shape[2]


class Captured(Protocol):
    """What `static.StaticRuns` is to the model."""

    def check(self, lm: "LM") -> None:
        """Drop what is bound to weights that are elsewhere now."""


class LM(nn.Module):
    """Codes [R, K, S] and a stream a row -> logits [R, K, cardinality]. Source: audiocraft `LMModel`."""

    def __init__(self, config: LMConfig):
        super().__init__()
        self.config = config
        self.embeddings = nn.Parameter(torch.empty(config.n_codebooks, config.cardinality + 1, config.dim))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.heads = Linear(config.dim, config.n_codebooks * config.cardinality)
        self.captured: Captured | None = None  # steps that are bound to where the weights are

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LM":
        super()._apply(fn, recurse)
        if self.captured is not None:
            self.captured.check(self)
        return self

    @property
    def device(self) -> torch.device:
        return self.embeddings.device

    def start(self, streams: Sequence[Stream], n_columns: int) -> State:
        """A fresh run of len(streams) rows with room for their prefixes and `n_columns` of codes."""
        self._fuse(len(streams))
        prefix, padding = _left_padded([s.prefix for s in streams], self.device)
        max_len = prefix.shape[1] + n_columns
        positions = sin_positions(max_len, self.config.dim, self.device)
        if padding is not None:
            columns = torch.arange(max_len, device=self.device) - padding[:, None]
            positions = positions[columns.clamp(min=0)]
        cross_mask, n_folded = None, self._n_folded(streams)
        if n_folded:
            crosses = self._folded(streams[0].cross.float().to(self.device))
        elif self.config.cross_attention:
            cross, cross_mask = _right_padded([s.cross for s in streams], self.device)
            crosses = [block.cross_cache(cross) for block in self.layers]
        else:
            crosses = [(None, None)] * len(self.layers)
        layers = self._layer_caches(len(streams), max_len, crosses, n_folded)
        cpu = self._cpu(layers, padding, cross_mask)
        return State(layers, positions, padding, cross_mask, prefix if prefix.shape[1] else None, cpu)

    def step(self, state: State, codes: Tensor, all_columns: bool = False) -> Tensor:
        """Take in codes [R, K, S] -> logits of the last column [R, K, cardinality].

        all_columns: logits of every column of `codes`, [R, K, S, cardinality].
        """
        x = self.embed(codes)
        n_codes = x.shape[1]
        if state.prefix is not None:
            x = torch.cat([state.prefix, x], dim=1)
            state.prefix = None
        assert state.length + x.shape[1] <= state.max_len, "the cache has no room for these columns"
        fused = state.cpu if isinstance(state.cpu, FusedStep) and self.heads.is_fused else None
        if fused is not None and x.shape[1] == 1:
            logits = self._by_codebook(fused.logits(self._placed(state, x), state.length))
            state.length += 1
            return logits if all_columns else logits[:, :, 0]
        at_once = self._columns_at_once(len(x)) or x.shape[1]
        made: list[Tensor] = []
        for part in x.split(at_once, dim=1):
            made = [*(made if all_columns else ()), self._take_in(state, part)]
        x = torch.cat(made, dim=1)[:, -n_codes:] if all_columns else made[-1][:, -1:]
        logits = self.logits(x) if fused is None else self._by_codebook(fused.finish(x))
        return logits if all_columns else logits[:, :, 0]

    def forward(self, codes: Tensor, streams: Sequence[Stream]) -> Tensor:
        """Logits of every column in one pass: [R, K, S] -> [R, K, S, cardinality]."""
        return self.step(self.start(streams, codes.shape[-1]), codes, all_columns=True)

    def state_bytes(self, n_rows: int, n_columns: int, n_cross: int) -> int:
        """Memory that a State takes, weights not counted."""
        config, itemsize, tables = self.config, self.layers[0].qkv.input_dtype.itemsize, self._tables_of
        cross = 2 * itemsize * n_rows * n_cross * config.dim if config.cross_attention else 0
        if self._folds(n_cross, 1):
            cross = max(cross, folded_bytes(config, n_cross, tables))
        cached = 2 * itemsize * n_columns * config.dim
        if tables is not None:
            cached = TableCache.n_bytes(config.n_heads, n_columns, config.head_dim, tables)
        return config.n_layers * (n_rows * cached + cross) + 4 * n_columns * config.dim

    def run_layers(
        self, x: Tensor, caches: Sequence[LayerCache], columns: Columns, cross_mask: Tensor | None
    ) -> Tensor:
        """All layers: [R, S, D] -> [R, S, D]."""
        for block, cache in zip(self.layers, caches, strict=True):
            x = block(x, cache, columns, cross_mask)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """[R, S, D] of the last layer -> [R, K, S, cardinality] float32."""
        return self._by_codebook(self.heads(self.norm(x).to(self.heads.input_dtype)).float())

    def _by_codebook(self, logits: Tensor) -> Tensor:
        """[R, S, K * cardinality] -> [R, K, S, cardinality]."""
        return logits.unflatten(-1, (self.config.n_codebooks, -1)).transpose(1, 2)

    def embed(self, codes: Tensor) -> Tensor:
        """Sum of the K embeddings: [R, K, S] -> [R, S, D] float32, added in the reference's order."""
        total = F.embedding(codes[:, 0], self.embeddings[0])
        for k in range(1, self.config.n_codebooks):
            total = total + F.embedding(codes[:, k], self.embeddings[k])
        return total.float()

    def _columns_at_once(self, n_rows: int) -> int | None:
        """How many a pass takes in at most; None: all."""
        if self.device.type != "cpu":
            return None
        if self._tables_of is None:
            return _CPU_COLUMNS
        cells = _FUSED_CELLS if self.layers[0].qkv.is_fused else _CPU_CELLS
        return max(cells // n_rows, _LEAST_COLUMNS)

    def _take_in(self, state: State, x: Tensor) -> Tensor:
        """The next columns [R, S, D] through all layers."""
        start, end = state.length, state.length + x.shape[1]
        x = self._placed(state, x)
        if isinstance(state.cpu, FusedStep):
            x = state.cpu(x, start)
        elif state.cpu is not None and x.shape[1] == 1:
            x = state.cpu(x[:, 0], start, self._mask(state, start, end))[:, None]
        else:
            columns = Columns(start, end, self._mask(state, start, end))
            x = self.run_layers(x, state.layers, columns, state.cross_mask)
        if self.device.type == "cpu" and x.shape[1] > 1:
            release_freed_memory()  # what was between the layers would stay in blocks too small for the next
        state.length = end
        return x

    def _placed(self, state: State, x: Tensor) -> Tensor:
        """Columns [R, S, D] with their positions."""
        return x + state.positions[..., state.length : state.length + x.shape[1], :]

    def _fuse(self, n_rows: int) -> None:
        """Have the matrices multiply so few rows by the kernels of `cpu_fused`, where those serve the whole step."""
        few = n_rows <= MAX_ROWS.get(self._tables_of, 0) and self.config.head_dim % 4 == 0
        layers = [module for module in self.layers.modules() if isinstance(module, Linear | Int8Linear)]
        fused = few and all(matrix.can_fuse for matrix in layers) and kernels() is not None
        for matrix in (*layers, self.heads):
            matrix.fuse(fused and matrix.can_fuse)

    def _cpu(
        self, layers: Sequence[LayerCache], padding: Tensor | None, cross_mask: Tensor | None
    ) -> TorchStep | FusedStep | None:
        """What takes in columns, or single ones, faster than the layers themselves; where there is such a thing."""
        if self.device.type != "cpu":
            return None
        parts = [block.parts(layers[0].n_folded > 0) for block in self.layers]
        if self.layers[0].qkv.is_fused:
            return FusedStep(parts, layers, padding, cross_mask, self.norm, self.heads)
        inside = torch.is_inference_mode_enabled()

        def packed(part: tuple[list[nn.LayerNorm], list[nn.Module]]) -> Weights | None:
            with torch.inference_mode(inside):  # each thread has its own
                return weights_of(*part)

        # The first time they are packed, which is one thread's work a matrix, outside of Python's lock.
        with ThreadPoolExecutor(min(torch.get_num_threads(), _PACKERS)) as pool:
            weights = list(pool.map(packed, parts))
        return None if None in weights else TorchStep(weights, layers, cross_mask)

    @property
    def _tables_of(self) -> torch.dtype | None:
        """What keys and values are kept in, though they are computed in float32; None: as they are computed."""
        qkv = self.layers[0].qkv
        if self.config.dim < _TABLES_FROM or not qkv.has_packed_form or self.captured is not None:
            return None
        return torch.uint8 if isinstance(qkv, Int8Linear) else torch.float16

    def _layer_caches(
        self, n_rows: int, max_len: int, crosses: Sequence[tuple[Tensor | None, Tensor | None]], n_folded: int
    ) -> Sequence[LayerCache]:
        """Empty ones."""
        config, tables = self.config, self._tables_of
        if tables is not None:
            return TableCache.of_layers(n_rows, config.n_heads, max_len, config.head_dim, tables, crosses, n_folded)
        size = (len(crosses), 2, n_rows, config.n_heads, max_len, config.head_dim)
        both = torch.empty(size, device=self.device, dtype=self.layers[0].qkv.input_dtype)
        return [LayerCache(*own, *cross) for own, cross in zip(both, crosses, strict=True)]

    def _n_folded(self, streams: Sequence[Stream]) -> int:
        """How many rows, the first ones, have the text that is to be folded into cross-attention; 0: none is.

        It pays for one text that is short and the same in all rows that have any, as a clip's with guidance is.
        """
        texts = [stream.cross for stream in streams if len(stream.cross)]
        if not self._folds(len(texts[0]) if texts else 0, len(texts)):
            return 0
        first = [len(stream.cross) > 0 for stream in streams[: len(texts)]]
        same = all(text is texts[0] or torch.equal(text, texts[0]) for text in texts)
        return len(texts) if same and all(first) else 0

    def _folded(self, text: Tensor) -> list[tuple[Tensor, Tensor]]:
        """`Block.folded_cross` of each layer, in memory of its own: between the weights that are widened for it, what stays
        would keep the next layer's from where the last one's were.
        """
        kept: list[Tensor] = []
        for i, block in enumerate(self.layers):
            made = block.folded_cross(text, self._tables_of)
            kept = kept or [torch.empty(len(self.layers), *table.shape, dtype=table.dtype) for table in made]
            for whole, table in zip(kept, made, strict=True):
                whole[i] = table
        release_freed_memory()
        return list(zip(*kept, strict=True))

    def _folds(self, n_text: int, n_rows: int) -> bool:
        size = n_text * self.config.n_heads / self.config.dim
        few = 0 < size <= _FOLDED_TEXT and size * n_rows <= _FOLDED_ROWS
        return few and self.config.cross_attention and self._tables_of is not None

    def _mask(self, state: State, start: int, end: int) -> Tensor | None:
        """[R or 1, 1, S, end] boolean, or None where plain causality from 0, or one last query, says it all."""
        if state.padding is None and (start == 0 or end - start == 1):
            return None
        keys = torch.arange(end, device=self.device)
        queries = torch.arange(start, end, device=self.device)[:, None]
        mask = (keys <= queries)[None]
        if state.padding is not None:
            # A padded column may see itself: a row that may see nothing would be NaN.
            mask = mask & ((keys >= state.padding[:, None, None]) | (keys == queries))
        return mask[:, None]


def _left_padded(rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Rows [P_r, D] -> [R, P, D] float32 ending together, and each row's padding [R] (None if all are zero)."""
    longest = max(len(row) for row in rows)
    padding = [longest - len(row) for row in rows]
    padded = torch.stack([F.pad(row.float(), (0, 0, n, 0)) for row, n in zip(rows, padding, strict=True)]).to(device)
    return padded, torch.tensor(padding, device=device) if any(padding) else None


def _right_padded(rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Rows [N_r, D] -> [R, N, D] float32 starting together, and the mask [R, 1, 1, N] (None if nothing is hidden).

    An empty row becomes zeros that may all be attended to: keys and values without bias are zero there, so
    its cross-attention adds exactly nothing, as in the reference.
    """
    longest = max(1, *(len(row) for row in rows))
    padded = torch.stack([F.pad(row.float(), (0, 0, 0, longest - len(row))) for row in rows]).to(device)
    lengths = [len(row) or longest for row in rows]
    if all(n == longest for n in lengths):
        return padded, None
    mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
    return padded, mask[:, None, None]
