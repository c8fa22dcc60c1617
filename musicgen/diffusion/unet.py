"""The U-Net of one band, in torch's own layers. Source: audiocraft `DiffusionUnet`, whose names its weights have."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modules import module_list
from .config import N_STEPS, UnetConfig

Moments = tuple[Tensor, Tensor]  # mean and variance [B, groups]


@dataclass(frozen=True)
class RunHooks:
    """Callbacks of one U-Net run."""

    tick: Callable[[], None] = lambda: None  # called between layers; an exception ends the run
    # Mean and variance of a norm's input -> those that the norm uses; None = unchanged.
    moments: Callable[[Tensor, Tensor], Moments] | None = None
    margin: float = 0.0  # share of the time axis left out of a norm's statistics at either end

    def counted(self, x: Tensor, dim: int) -> Tensor:
        """x without the margins of its time axis `dim`."""
        cut = math.ceil(x.shape[dim] * self.margin)
        return x.narrow(dim, cut, x.shape[dim] - 2 * cut) if 0 < 2 * cut < x.shape[dim] else x


NO_HOOKS = RunHooks()


class Norm(nn.GroupNorm):
    """Group norm over the full time axis, then ReLU."""

    def forward(self, x: Tensor, hooks: RunHooks) -> Tensor:
        if hooks.moments is None:
            return F.relu(super().forward(x), inplace=True)
        groups = hooks.counted(x, 2).unflatten(1, (self.num_groups, -1)).float()
        variance, mean = torch.var_mean(groups, dim=(2, 3), correction=0)
        factor, offset = self.affine_of(*hooks.moments(mean, variance))
        return F.relu(x * factor[..., None].to(x) + offset[..., None].to(x), inplace=True)

    def affine_of(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Factor and offset [B, C] of the norm with this mean and variance [B, groups]."""
        spread = (variance.clamp(min=0) + self.eps).rsqrt()
        factor = spread[..., None] * self.weight.unflatten(0, (self.num_groups, -1))
        return factor.flatten(1), self.bias - (mean[..., None] * factor).flatten(1)


_N_LAYERS, _N_HEADS, _FFN_DIM, _MAX_PERIOD = 6, 8, 2048, 10_000  # of the transformer, fixed in audiocraft


class ResBlock(nn.Module):
    """Two dilated convolutions, each after norm and ReLU, beside the identity."""

    def __init__(self, channels: int, dilation: int, n_groups: int):
        super().__init__()
        self.norm1 = Norm(n_groups, channels)
        self.conv1 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.norm2 = Norm(n_groups, channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, hooks: RunHooks) -> Tensor:
        h = self.conv1(self.norm1(x, hooks))
        hooks.tick()
        h = self.conv2(self.norm2(h, hooks))
        hooks.tick()
        return h.add_(x)


class Encoder(nn.Module):
    """Downsampling level: [B, C, T] -> [B, C', ceil(T / stride)]."""

    def __init__(self, n_in: int, n_out: int, config: UnetConfig):
        super().__init__()
        padding = (config.kernel - config.stride) // 2
        self.conv = nn.Conv1d(n_in, n_out, config.kernel, config.stride, padding, bias=False)
        self.norm = Norm(config.norm_groups, n_out)
        self.res_blocks = _res_blocks(n_out, config)

    def forward(self, x: Tensor, hooks: RunHooks) -> Tensor:
        stride = self.conv.stride[0]
        x = self.norm(self.conv(F.pad(x, (0, -x.shape[-1] % stride))), hooks)
        hooks.tick()
        for block in self.res_blocks:
            x = block(x, hooks)
        return x


class Decoder(nn.Module):
    """One level up: [B, C', T] -> [B, C, T * stride]."""

    def __init__(self, n_in: int, n_out: int, config: UnetConfig):
        super().__init__()
        padding = (config.kernel - config.stride) // 2
        self.res_blocks = _res_blocks(n_in, config)
        self.norm = Norm(config.norm_groups, n_in)
        self.convtr = nn.ConvTranspose1d(n_in, n_out, config.kernel, config.stride, padding, bias=False)

    def forward(self, x: Tensor, hooks: RunHooks) -> Tensor:
        for block in self.res_blocks:
            x = block(x, hooks)
        x = self.convtr(self.norm(x, hooks))
        hooks.tick()
        return x


def _res_blocks(channels: int, config: UnetConfig) -> Sequence[ResBlock]:
    return module_list(ResBlock(channels, 2**index, config.norm_groups) for index in range(config.res_blocks))


class BiLSTM(nn.Module):
    """Two-layer bidirectional LSTM: [B, C, T] -> [B, C, T]."""

    def __init__(self, channels: int):
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, num_layers=2, bidirectional=True)
        self.linear = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.lstm(x.permute(2, 0, 1))[0]).permute(1, 2, 0)


class _Projections(nn.Module):
    """The weights of torch's MultiheadAttention without biases, under its names."""

    def __init__(self, channels: int):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.out_proj = nn.Linear(channels, channels, bias=False)


