"""One pre-norm decoder layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import LMConfig
from .cache import Columns, LayerCache
from .cpu_step import step_weights
from .linear import Linear


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
            x = x + self._attend_cross(_normed(x, self.norm_cross, self.cross_q), cache, cross_mask)
        hidden = F.gelu(self.up(_normed(x, self.norm_ffn, self.up)))
        return x + self.down(hidden)

    def cpu_weights(self) -> tuple[list, list, list, list] | None:
        """What `cpu_step.layer_step` takes of this layer, or None where it cannot stand for it."""
        norms, linears = [self.norm_self, self.norm_ffn], [self.qkv, self.out, self.up, self.down]
        if self.has_cross:
            norms, linears = [*norms, self.norm_cross], [*linears, self.cross_q, self.cross_out]
        return step_weights(norms, linears)

    def cross_cache(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the conditioning: [R, N, D] -> twice [R, H, N, D / H]."""
        n_rows, length, _ = source.shape
        kv = self.cross_kv(source.to(self.cross_kv.input_dtype))
        keys, values = kv.view(n_rows, length, 2, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        return keys.contiguous(), values.contiguous()

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
