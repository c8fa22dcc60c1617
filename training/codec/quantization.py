"""Training of a residual quantizer: codebooks that follow the means of what they stand for.

Source: EnCodec (arXiv:2210.13438, section 3.2) and SoundStream (arXiv:2107.03312): exponential moving averages in place of
gradients, k-means for a start, codes that nobody uses set to vectors of the batch, a straight-through gradient, a
commitment loss, and a random number of codebooks per clip, so that the first ones are good by themselves.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...musicgen.codec.quantizer import ResidualQuantizer

_DECAY = 0.99  # of the averages, per step
_DEAD = 0.05  # a code used less often than this part of the mean is replaced
_KMEANS_ROUNDS = 12


@dataclass(frozen=True)
class Quantized:
    """What came out of one pass."""

    latents: Tensor  # [B, D, T] sums of codebook vectors, with the gradient of what went in
    commitment: Tensor  # mean squared distance, over codebooks
    codes: Tensor  # [B, K, T]


class QuantizerTraining(nn.Module):
    """The codebooks of `quantizer`, and the averages that move them. Made to be saved with a run, not shipped."""

    count: Tensor  # [K, size] average uses of a code, 1 where all are used alike
    total: Tensor  # [K, size, D] average sums of what the code stood for
    ready: Tensor  # [] 1 after `start`

    def __init__(self, quantizer: ResidualQuantizer) -> None:
        super().__init__()
        self.books = [layer.codebook for layer in quantizer.layers]
        size, dim = self.books[0].embed.shape
        self.register_buffer("count", torch.ones(len(self.books), size))
        self.register_buffer("total", torch.zeros(len(self.books), size, dim))
        self.register_buffer("ready", torch.zeros(()))

    @torch.no_grad()
    def start(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Set the codebooks by k-means of vectors [N, D] and of what each codebook leaves over."""
        residual = vectors
        for k, book in enumerate(self.books):
            book.embed.copy_(_kmeans(residual, len(book.embed), generator))
            index = book.nearest(residual)
            residual = residual - F.embedding(index, book.embed)
            self.count[k] = torch.bincount(index, minlength=len(book.embed)).float().clamp(min=0.1)
            self.count[k] /= self.count[k].mean()
            self.total[k] = book.embed * self.count[k][:, None]
        self.ready.fill_(1.0)

    def go_on(self) -> None:
        """Take the codebooks as they are, each code as used as the others."""
        for k, book in enumerate(self.books):
            self.count[k] = 1.0
            self.total[k] = book.embed
        self.ready.fill_(1.0)

    def forward(self, latents: Tensor, n_used: Tensor, generator: torch.Generator) -> Quantized:
        """[B, D, T] -> the same through `n_used[b]` codebooks; the averages move, of all codebooks."""
        x = latents.transpose(1, 2)
        residual, total, commitment, codes = x, torch.zeros_like(x), x.new_zeros(()), []
        for k, book in enumerate(self.books):
            flat = residual.detach().reshape(-1, x.shape[-1])
            with torch.no_grad():
                index = book.nearest(flat)
                chosen = F.embedding(index, book.embed).view_as(x)
                if self.training:
                    self._move(k, flat, index, generator)
            used = (n_used > k)[:, None, None]
            commitment = commitment + (used * (residual - chosen).pow(2)).mean()
            total = total + used * chosen
            residual = residual - chosen
            codes.append(index.view(x.shape[:2]))
        straight = x + (total - x).detach()
        return Quantized(straight.transpose(1, 2), commitment / len(self.books), torch.stack(codes, dim=1))

    def perplexity(self) -> list[float]:
        """How many codes of each codebook are in use, as the exponential of their entropy."""
        share = self.count / self.count.sum(dim=1, keepdim=True)
        return (-(share * share.clamp(min=1e-9).log()).sum(dim=1)).exp().tolist()

    def _move(self, k: int, vectors: Tensor, index: Tensor, generator: torch.Generator) -> None:
        book, size = self.books[k], len(self.count[k])
        scale = size / len(vectors)  # so that `count` is 1 on average, whatever the batch
        hits = torch.bincount(index, minlength=size).float() * scale
        sums = torch.zeros_like(self.total[k]).index_add_(0, index, vectors) * scale
        self.count[k].lerp_(hits, 1 - _DECAY)
        self.total[k].lerp_(sums, 1 - _DECAY)
        dead = (self.count[k] < _DEAD).nonzero()[:, 0]
        if len(dead):
            pick = torch.randint(len(vectors), (len(dead),), generator=generator).to(vectors.device)
            self.count[k][dead] = 0.5
            self.total[k][dead] = 0.5 * vectors[pick]
        book.embed.copy_(self.total[k] / self.count[k][:, None])


def _kmeans(vectors: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """`size` means of vectors [N, D], N > size."""
    means = vectors[torch.randperm(len(vectors), generator=generator)[:size].to(vectors.device)].clone()
    for _ in range(_KMEANS_ROUNDS):
        distance = means.pow(2).sum(1) - 2 * vectors @ means.t()
        index = distance.argmin(dim=1)
        count = torch.bincount(index, minlength=size)
        sums = torch.zeros_like(means).index_add_(0, index, vectors)
        filled = count > 0
        means[filled] = sums[filled] / count[filled, None]
    return means