class Attention(nn.Module):
    """Multi-head attention of x [B, T, C] to source [B, T', C], without a mask."""

    def __init__(self, channels: int):
        super().__init__()
        self.mha = _Projections(channels)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        weights = self.mha.in_proj_weight.chunk(3)
        q, k, v = (
            F.linear(rows, weight).unflatten(-1, (_N_HEADS, -1)).transpose(1, 2)
            for rows, weight in zip((x, source, source), weights)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.mha.out_proj(mixed.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Post-norm layer. The query of the cross-attention is the layer's input, not the self-attention's output."""

    def __init__(self, channels: int, cross_attention: bool):
        super().__init__()
        self.self_attn = Attention(channels)
        self.linear1 = nn.Linear(channels, _FFN_DIM, bias=False)
        self.linear2 = nn.Linear(_FFN_DIM, channels, bias=False)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        if cross_attention:
            self.cross_attention = Attention(channels)
            self.norm_cross = nn.LayerNorm(channels)

    def forward(self, x: Tensor, source: Tensor | None) -> Tensor:
        y = self.norm1(x + self.self_attn(x, x))
        if source is not None:
            y = self.norm_cross(y + self.cross_attention(x, source))
        return self.norm2(y + self.linear2(F.relu(self.linear1(y))))


class Transformer(nn.Module):
    """Transformer [B, T, C] -> [B, T, C], without a mask."""

    def __init__(self, channels: int, cross_attention: bool):
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(channels, cross_attention) for _ in range(_N_LAYERS))

    def forward(self, x: Tensor, source: Tensor | None, hooks: RunHooks) -> Tensor:
        x = x + positions(x)
        if source is not None:
            source = source + positions(source)
        for layer in self.layers:
            x = layer(x, source)
            hooks.tick()
        return x


def positions(x: Tensor) -> Tensor:
    """Sinusoidal positions [1, T, C] for x [B, T, C], cosines first."""
    half = x.shape[-1] // 2
    index = torch.arange(half, device=x.device, dtype=x.dtype)
    period = torch.full([], _MAX_PERIOD, device=x.device, dtype=x.dtype) ** (index / (half - 1))
    phase = torch.arange(x.shape[1], device=x.device).to(x.dtype)[:, None] / period
    return torch.cat([phase.cos(), phase.sin()], dim=-1)[None]


class Unet(nn.Module):
    """U-Net that estimates the noise in a signal, conditioned on the codec's latents."""

    def __init__(self, config: UnetConfig):
        super().__init__()
        self.config = config
        widths = config.widths
        sizes = list(zip((1, *widths), widths))
        self.encoders = module_list(Encoder(n_in, n_out, config) for n_in, n_out in sizes)
        self.decoders = module_list(Decoder(n_out, n_in, config) for n_in, n_out in reversed(sizes))
        self.embedding = nn.Embedding(N_STEPS, widths[0])
        if config.emb_all_layers:
            self.embeddings = module_list(nn.Embedding(N_STEPS, width) for width in widths[1:])
        if config.transformer:
            self.transformer = Transformer(widths[-1], config.cross_attention)
        elif config.bilstm:
            self.bilstm = BiLSTM(widths[-1])
        self.conv_codec = nn.Conv1d(config.codec_dim, widths[-1], 1)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def condition(self, latents: Tensor) -> Tensor:
        """Project the codec's latents [B, D, T] to the bottleneck's width [B, C, T]; the same for all steps."""
        return self.conv_codec(latents)

    def forward(self, x: Tensor, step: int, condition: Tensor, hooks: RunHooks = NO_HOOKS) -> Tensor:
        """Noise [B, 1, L] in x [B, 1, L], with condition [B, C, N].

        N is the bottleneck's length ceil(L / hop); with cross-attention it is free.
        """
        length, skips = x.shape[-1], []
        for level, encoder in enumerate(self.encoders):
            x = encoder(x, hooks)
            shift = self.step_shift(level, step)
            if shift is not None:
                x += shift[:, None]
            skips.append(x)
        inner = self.bottleneck(x, condition, hooks)
        x = skips.pop()
        # audiocraft feeds the first decoder its skip alone where the bottleneck has no network.
        if inner is not None:
            x = inner[..., : x.shape[-1]] + x
            del inner
        for decoder in self.decoders:
            x = decoder(x, hooks)
            if skips:
                skip = skips.pop()
                x = x[..., : skip.shape[-1]] + skip
        return x[..., :length]

    def step_shift(self, level: int, step: int) -> Tensor | None:
        """Step embedding [C] of a level; None for a level without one."""
        if level == 0:
            return self.embedding.weight[step]
        return self.embeddings[level - 1].weight[step] if self.config.emb_all_layers else None

    def bottleneck(self, x: Tensor, condition: Tensor, hooks: RunHooks) -> Tensor | None:
        """Output of the bottleneck network for the deepest level x [B, C, N]; None without a network.

        Without cross-attention, the condition is added to x in place: audiocraft has it in the skip connection, too.
        """
        cross = self.config.transformer and self.config.cross_attention
        if not cross:
            x += condition
        if self.config.transformer:
            source = condition.transpose(1, 2) if cross else None
            return self.transformer(x.transpose(1, 2), source, hooks).transpose(1, 2)
        return self.bilstm(x) if self.config.bilstm else None
