"""The whole step on buffers that never move, so that it can be captured once and replayed without Python.

A `StaticRun` holds the buffers of one shape of run: caches, codes, noise, and on the device also where it is. Its step
reads the last column of codes and writes the next one: embedding, layers, heads, guidance, filter, draw. Nothing in it
waits for the device or depends on a number that only Python knows. Attention reads the used part of the cache only, in
buckets: one captured step a bucket. `StaticRuns` keeps runs for the next music of the same shape, and lets them go once
the weights are somewhere else.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .cache import Columns, LayerCache
from .delay import UNKNOWN
from .fused import Fused, checked, suits, wanted
from .model import LM, State
from .sampling import Sampling, draw, guide
from .transformer import sin_positions

CHUNK = 25  # steps between looks at progress and Cancel, and of noise on the device at a time
COLUMNS_OF = 256  # caches and buckets are whole multiples
CROSS_OF = 16
MAX_RUNS = 2  # kept, the last used

Replay = Callable[[], None]
Capture = Callable[[Replay], Replay]  # runs a step, and gives back what repeats it
MakeCapture = Callable[[torch.device], Capture]


def rounded_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


@dataclass(frozen=True)
class Shape:
    """What a captured step is bound to."""

    n_clips: int
    guided: bool  # rows are [conditional; null]
    n_columns: int  # room in the caches
    n_cross: int  # room for text; 0 for models without cross-attention
    greedy: bool
    nucleus: bool
    top_k: int  # 0 with top-p

    @property
    def n_rows(self) -> int:
        return self.n_clips * (2 if self.guided else 1)

    @classmethod
    def of(cls, n_clips: int, guided: bool, n_columns: int, n_cross: int, sampling: Sampling) -> "Shape":
        nucleus = not sampling.greedy and sampling.top_p > 0
        return cls(
            n_clips,
            guided,
            rounded_up(n_columns, COLUMNS_OF),
            rounded_up(n_cross, CROSS_OF),
            sampling.greedy,
            nucleus,
            0 if sampling.greedy or nucleus else sampling.top_k,
        )


def buckets(n_columns: int) -> list[int]:
    """The lengths of cache that steps are captured for: doubling from 256, so that at most half is read in vain."""
    made = [COLUMNS_OF]
    while made[-1] < n_columns:
        made.append(min(2 * made[-1], n_columns))
    return made


class StaticRun:
    """Buffers of one shape, and the steps that were captured on them."""

    def __init__(self, lm: LM, shape: Shape, capture: Capture):
        self.shape, self._lm, self._capture = shape, lm, capture
        config, device, dtype = lm.config, lm.device, lm.layers[0].qkv.input_dtype
        n_rows, n_k, head = shape.n_rows, config.n_codebooks, (config.n_heads, config.head_dim)

        def cache(length: int) -> Tensor:
            return torch.zeros(n_rows, head[0], length, head[1], device=device, dtype=dtype)

        def whole(*size: int, fill: int = 0) -> Tensor:
            return torch.full(size, fill, device=device, dtype=torch.long)

        self.layers = [
            LayerCache(cache(shape.n_columns), cache(shape.n_columns), *(
                (cache(shape.n_cross), cache(shape.n_cross)) if shape.n_cross else (None, None)
            ))
            for _ in lm.layers
        ]  # fmt: skip
        self.cross_mask = torch.zeros(n_rows, 1, 1, shape.n_cross, device=device, dtype=dtype)  # added to scores
        self.padding = whole(n_rows)
        self.positions = sin_positions(shape.n_columns, config.dim, device)
        self._arange = torch.arange(shape.n_columns, device=device)
        self.sequence = whole(shape.n_clips, n_k, shape.n_columns + 1, fill=config.cardinality)
        self.noise = torch.ones(CHUNK, shape.n_clips, n_k, config.cardinality, device=device)
        self.cfg, self.temperature, self._top_p = (torch.ones((), device=device) for _ in range(3))
        self._counters = whole(3)
        # Of the device's own knowing: columns in the cache, the one of `sequence` to be written, the noise to be used.
        self.place, self.column, self.slot = self._counters.split(1)
        self.length = 0  # as `place` is on the device
        self._captured: dict[int, Replay] = {}
        self._fused = Fused(lm, self) if wanted() and suits(lm, n_rows) else None
        self._is_checked = self._fused is None

    def begin(self, state: State, sequence: Tensor, column: int, sampling: Sampling, cfg: float) -> None:
        """Go on from `state`, which has taken in all columns before `column` - 1 of `sequence` [B, K, S].

        The column before `column` is written and not yet taken in. Captures what this run will need and has not.
        """
        last = self._bucket(state.length + sequence.shape[-1] - column)
        if not self._is_checked:
            self._load(state, sequence, column, sampling, cfg)
            self._fused = checked(self._fused, self._torch_logits, self._bucket(state.length + 1))
            self._is_checked = True
        for bucket in buckets(last):
            if bucket not in self._captured:
                self._rewind(0, 1)
                self._captured[bucket] = self._capture(lambda bucket=bucket: self._step(bucket))
        self._load(state, sequence, column, sampling, cfg)

    def fill_noise(self, noise: Tensor) -> None:
        """The noise [n, B, K, cardinality] of the next n steps, n up to CHUNK; from pinned memory without waiting."""
        self.noise[: len(noise)].copy_(noise, non_blocking=True)
        self.slot.zero_()

    def step(self) -> None:
        """Write the next column of `sequence`."""
        self.length += 1
        self._captured[self._bucket(self.length)]()

    def _load(self, state: State, sequence: Tensor, column: int, sampling: Sampling, cfg: float) -> None:
        self.sequence[..., : sequence.shape[-1]] = sequence
        for mine, given in zip(self.layers, state.layers, strict=True):
            mine.keys[:, :, : state.length] = given.keys[:, :, : state.length]
            mine.values[:, :, : state.length] = given.values[:, :, : state.length]
            if given.cross_keys is not None:
                n = given.cross_keys.shape[2]
                for to, source in ((mine.cross_keys, given.cross_keys), (mine.cross_values, given.cross_values)):
                    to.zero_()[:, :, :n] = source
        if self.shape.n_cross:
            n = state.layers[0].cross_keys.shape[2]
            self.cross_mask.fill_(-torch.inf)[..., :n] = 0
            if state.cross_mask is not None:
                self.cross_mask[..., :n].masked_fill_(~state.cross_mask, -torch.inf)
        self.padding.copy_(state.padding) if state.padding is not None else self.padding.zero_()
        self.cfg.fill_(cfg)
        self.temperature.fill_(1.0 if sampling.greedy else sampling.temperature)
        self._top_p.fill_(sampling.top_p)
        self._rewind(state.length, column)

    def _bucket(self, length: int) -> int:
        return next(bucket for bucket in buckets(self.shape.n_columns) if bucket >= length)

    def _rewind(self, length: int, column: int) -> None:
        self.length = length
        self.place.fill_(length)
        self.column.fill_(column)
        self.slot.zero_()

    def _step(self, bucket: int) -> None:
        logits = self._torch_logits(bucket) if self._fused is None else self._fused.logits(bucket)
        if self._fused is None or self.shape.nucleus:
            self._draw(logits)
        else:
            self._fused.draw(logits)
        self._counters.add_(1)

    def _torch_logits(self, bucket: int) -> Tensor:
        """Takes in the column before `column`: logits [R, K, cardinality] of the next."""
        shape, lm = self.shape, self._lm
        codes = self.sequence.index_select(2, self.column - 1)
        x = lm.embed(torch.cat([codes, codes]) if shape.guided else codes)
        place = (self.place - self.padding).clamp(min=0)
        x = x + self.positions.index_select(0, place)[:, None]
        columns = self._arange[:bucket]
        hidden = (columns > self.place) | (columns < self.padding[:, None])
        mask = torch.zeros(hidden.shape, device=hidden.device, dtype=self.cross_mask.dtype)
        mask = mask.masked_fill_(hidden, -torch.inf)[:, None, None]
        cross_mask = self.cross_mask if shape.n_cross else None
        x = lm.run_layers(x, self.layers, Columns(self.place, bucket, mask), cross_mask)
        return lm.logits(x)[:, :, 0]

    def _draw(self, logits: Tensor) -> None:
        """A code of each codebook into `sequence`."""
        shape = self.shape
        if shape.guided:
            logits = guide(logits, self.cfg)
        sampling = Sampling(shape.top_k, 1.0 if shape.nucleus else 0.0, 0.0 if shape.greedy else 1.0)
        noise = None if shape.greedy else self.noise.index_select(0, self.slot)[0]
        chosen = draw(logits, sampling, noise, self.temperature, self._top_p)[..., None]
        known = self.sequence.index_select(2, self.column)
        self.sequence.index_copy_(2, self.column, torch.where(known == UNKNOWN, chosen, known))


class StaticRuns:
    """The runs of one language model, by shape."""

    def __init__(self, make_capture: MakeCapture):
        self._make_capture = make_capture
        self._runs: OrderedDict[Shape, StaticRun] = OrderedDict()
        self._addresses: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, lm: LM, shape: Shape) -> StaticRun:
        """The run of this shape: a kept one if all weights are where they were when it was captured."""
        self.check(lm)
        if shape not in self._runs:
            while len(self._runs) >= MAX_RUNS:
                self._runs.popitem(last=False)
            self._runs[shape] = StaticRun(lm, shape, self._make_capture(lm.device))
        self._runs.move_to_end(shape)
        return self._runs[shape]

    def check(self, lm: LM) -> None:
        """Drop all runs if any weight is not where it was."""
        addresses = tuple(tensor.data_ptr() for tensor in (*lm.parameters(), *lm.buffers()))
        if addresses != self._addresses:
            self.drop()
            self._addresses = addresses

    def drop(self) -> None:
        """Let all buffers and captured steps go."""
        self._runs.clear()
        self._addresses = ()
