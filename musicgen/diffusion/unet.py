"""The U-Net of one band, in torch's own layers. Source: audiocraft `DiffusionUnet`, whose names its weights have."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import N_STEPS, UnetConfig

Moments = tuple[Tensor, Tensor]  # mean and variance [B, groups]


@dataclass(frozen=True)
class Watch:
    """What happens while a U-Net runs."""

    tick: Callable[[], None] = lambda: None  # called between layers; what it raises ends the run
    # What each norm is to take for mean and variance, given those of what it sees; None: these themselves.
    moments: Callable[[Tensor, Tensor], Moments] | None = None
    margin: float = 0.0  # share of the time axis at either end that is not counted in what a norm sees

    def counted(self, x: Tensor, dim: int) -> Tensor:
        """x without its margins in time, the dimension `dim`."""
        cut = math.ceil(x.shape[dim] * self.margin)
        return x.narrow(dim, cut, x.shape[dim] - 2 * cut) if 0 < 2 * cut < x.shape[dim] else x


UNWATCHED = Watch()


class Norm(nn.GroupNorm):
    """Group norm, over all of the time axis, and ReLU."""

    def forward(self, x: Tensor, watch: Watch) -> Tensor:
        if watch.moments is None:
            return F.relu(super().forward(x), inplace=True)
        groups = watch.counted(x, 2).unflatten(1, (self.num_groups, -1)).float()
        variance, mean = torch.var_mean(groups, dim=(2, 3), correction=0)
        factor, offset = self.affine_of(*watch.moments(mean, variance))
        return F.relu(x * factor[..., None].to(x) + offset[..., None].to(x), inplace=True)

    def affine_of(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [B, groups] -> factor and offset [B, C] of the norm."""
        spread = (variance.clamp(min=0) + self.eps).rsqrt()
        factor = spread[..., None] * self.weight.unflatten(0, (self.num_groups, -1))
        return factor.flatten(1), self.bias - (mean[..., None] * factor).flatten(1)


_N_LAYERS, _N_HEADS, _FFN_DIM, _MAX_PERIOD = 6, 8, 2048, 10_000  # of the transformer: audiocraft sets no others


class ResBlock(nn.Module):
    """Two dilated convolutions, each after norm and ReLU, beside the identity."""

    def __init__(self, channels: int, dilation: int, n_groups: int):
        super().__init__()
        self.norm1 = Norm(n_groups, channels)
        self.conv1 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.norm2 = Norm(n_groups, channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, watch: Watch) -> Tensor:
        h = self.conv1(self.norm1(x, watch))
        watch.tick()
        h = self.conv2(self.norm2(h, watch))
        watch.tick()
        return h.add_(x)


class Encoder(nn.Module):
    """One level down: [B, C, T] -> [B, C', ceil(T / stride)]."""

    def __init__(self, n_in: int, n_out: int, config: UnetConfig):
        super().__init__()
        padding = (config.kernel - config.stride) // 2
        self.conv = nn.Conv1d(n_in, n_out, config.kernel, config.stride, padding, bias=False)
        self.norm = Norm(config.norm_groups, n_out)
        self.res_blocks = _res_blocks(n_out, config)

    def forward(self, x: Tensor, watch: Watch) -> Tensor:
        stride = self.conv.stride[0]
        x = self.norm(self.conv(F.pad(x, (0, -x.shape[-1] % stride))), watch)
        watch.tick()
        for block in self.res_blocks:
            x = block(x, watch)
        return x


class Decoder(nn.Module):
    """One level up: [B, C', T] -> [B, C, T * stride]."""

    def __init__(self, n_in: int, n_out: int, config: UnetConfig):
        super().__init__()
        padding = (config.kernel - config.stride) // 2
        self.res_blocks = _res_blocks(n_in, config)
        self.norm = Norm(config.norm_groups, n_in)
        self.convtr = nn.ConvTranspose1d(n_in, n_out, config.kernel, config.stride, padding, bias=False)

    def forward(self, x: Tensor, watch: Watch) -> Tensor:
        for block in self.res_blocks:
            x = block(x, watch)
        x = self.convtr(self.norm(x, watch))
        watch.tick()
        return x


def _res_blocks(channels: int, config: UnetConfig) -> nn.ModuleList:
    return nn.ModuleList(ResBlock(channels, 2**index, config.norm_groups) for index in range(config.res_blocks))


