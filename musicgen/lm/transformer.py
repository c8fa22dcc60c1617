"""One pre-norm decoder layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import LMConfig
from .cache import Columns, KVCache, TextCache
from .linear import Linear


class Block(nn.Module):
    """Self-attention, cross-attention where the model has it, feed-forward; each added to the residual stream.

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

    def forward(
        self, x: Tensor, columns: Columns | None = None, cache: KVCache | None = None, text: TextCache | None = None
    ) -> Tensor:
        """x [R, S, D] float32 -> [R, S, D] float32.

        cache: keys and values of earlier columns, updated at `columns`; None = x holds every column, as in training.
        columns: None = causal attention. text: what cross-attention attends to; None = nothing.
        """
        x = x + self._attend_self(self.norm_self(x), columns, cache)
        if text is not None:
            x = x + self._attend_text(self.norm_cross(x), text)
        return x + self.down(F.gelu(self.up(self.norm_ffn(x))))

    def text_cache(self, text: Tensor, mask: Tensor | None) -> TextCache:
        """Keys and values of text [R, N, D], computed once a run. mask: [R, 1, 1, N] boolean, True = may be attended to."""
        keys, values = self._heads(self.cross_kv(text), 2)
        return TextCache(keys.contiguous(), values.contiguous(), mask)

    def _attend_self(self, x: Tensor, columns: Columns | None, cache: KVCache | None) -> Tensor:
        queries, keys, values = self._heads(self.qkv(x), 3)
        mask = None if columns is None else columns.mask
        is_causal = mask is None and x.shape[1] > 1
        if cache is not None and columns is not None:
            keys, values = cache.update(columns, keys, values)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=is_causal)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _attend_text(self, x: Tensor, text: TextCache) -> Tensor:
        (queries,) = self._heads(self.cross_q(x), 1)
        attended = F.scaled_dot_product_attention(queries, text.keys, text.values, attn_mask=text.mask)
        return self.cross_out(attended.transpose(1, 2).flatten(2))

    def _heads(self, projected: Tensor, n_parts: int) -> Tensor:
        """[R, S, n * D] -> n tensors [R, H, S, D / H]."""
        return projected.unflatten(-1, (n_parts, self.n_heads, -1)).permute(2, 0, 3, 1, 4)


def sin_positions(n_positions: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoidal positions [n, D], cosines first. Source: audiocraft `create_sin_embedding`.

    The divisor of the exponent is D/2 - 1, not D/2.
    """
    half = dim // 2
    position = torch.arange(n_positions, device=device, dtype=torch.float32)[:, None]
    exponent = torch.arange(half, device=device, dtype=torch.float32) / (half - 1)
    phase = position / (10000.0**exponent)
    return torch.cat([phase.cos(), phase.sin()], dim=-1)
