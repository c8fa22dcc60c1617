"""The step of a `StaticRun` by Triton kernels: eight launches a layer, one more beyond 256 columns.

For a few rows of weights in 16 or 8 bits on a GPU. float32 keeps torch's own products, which give the reference's codes.
"""

import importlib.util
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linear import Int8Linear
from .model import LM

if TYPE_CHECKING:
    from .static import StaticRun

log = logging.getLogger(__name__)

MAX_ROWS = 8  # more are better off with matrix products proper
SWITCH = "MUSICGEN_FUSED"
_CHUNK, _COLUMNS, _TOKENS = 256, 64, 16  # columns a program attends to, and at a time; tokens at a time
_OUTPUTS, _TILE = (8, 16), 8192  # of a program: outputs of narrow and wide products, and products held at a time
_LEAST_COSINE = 0.999


def wanted() -> bool:
    """Off unless asked for by the environment: no GPU has run these kernels yet."""
    return os.environ.get(SWITCH, "0").lower() in ("1", "true", "yes", "on")


def suits(lm: LM, n_rows: int) -> bool:
    """Whether the kernels can take this model's steps."""
    dtype = lm.layers[0].qkv.weight.dtype
    fewer_bits = dtype in (torch.float16, torch.bfloat16, torch.int8)
    runs = lm.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return n_rows <= MAX_ROWS and fewer_bits and runs and importlib.util.find_spec("triton") is not None


def two(n: int) -> int:
    """The power of 2 from n up."""
    return 1 << (n - 1).bit_length()


