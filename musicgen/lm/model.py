"""The language model over K parallel codebooks, and the rows that it is conditioned by."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import LMConfig
from ..modules import module_list
from .cache import Columns, TextCache
from .linear import Linear
from .transformer import Block, sin_positions


@dataclass(frozen=True)
class Stream:
    """The conditioning of one row of a run. Rows never see each other's."""

    prefix: Tensor  # [P, D] put in front of the codes; P = 0 for cross-attention models
    cross: Tensor  # [N, D] attended to; N = 0 for prefix models and for the null row


class LM(nn.Module):
    """Codes [R, K, S] and a stream a row -> logits [R, K, S, cardinality]. Source: audiocraft `LMModel`."""

    def __init__(self, config: LMConfig):
        super().__init__()
        self.config = config
        self.embeddings = nn.Parameter(torch.empty(config.n_codebooks, config.cardinality + 1, config.dim))
        self.layers = module_list(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.heads = Linear(config.dim, config.n_codebooks * config.cardinality)

    @property
    def device(self) -> torch.device:
        return self.embeddings.device

    def forward(self, codes: Tensor, streams: Sequence[Stream]) -> Tensor:
        """Logits of every column in one pass, without a cache."""
        rows = Rows.of(streams, self)
        x = torch.cat([rows.prefix, self.embed(codes)], dim=1)
        n_columns = x.shape[1]
        x = x + rows.positions(n_columns)
        columns = Columns(0, n_columns, rows.mask(0, n_columns))
        for block, text in zip(self.layers, rows.texts(self), strict=True):
            x = block(x, columns, text=text)
        return self.logits(x[:, rows.prefix.shape[1] :])

    def embed(self, codes: Tensor) -> Tensor:
        """Sum of the K embeddings: [R, K, S] -> [R, S, D] float32, added in the reference's order."""
        total = F.embedding(codes[:, 0], self.embeddings[0])
        for k in range(1, self.config.n_codebooks):
            total = total + F.embedding(codes[:, k], self.embeddings[k])
        return total.float()

    def logits(self, x: Tensor) -> Tensor:
        """[R, S, D] of the last layer -> [R, K, S, cardinality] float32."""
        logits = self.heads(self.norm(x)).float()
        return logits.unflatten(-1, (self.config.n_codebooks, -1)).transpose(1, 2)

    def cache_bytes(self, n_rows: int, n_columns: int, n_text: int) -> int:
        """Memory of a run's keys and values: n_columns of the codes and their prefix, n_text tokens attended to."""
        n_text = n_text if self.config.cross_attention else 0
        itemsize = self.layers[0].qkv.compute_dtype.itemsize
        return 2 * itemsize * self.config.n_layers * n_rows * (n_columns + n_text) * self.config.dim


@dataclass(frozen=True)
class Rows:
    """The streams of R rows side by side: prefixes end together, texts start together."""

    prefix: Tensor  # [R, P, D] float32
    padding: Tensor | None  # [R] columns of left padding; None where no row has any
    text: Tensor  # [R, N, D] float32
    text_mask: Tensor | None  # [R, 1, 1, N] boolean, True = may be attended to; None = all may

    @classmethod
    def of(cls, streams: Sequence[Stream], lm: LM) -> "Rows":
        prefix, padding = _left_padded([stream.prefix for stream in streams], lm.device)
        text, text_mask = _right_padded([stream.cross for stream in streams], lm.device)
        return cls(prefix, padding, text, text_mask)

    def positions(self, n_columns: int) -> Tensor:
        """Positions of the columns from 0 on: [n, D], or [R, n, D] where rows start at different columns."""
        table = sin_positions(n_columns, self.prefix.shape[-1], self.prefix.device)
        if self.padding is None:
            return table
        columns = torch.arange(n_columns, device=table.device) - self.padding[:, None]
        return table[columns.clamp(min=0)]

    def mask(self, start: int, end: int) -> Tensor | None:
        """What columns start..end may attend to, [R or 1, 1, S, end] boolean; None where plain causality says it all."""
        if self.padding is None and (start == 0 or end - start == 1):
            return None
        keys = torch.arange(end, device=self.prefix.device)
        queries = torch.arange(start, end, device=self.prefix.device)[:, None]
        mask = (keys <= queries)[None]
        if self.padding is not None:
            # A padded column may see itself: a row that may see nothing would be NaN.
            mask = mask & ((keys >= self.padding[:, None, None]) | (keys == queries))
        return mask[:, None]

    def texts(self, lm: LM, on_layer: Callable[[], None] | None = None) -> list[TextCache | None]:
        """Each layer's keys and values of the text; None for models without cross-attention. on_layer is called before each."""
        layers = each(lm.layers, on_layer)
        return [block.text_cache(self.text, self.text_mask) if block.has_cross else None for block in layers]


def each(layers: Iterable[Block], on_layer: Callable[[], None] | None) -> Iterator[Block]:
    """The layers one by one; on_layer is called before each."""
    for layer in layers:
        if on_layer is not None:
            on_layer()
        yield layer


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
