"""The plain step on buffers that never move, captured in CUDA graphs: one launch in place of a thousand.

Attention reads the used part of the cache only, in buckets: one graph a bucket. Nothing in a captured step waits for the
device or depends on a number that only Python knows.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..lm import LM, PlainStepper, Stream
from ..lm.cache import Columns, KVCache, TextCache
from ..lm.transformer import sin_positions

log = logging.getLogger(__name__)

ROOM_OF = 256  # caches and buckets are multiples
TEXT_OF = 16  # tokens of text are padded to a multiple
STEPS_AHEAD = 2  # steps that Python may be ahead of the device: bounds the time to a Cancel
_WARM_UPS = 2  # what cuBLAS and the allocator set up on first use cannot be captured

Step = Callable[[], None]
Capture = Callable[[Step], Step]  # runs a step some times, and gives back what repeats it


def buckets(room: int) -> list[int]:
    """The lengths of cache that steps are captured for: doubling from ROOM_OF, so that at most half is read in vain."""
    lengths = [ROOM_OF]
    while lengths[-1] < room:
        lengths.append(min(2 * lengths[-1], room))
    return lengths


class CudaGraphStepper(PlainStepper):
    """Prompts by the plain layers, single columns by captured steps on the same caches.

    Runs of one shape, such as the windows of a long piece, share buffers and captured steps.
    """

    def __init__(self, lm: LM, capture: Callable[[torch.device], Capture] | None = None) -> None:
        """capture: makes the capture of a run; by itself CUDA graphs."""
        super().__init__(lm)
        self._new_capture = capture or CudaGraphs
        self._drop()

    def start(self, streams: Sequence[Stream], n_columns: int, on_pass: Callable[[], None] | None = None) -> None:
        super().start(streams, n_columns, on_pass)
        texts = [self._with_room(text) for text in self._texts]
        shape = (*self._caches[0].keys.shape, texts[0].keys.shape[2] if texts[0] else 0)
        if shape != self._shape:
            self._allocate(shape)
            self._text_buffers = texts
        for buffer, text in zip(self._text_buffers, texts, strict=True):
            if buffer is None or text is None or text is buffer:
                continue
            assert buffer.mask is not None and text.mask is not None  # `_with_room` gives every text one
            for old, new in ((buffer.keys, text.keys), (buffer.values, text.values), (buffer.mask, text.mask)):
                old.copy_(new)
        self._texts = self._text_buffers
        self._padding.copy_(self._rows.padding) if self._rows.padding is not None else self._padding.zero_()

    def take_in(self, codes: Tensor, on_pass: Callable[[], None] | None = None) -> Tensor:
        if codes.shape[-1] > 1 or self._prefix is not None:
            return super().take_in(codes, on_pass)
        self._codes.copy_(codes)
        self._position.fill_(self._length)
        self._length += 1
        bucket = next(length for length in buckets(self._shape[2]) if length >= self._length)
        if bucket not in self._steps:
            self._steps[bucket] = self._capture(lambda: self._step(bucket))
        self._steps[bucket]()
        self._wait()
        return self._logits

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._drop()

    def _drop(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._steps: dict[int, Step] = {}
        self._logits = torch.empty(0)
        self._capture: Capture = lambda step: step  # `_allocate` has the run's
        self._text_buffers: list[TextCache | None] = []
        self._cache_buffers: list[KVCache] = []
        self._events: list[torch.cuda.Event] = []

    def _new_caches(self, shape: tuple[int, int, int, int], on_pass: Callable[[], None] | None) -> list[KVCache]:
        n_rows, n_heads, n_columns, head_dim = shape
        shape = (n_rows, n_heads, -(-n_columns // ROOM_OF) * ROOM_OF, head_dim)
        if shape != self._shape[:4]:
            self._drop()
            self._cache_buffers = super()._new_caches(shape, on_pass)
        return self._cache_buffers

    def _allocate(self, shape: tuple[int, ...]) -> None:
        """Buffers of this shape of run, and no captured steps yet."""
        config, device, n_rows, room = self._lm.config, self._lm.device, shape[0], shape[2]
        self._codes = torch.zeros(n_rows, config.n_codebooks, 1, dtype=torch.long, device=device)
        self._position = torch.zeros(1, dtype=torch.long, device=device)
        self._padding = torch.zeros(n_rows, dtype=torch.long, device=device)
        self._columns = torch.arange(room, device=device)
        self._table = sin_positions(room, config.dim, device)
        self._logits = torch.zeros(n_rows, config.n_codebooks, config.cardinality, device=device)
        self._shape, self._steps, self._capture, self._events = shape, {}, self._new_capture(device), []

    def _with_room(self, text: TextCache | None) -> TextCache | None:
        """The text padded to a multiple of TEXT_OF tokens, hidden by a mask that is added to scores."""
        if text is None:
            return None
        n_rows, _, n_tokens, _ = text.keys.shape
        n_padding = -n_tokens % TEXT_OF
        hidden = torch.zeros(n_rows, 1, 1, n_tokens + n_padding, dtype=torch.bool, device=text.keys.device)
        hidden[..., n_tokens:] = True
        if text.mask is not None:
            hidden[..., :n_tokens] = ~text.mask
        mask = torch.zeros(hidden.shape, dtype=text.keys.dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
        keys, values = (F.pad(each, (0, 0, 0, n_padding)) for each in (text.keys, text.values))
        return TextCache(keys, values, mask)

    def _step(self, bucket: int) -> None:
        """Logits of the column in `_codes`, written to `_logits`."""
        lm = self._lm
        positions = (self._position - self._padding).clamp(min=0)  # [R]
        x = lm.embed(self._codes) + self._table.index_select(0, positions)[:, None]
        columns = self._columns[:bucket]
        hidden = (columns > self._position) | (columns < self._padding[:, None])
        dtype = self._caches[0].keys.dtype
        mask = torch.zeros(hidden.shape, device=hidden.device, dtype=dtype).masked_fill_(hidden, -torch.inf)
        at = Columns(self._position, bucket, mask[:, None, None])
        for block, cache, text in zip(lm.layers, self._caches, self._texts, strict=True):
            x = block(x, at, cache, text)
        self._logits.copy_(lm.logits(x)[:, :, 0])

    def _wait(self) -> None:
        """Let Python be no more than STEPS_AHEAD steps ahead."""
        if self._position.device.type != "cuda":
            return
        self._events.append(torch.cuda.Event())
        self._events[-1].record()
        if len(self._events) > STEPS_AHEAD:
            self._events.pop(0).synchronize()


class CudaGraphs:
    """A `Capture` for the steps of one run. They share a pool of memory, for they never run at the same time."""

    def __init__(self, device: torch.device):
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step) -> Step:
        """Run the step, capture it, and give back its replay. The step itself is given back where capture fails."""
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            try:
                # ComfyUI's other threads may use the GPU meanwhile; "global" would fail the capture, or them.
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    step()
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                log.warning("the decoding step could not be captured in a CUDA graph, and runs without: %s", error)
                torch.cuda.synchronize()
                return step
        return graph.replay