class Fused:
    """The kernels, and what lies between them, for one `StaticRun`."""

    def __init__(self, lm: LM, run: "StaticRun") -> None:
        from . import kernels  # triton is heavy, and not everywhere

        self._kernels, self._lm, self._run = kernels, lm, run
        config, n_rows = lm.config, run.shape.n_rows

        def floats(*size: int) -> Tensor:
            return torch.zeros(*size, device=lm.device)

        self._x, self._attended, self._queries = (floats(n_rows, config.dim) for _ in range(3))
        self._qkv, self._hidden = floats(n_rows, 3 * config.dim), floats(n_rows, config.ffn_dim)
        self._made = floats(n_rows, config.n_codebooks, config.cardinality)
        n_heads = n_rows * config.n_heads
        n_chunks = -(-run.shape.n_columns // _CHUNK)
        self._parts, self._peaks, self._totals = (
            floats(n_heads, n_chunks, config.head_dim), floats(n_heads, n_chunks), floats(n_heads, n_chunks)
        )  # fmt: skip

    def logits(self, bucket: int) -> Tensor:
        """Of the column before `run.column`, whose place in the cache is `run.place`: [R, K, cardinality] float32."""
        run, lm, config = self._run, self._lm, self._lm.config
        table = lm.embeddings
        block = min(1024, two(config.dim))
        self._kernels.embed[(run.shape.n_rows, -(-config.dim // block))](
            run.sequence, run.column, run.place, run.padding, table, run.positions, self._x,
            run.sequence.shape[2], table.shape[1], config.dim, run.shape.n_clips, config.n_codebooks, block,
        )  # fmt: skip
        for layer, cache in zip(lm.layers, run.layers, strict=True):
            self._normed(layer.norm_self, layer.qkv, self._qkv)
            self._attend(cache, bucket)
            self._added(self._attended, layer.out)
            if layer.has_cross:
                self._normed(layer.norm_cross, layer.cross_q, self._queries)
                self._kernels.attend_text[(self._n_pairs,)](
                    self._queries, cache.cross_keys, cache.cross_values, run.cross_mask, self._attended, config.n_heads,
                    config.head_dim**-0.5, run.shape.n_cross, config.head_dim, two(config.head_dim), _TOKENS,
                )  # fmt: skip
                self._added(self._attended, layer.cross_out)
            self._normed(layer.norm_ffn, layer.up, self._hidden, gelu=True)
            self._added(self._hidden, layer.down)
        self._normed(lm.norm, lm.heads, self._made)
        return self._made

    def draw(self, logits: Tensor) -> None:
        """A code of each codebook into `run.sequence`. Not for top-p."""
        run, shape, config = self._run, self._run.shape, self._lm.config
        self._kernels.draw_code[(shape.n_clips * config.n_codebooks,)](
            logits, run.noise, run.slot, run.cfg, run.temperature, run.sequence, run.column, run.sequence.shape[2],
            shape.n_clips, config.n_codebooks, config.cardinality, two(config.cardinality), shape.guided, shape.greedy,
            shape.top_k if shape.top_k < config.cardinality else 0,
        )  # fmt: skip

    @property
    def _n_pairs(self) -> int:
        return self._run.shape.n_rows * self._lm.config.n_heads

    def _attend(self, cache, bucket: int) -> None:
        config, run = self._lm.config, self._run
        n_chunks, head_2 = -(-bucket // _CHUNK), two(config.head_dim)
        self._kernels.attend[(self._n_pairs, n_chunks)](
            self._qkv, cache.keys, cache.values, run.place, run.padding, self._attended if n_chunks == 1 else self._parts,
            self._peaks, self._totals, config.n_heads, cache.keys.shape[2], config.head_dim**-0.5,
            config.head_dim, head_2, _CHUNK, _COLUMNS, n_chunks,
        )  # fmt: skip
        if n_chunks > 1:
            self._kernels.combine[(self._n_pairs,)](
                self._parts, self._peaks, self._totals, self._attended, n_chunks, two(n_chunks), config.head_dim, head_2
            )

    def _normed(self, norm: nn.LayerNorm, linear: nn.Module, out: Tensor, gelu: bool = False) -> None:
        n_out, n_in = linear.weight.shape
        rows, n, block = self._tile(n_out, n_in)
        self._kernels.normed_product[(-(-n_out // n),)](
            self._x, norm.weight, norm.bias, linear.weight, self._scale(linear), out, n_out, norm.eps,
            self._run.shape.n_rows, rows, n_in, two(n_in), n, block, gelu, isinstance(linear, Int8Linear),
        )  # fmt: skip

    def _added(self, given: Tensor, linear: nn.Module) -> None:
        n_out, n_in = linear.weight.shape
        rows, n, block = self._tile(n_out, n_in)
        self._kernels.added_product[(-(-n_out // n),)](
            given, linear.weight, self._scale(linear), self._x, n_out,
            self._run.shape.n_rows, rows, n_in, n, block, isinstance(linear, Int8Linear),
        )  # fmt: skip

    def _scale(self, linear: nn.Module) -> Tensor:
        return linear.scale if isinstance(linear, Int8Linear) else self._x  # never read then

    def _tile(self, n_out: int, n_in: int) -> tuple[int, int, int]:
        """Rows, outputs and inputs of a program's block. The same on every device: sums in another order
        would be other codes."""
        rows = two(self._run.shape.n_rows)
        outputs = _OUTPUTS[n_out >= 2048 and rows <= 4]
        return rows, outputs, max(16, min(two(n_in), _TILE // (rows * outputs)))


def checked(fused: Fused, torchs: Callable[[int], Tensor], bucket: int) -> Fused | None:
    """The kernels, if they run here and their logits are torch's but for rounding; else None, and the log says why.

    torchs: gives torch's own logits [R, K, cardinality] of the same step. Codes are drawn too, and left for the caller to
    write over.
    """
    try:
        ours = fused.logits(bucket)
        fused.draw(ours)
        cosine = float(F.cosine_similarity(ours.flatten(1), torchs(bucket).flatten(1)).min())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler that is missing, a driver that is too old: Triton has no common error
        log.warning("the fused kernels do not run here, and torch's take their place: %s", error)
        return None
    if not cosine >= _LEAST_COSINE:  # nor if it is NaN
        log.warning("the fused kernels' logits are not torch's (cosine %.4f), and torch's take their place", cosine)
        return None
    return fused
