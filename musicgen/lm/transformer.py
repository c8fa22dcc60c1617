"""One pre-norm decoder layer."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import LMConfig
from .cache import Columns, LayerCache
from .linear import Linear
from .tables import from_rows, to_rows, width

_BLOCKS = 4  # of a folded text


class Block(nn.Module):
    """Self-attention, cross-attention where the model has it, feed-forward; each added to the stream.

    The residual stream and the norms stay in float32 whatever the weights' precision, as in the reference
    under autocast. Source: audiocraft `StreamingTransformerLayer`.
    """

    def __init__(self, config: LMConfig):
        super().__init__()
        dim = config.dim
        self.n_heads = config.n_heads
        self.norm_self = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim)
        self.out = Linear(dim, dim)
        self.has_cross = config.cross_attention
        if self.has_cross:
            self.norm_cross = nn.LayerNorm(dim)
            self.cross_q = Linear(dim, dim)
            self.cross_kv = Linear(dim, 2 * dim)
            self.cross_out = Linear(dim, dim)
        self.norm_ffn = nn.LayerNorm(dim)
        self.up = Linear(dim, config.ffn_dim)
        self.down = Linear(config.ffn_dim, dim)

    def forward(self, x: Tensor, cache: LayerCache, columns: Columns, cross_mask: Tensor | None) -> Tensor:
        """x [R, S, D] float32 at `columns` of the cache -> [R, S, D]."""
        x = x + self._attend_self(_normed(x, self.norm_self, self.qkv), cache, columns)
        if self.has_cross:
            if cache.n_folded:
                x[: cache.n_folded] += self._attend_folded(self.norm_cross(x[: cache.n_folded]), cache)
            else:
                x = x + self._attend_cross(_normed(x, self.norm_cross, self.cross_q), cache, cross_mask)
        hidden = F.gelu(self.up(_normed(x, self.norm_ffn, self.up)))
        return x + self.down(hidden)

    def parts(self, folded: bool) -> tuple[list[nn.LayerNorm], list[nn.Module]]:
        """The norms and the matrices of a step, in the order of `cpu_step.Weights`.

        folded: its text is folded into the weights of cross-attention, which are not needed then.
        """
        norms, linears = [self.norm_self, self.norm_ffn], [self.qkv, self.out, self.up, self.down]
        if self.has_cross:
            norms, linears = [*norms, self.norm_cross], [*linears, *(() if folded else (self.cross_q, self.cross_out))]
        return norms, linears

    def cross_cache(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the conditioning: [R, N, D] -> twice [R, H, N, D / H]."""
        n_rows, length, _ = source.shape
        kv = self.cross_kv(source.to(self.cross_kv.input_dtype))
        keys, values = kv.view(n_rows, length, 2, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        return keys.contiguous(), values.contiguous()

    def folded_cross(self, source: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """One text [N, D] folded into the weights that its attention is between: two tables, of blocks of a matrix's columns.

        The normed x times the first [D, H * N] is the scores of all heads, (x Wq) K^T = x (Wq K^T); the weights that they
        make times the second [H * N, D] what is added to x, (w V) Wo = w (V Wo). For a short text that is less to read
        than Wq and Wo. Blocks, [B, D, H * N / B] and [B, H * N, D / B], are for as many cores.
        """
        keys, values = (each[0] for each in self.cross_cache(source[None]))  # [H, N, D / H]
        queries_to = self.cross_q.plain().view(self.n_heads, keys.shape[-1], -1)  # [H, D / H, D]
        out_of = self.cross_out.plain().view(-1, self.n_heads, keys.shape[-1]).permute(1, 2, 0)
        scores = torch.bmm(keys.float() * keys.shape[-1] ** -0.5, queries_to).flatten(0, 1)
        made = scores.t(), torch.bmm(values.float(), out_of).flatten(0, 1)
        n_blocks = math.gcd(self.n_heads, _BLOCKS)
        return tuple(to_rows(each.unflatten(1, (n_blocks, -1)).transpose(0, 1).contiguous(), dtype) for each in made)

    def _attend_self(self, x: Tensor, cache: LayerCache, columns: Columns) -> Tensor:
        n_rows, length, dim = x.shape
        queries, keys, values = self.qkv(x).view(n_rows, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        cache.write(columns, keys, values)
        attended = F.scaled_dot_product_attention(
            queries,
            *cache.read(columns.end),
            attn_mask=columns.mask,
            is_causal=columns.mask is None and length > 1,
        )
        return self.out(attended.transpose(1, 2).reshape(n_rows, length, dim))

    def _attend_cross(self, x: Tensor, cache: LayerCache, cross_mask: Tensor | None) -> Tensor:
        n_rows, length, dim = x.shape
        queries = self.cross_q(x).view(n_rows, length, self.n_heads, -1).transpose(1, 2)
        attended = F.scaled_dot_product_attention(queries, cache.cross_keys, cache.cross_values, attn_mask=cross_mask)
        return self.cross_out(attended.transpose(1, 2).reshape(n_rows, length, dim))

    def _attend_folded(self, x: Tensor, cache: LayerCache) -> Tensor:
        to_scores, to_x = (
            from_rows(each).transpose(0, 1).flatten(1) for each in (cache.cross_keys, cache.cross_values)
        )
        return (x @ to_scores).unflatten(-1, (self.n_heads, -1)).softmax(dim=-1).flatten(-2) @ to_x


def folded_bytes(config: LMConfig, n_text: int, dtype: torch.dtype) -> int:
    """Memory of what `Block.folded_cross` makes of so many tokens."""
    n_blocks, n_scores = math.gcd(config.n_heads, _BLOCKS), config.n_heads * n_text
    to_scores = config.dim * n_blocks * width(n_scores // n_blocks, dtype)
    return (to_scores + n_scores * n_blocks * width(config.dim // n_blocks, dtype)) * dtype.itemsize


def _normed(x: Tensor, norm: nn.LayerNorm, linear: nn.Module) -> Tensor:
    return norm(x).to(linear.input_dtype)


def sin_positions(n_positions: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoidal positions [n, D], cosines first. Source: audiocraft `create_sin_embedding`.

    The divisor of the exponent is D/2 - 1, not D/2.
    """
    half = dim // 2
    position = torch.arange(n_positions, device=device, dtype=torch.float32)[:, None]
    exponent = torch.arange(half, device=device, dtype=torch.float32) / (half - 1)
    phase = position / (10000.0**exponent)
    return torch.cat([phase.cos(), phase.sin()], dim=-1)