class BiLSTM(nn.Module):
    """Two layers, both directions: [B, C, T] -> [B, C, T]."""

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
    """[B, T, C] attends to [B, T', C], without mask."""

    def __init__(self, channels: int):
        super().__init__()
        self.mha = _Projections(channels)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        weights = self.mha.in_proj_weight.chunk(3)
        q, k, v = (
            F.linear(given, weight).unflatten(-1, (_N_HEADS, -1)).transpose(1, 2)
            for given, weight in zip((x, source, source), weights)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.mha.out_proj(mixed.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Post-norm. The query of the cross-attention is the layer's input, not what the self-attention made of it."""

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
    """[B, T, C] -> [B, T, C], each position seeing all."""

    def __init__(self, channels: int, cross_attention: bool):
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(channels, cross_attention) for _ in range(_N_LAYERS))

    def forward(self, x: Tensor, source: Tensor | None, watch: Watch) -> Tensor:
        x = x + positions(x)
        if source is not None:
            source = source + positions(source)
        for layer in self.layers:
            x = layer(x, source)
            watch.tick()
        return x


def positions(x: Tensor) -> Tensor:
    """Sinusoidal positions [1, T, C] for x [B, T, C], cosines first."""
    half = x.shape[-1] // 2
    index = torch.arange(half, device=x.device, dtype=x.dtype)
    period = torch.full([], _MAX_PERIOD, device=x.device, dtype=x.dtype) ** (index / (half - 1))
    phase = torch.arange(x.shape[1], device=x.device).to(x.dtype)[:, None] / period
    return torch.cat([phase.cos(), phase.sin()], dim=-1)[None]


class Unet(nn.Module):
    """Estimates the noise in a signal, given the codec's latents."""

    def __init__(self, config: UnetConfig):
        super().__init__()
        self.config = config
        widths = config.widths
        sizes = list(zip((1, *widths), widths))
        self.encoders = nn.ModuleList(Encoder(n_in, n_out, config) for n_in, n_out in sizes)
        self.decoders = nn.ModuleList(Decoder(n_out, n_in, config) for n_in, n_out in reversed(sizes))
        self.embedding = nn.Embedding(N_STEPS, widths[0])
        if config.emb_all_layers:
            self.embeddings = nn.ModuleList(nn.Embedding(N_STEPS, width) for width in widths[1:])
        if config.transformer:
            self.transformer = Transformer(widths[-1], config.cross_attention)
        elif config.bilstm:
            self.bilstm = BiLSTM(widths[-1])
        self.conv_codec = nn.Conv1d(config.codec_dim, widths[-1], 1)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def condition(self, latents: Tensor) -> Tensor:
        """What all steps share: the codec's latents [B, D, T] in the bottleneck's width, [B, C, T]."""
        return self.conv_codec(latents)

    def forward(self, x: Tensor, step: int, condition: Tensor, watch: Watch = UNWATCHED) -> Tensor:
        """x [B, 1, L], condition [B, C, N] -> the noise [B, 1, L].

        N is the bottleneck's length ceil(L / hop), or with cross-attention any.
        """
        length, skips = x.shape[-1], []
        for level, encoder in enumerate(self.encoders):
            x = encoder(x, watch)
            shift = self.step_shift(level, step)
            if shift is not None:
                x += shift[:, None]
            skips.append(x)
        x = self.bottleneck(x, condition, watch)
        for decoder in self.decoders:
            skip = skips.pop()
            # audiocraft zeroes what reaches the first decoder beside its skip unless something is in the bottleneck.
            x = skip if x is None else x[..., : skip.shape[-1]] + skip
            x = decoder(x, watch)
        return x[..., :length]

    def step_shift(self, level: int, step: int) -> Tensor | None:
        """What tells a level which step it is: [C], or None."""
        if level == 0:
            return self.embedding.weight[step]
        return self.embeddings[level - 1].weight[step] if self.config.emb_all_layers else None

    def bottleneck(self, x: Tensor, condition: Tensor, watch: Watch) -> Tensor | None:
        """The deepest level's [B, C, N] -> what is added to it; None is nothing.

        Unless it is attended to, the condition is added in place: audiocraft has it in the skip connection, too.
        """
        cross = self.config.transformer and self.config.cross_attention
        if not cross:
            x += condition
        if self.config.transformer:
            source = condition.transpose(1, 2) if cross else None
            return self.transformer(x.transpose(1, 2), source, watch).transpose(1, 2)
        return self.bilstm(x) if self.config.bilstm else None
