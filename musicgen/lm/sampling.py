"""From logits to codes: temperature, top-k, top-p, and noise that depends on seed and row alone."""

import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import torch
from torch import Tensor

from ..seeds import row_seed
from .torchscript import scripted


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
        return self.fill(torch.empty(1, *self._shape))[0]

    def fill(self, out: Tensor) -> Tensor:
        """The noise of the next steps, into `out` [steps, rows, K, cardinality] float32 on the CPU."""
        for step in out:
            for row, generator in zip(step, self._generators, strict=True):
                row.exponential_(1.0, generator=generator)
        return out


class NoiseAhead:
    """A RowNoise's next `n_draws` draws, each made by another thread while what was drawn before it is used."""

    def __init__(self, noise: RowNoise, n_draws: int, pool: Executor):
        self._noise, self._n_left, self._pool = noise, n_draws, pool
        self._next: Future[Tensor] | None = None

    def draw(self) -> Tensor:
        drawn = self._noise.draw() if self._next is None else self._next.result()
        self._n_left -= 1
        # Not one more: the noise of what is written after this run follows the last one.
        self._next = self._pool.submit(self._noise.draw) if self._n_left > 0 else None
        return drawn


def guide(logits: Tensor, cfg: float) -> Tensor:
    """Classifier-free guidance: rows [conditional; null] -> null + (conditional - null) * cfg, which may be on the device.

    TorchScript reads it too.
    """
    conditional, null = logits.chunk(2)
    return null + (conditional - null) * cfg


def draw(
    logits: Tensor,
    sampling: Sampling,
    noise: Tensor | None,
    temperature: Tensor | None = None,
    top_p: Tensor | None = None,
) -> Tensor:
    """One code a row and codebook: logits [B, K, cardinality], noise of the same shape -> [B, K].

    temperature, top_p: numbers on the device that take the place of those of `sampling`, which still says what is done.

    A draw from p is argmax(p / e) with e ~ Exp(1), which is what torch.multinomial computes for one sample.
    Source: audiocraft `utils.sample_top_k`, `sample_top_p`, `multinomial`.
    """
    if sampling.greedy:
        return logits.argmax(dim=-1)
    temperature = sampling.temperature if temperature is None else temperature
    if sampling.top_p > 0:
        return _of_the_top_p(logits, noise, temperature, sampling.top_p if top_p is None else top_p)
    return _of_the_top_k(logits, noise, temperature, sampling.top_k)


def _of_the_top_p(logits: Tensor, noise: Tensor, temperature: float | Tensor, top_p: float | Tensor) -> Tensor:
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    ordered, index = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered * (before <= top_p)
    ordered = ordered / ordered.sum(dim=-1, keepdim=True)
    return index.gather(-1, (ordered / noise).argmax(dim=-1, keepdim=True)).squeeze(-1)


def _of_the_top_k(logits: Tensor, noise: Tensor, temperature: float, top_k: int) -> Tensor:
    """temperature: a number, here or on the device. TorchScript reads it too."""
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    if top_k > 0 and top_k < probs.shape[-1]:
        # audiocraft keeps every code that ties with the k-th; so do we.
        threshold = probs.topk(top_k, dim=-1)[0][..., -1:]
        probs = probs * (probs >= threshold)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    return (probs / noise).argmax(dim=-1)


def _guided_of_the_top_k(logits: Tensor, cfg: float, noise: Tensor, temperature: float, top_k: int) -> Tensor:
    return _of_the_top_k(guide(logits, cfg), noise, temperature, top_k)


@functools.cache
def _guided_draw() -> Callable[[Tensor, float, Tensor, float, int], Tensor]:
    return scripted(_guided_of_the_top_k)


def guided_draw(logits: Tensor, cfg: float, sampling: Sampling, noise: Tensor | None) -> Tensor:
    """`draw` from what `guide` makes of logits [2 B, K, cardinality]; on a CPU one call, where it is what most ask for."""
    if sampling.greedy or sampling.top_p > 0 or logits.device.type != "cpu":
        return draw(guide(logits, cfg), sampling, noise)
    return _guided_draw()(logits, float(cfg), noise, float(sampling.temperature), int(sampling.top_k))
