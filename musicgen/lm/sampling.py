"""From logits to codes: temperature, top-k, top-p, and noise that depends on seed and row alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..seeds import row_seed


@dataclass(frozen=True)
class Sampling:
    """How a code is drawn. `top_p` > 0 takes precedence over `top_k`; temperature 0 is greedy."""

    top_k: int = 250
    top_p: float = 0.0
    temperature: float = 1.0

    @property
    def greedy(self) -> bool:
        return self.temperature <= 0


class RowNoise:
    """Exp(1) noise for `n_rows` rows, each from its own CPU generator.

    One draw fills [rows, K, cardinality], also where a code is then discarded: the reference's accounting.
    """

    def __init__(self, seed: int, n_rows: int, n_codebooks: int, cardinality: int):
        self._generators = [torch.Generator().manual_seed(row_seed(seed, row)) for row in range(n_rows)]
        self._shape = (n_rows, n_codebooks, cardinality)

    def draw(self) -> Tensor:
        """The next step's noise, [rows, K, cardinality] float32 on the CPU."""
        noise = torch.empty(self._shape)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(1.0, generator=generator)
        return noise


def guide(logits: Tensor, cfg: float) -> Tensor:
    """Classifier-free guidance: rows [conditional; null] [2 B, ...] -> null + (conditional - null) * cfg, [B, ...]."""
    conditional, null = logits.chunk(2)
    return null + (conditional - null) * cfg


def draw(logits: Tensor, sampling: Sampling, noise: Tensor | None) -> Tensor:
    """One code a row and codebook: logits [B, K, cardinality], noise of the same shape, None = greedy -> [B, K].

    A draw from p is argmax(p / e) with e ~ Exp(1), which is what torch.multinomial computes for one sample.
    Source: audiocraft `utils.sample_top_k`, `sample_top_p`, `multinomial`.
    """
    if sampling.greedy or noise is None:
        return logits.argmax(dim=-1)
    probs = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p > 0:
        return _draw_of_top_p(probs, noise, sampling.top_p)
    if 0 < sampling.top_k < probs.shape[-1]:
        # audiocraft keeps every code that ties with the k-th; so do we.
        threshold = probs.topk(sampling.top_k, dim=-1)[0][..., -1:]
        probs = probs * (probs >= threshold)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    return (probs / noise).argmax(dim=-1)


def _draw_of_top_p(probs: Tensor, noise: Tensor, top_p: float) -> Tensor:
    """The noise belongs to ranks, not to codes: as in the reference, which draws from the sorted probabilities."""
    ordered, index = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered * (before <= top_p)
    ordered = ordered / ordered.sum(dim=-1, keepdim=True)
    return index.gather(-1, (ordered / noise).argmax(dim=-1, keepdim=True)).squeeze(-1)
