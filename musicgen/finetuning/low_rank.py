"""LoRA (Hu et al. 2021, arXiv:2106.09685) beside the frozen matrices of the language model, in PEFT's names and shapes.

A fused matrix has an adapter for each of the projections that it joins, as PEFT has for transformers' separate ones:
y = W x + c [B_q A_q x | B_k A_k x | B_v A_v x].
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..lm import LM

# Layer of a `Block` -> the modules of transformers' decoder layer that it joins, by rows.
_JOINED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.out_proj",),
    "cross_q": ("encoder_attn.q_proj",),
    "cross_kv": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "cross_out": ("encoder_attn.out_proj",),
    "up": ("fc1",),
    "down": ("fc2",),
}
_FEED_FORWARD = ("up", "down")
PREFIX = "base_model.model."
TEXT_PROJECTION = "enc_to_dec_proj"


class LowRank(nn.Module):
    """A frozen layer [..., in] -> [..., out] and its adapters, whose sum is scaled by `scale * strength`."""

    def __init__(
        self,
        base: nn.Module,
        names: tuple[str, ...],
        rank: int,
        scale: float,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        """names: transformers' module of each of the n equal parts of the output. Adds nothing until B is trained."""
        super().__init__()
        n_out, n_in = _shape_of(base)
        self.base, self.names, self.scale, self.dropout, self.strength = base, names, scale, dropout, 1.0
        bound = 1 / math.sqrt(n_in)  # torch's own kaiming_uniform_(a=sqrt(5)), as PEFT has it
        self.a = nn.Parameter((torch.rand(len(names), rank, n_in, generator=generator) * 2 - 1) * bound)
        self.b = nn.Parameter(torch.zeros(len(names), n_out // len(names), rank))

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.strength == 0:
            return y
        low = F.linear(F.dropout(x.float(), self.dropout, self.training), self.a.flatten(0, 1))
        low = low.unflatten(-1, self.a.shape[:2])
        delta = torch.einsum("...nr,nor->...no", low, self.b).flatten(-2)
        return y + (self.scale * self.strength * delta).to(y.dtype)

    @property
    def compute_dtype(self) -> torch.dtype:
        """As of the layer that it stands for."""
        base: Any = self.base
        return base.compute_dtype

    def delta(self) -> Tensor:
        """What is added to the weight [out, in] at strength 1, in float32."""
        return (self.scale * (self.b.detach() @ self.a.detach())).flatten(0, 1).float()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(PEFT's key, tensor) of each adapter: A [r, in], B [out / n, r]."""
        for name, a, b in zip(self.names, self.a.detach(), self.b.detach(), strict=True):
            yield f"{PREFIX}{name}.lora_A.weight", a.cpu().contiguous()
            yield f"{PREFIX}{name}.lora_B.weight", b.cpu().contiguous()


def _shape_of(layer: nn.Module) -> tuple[int, int]:
    weight: Any = layer.weight  # a parameter, or a buffer of int8
    return tuple(weight.shape)


def add_adapters(
    lm: LM, text_projection: nn.Module, rank: int, scale: float, dropout: float, targets: str, seed: int
) -> tuple[dict[str, LowRank], nn.Module]:
    """Put adapters beside the matrices of `targets` -> (weight's name in the checkpoint -> adapter, the text projection).

    Names of the language model's weights begin with `lm.`, that of the projection's with `conditioner.`.
    """
    generator = torch.Generator().manual_seed(seed & (2**63 - 1))
    adapters: dict[str, LowRank] = {}

    def adapted(layer: nn.Module, names: tuple[str, ...], weight: str) -> LowRank:
        device = next(iter([*layer.parameters(), *layer.buffers()])).device
        adapters[weight] = LowRank(layer, names, rank, scale, dropout, generator).to(device)
        return adapters[weight]

    for i, block in enumerate(lm.layers):
        for name, modules in _JOINED.items():
            if not hasattr(block, name) or (targets == "attention" and name in _FEED_FORWARD):
                continue
            names = tuple(f"decoder.model.decoder.layers.{i}.{module}" for module in modules)
            setattr(block, name, adapted(getattr(block, name), names, f"lm.layers.{i}.{name}.weight"))
    if targets == "all":
        heads = tuple(f"decoder.lm_heads.{k}" for k in range(lm.config.n_codebooks))
        lm.heads = adapted(lm.heads, heads, "lm.heads.weight")  # pyright: ignore[reportAttributeAccessIssue]
        text_projection = adapted(text_projection, (TEXT_PROJECTION,), "conditioner.text_projection.weight")
    return adapters, text_projection


def set_strength(adapters: dict[str, LowRank], strength: float) -> None:
    """0 = the base, 1 = the fine-tune."""
    for adapter in adapters.values():
        adapter.strength = strength
