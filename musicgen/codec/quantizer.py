"""Residual vector quantization: each codebook quantizes the residual of the ones before it.

Source: audiocraft `ResidualVectorQuantization`. transformers' own derives the number of codebooks from bandwidths, by
arithmetic that differs between its versions.
"""

import torch
from torch import Tensor, nn

from ..modules import module_list


class Codebook(nn.Module):
    """Codebook of `size` vectors; a code is the index of a vector."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.embed: Tensor
        self.register_buffer("embed", torch.empty(size, dim))

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest entry: [N, D] -> [N]."""
        # Terms and order are audiocraft's. |v|^2 does not change the argmin on paper, but its rounding decides near ties.
        entries = self.embed.t()
        length = vectors.pow(2).sum(1, keepdim=True)
        distance = length - 2 * vectors @ entries + entries.pow(2).sum(0, keepdim=True)
        return (-distance).max(dim=-1).indices


class _Layer(nn.Module):
    """Holder of the codebook under its name in checkpoints, layers.{q}.codebook."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.codebook = Codebook(size, dim)


class ResidualQuantizer(nn.Module):
    """Residual quantizer of `n_codebooks` codebooks."""

    def __init__(self, n_codebooks: int, size: int, dim: int) -> None:
        super().__init__()
        self.layers = module_list(_Layer(size, dim) for _ in range(n_codebooks))

    def encode(self, latents: Tensor) -> Tensor:
        """Quantize latents [B, D, T] to codes [B, K, T]."""
        residual = latents.transpose(1, 2)
        codes = []
        for layer in self.layers:
            index = layer.codebook.nearest(residual.reshape(-1, residual.shape[-1])).view(residual.shape[:-1])
            residual = residual - nn.functional.embedding(index, layer.codebook.embed)
            codes.append(index)
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Latents [B, D, T] of codes [B, K, T]."""
        total = torch.zeros((), device=codes.device)
        for k, layer in enumerate(self.layers):
            total = total + nn.functional.embedding(codes[:, k], layer.codebook.embed)
        return total.transpose(1, 2)
