"""Muon: momentum whose matrices are made orthogonal, so that every direction is learnt at the same pace.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the step size of J. Liu et
al., "Muon is scalable for LLM training", arXiv:2502.16982, which makes AdamW's learning rates fit. torch.optim.Muon is the
same, but always iterates in bfloat16, which processors without instructions for it do slowly.
"""

import torch
from torch import Tensor

from .. import runs

_COEFFICIENTS, _ITERATIONS = (3.4445, -4.7750, 2.0315), 5  # of the Newton-Schulz iteration
_RMS = 0.2  # of an update's entries, over the learning rate: AdamW's, roughly


class Muon(torch.optim.Optimizer):
    """For the matrices inside a network; not for embeddings, heads, norms."""

    def __init__(self, matrices, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["average"] = torch.zeros_like(matrix)
                average = state["average"]
                average.lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonal(matrix.grad.lerp(average, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * _RMS * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the orthogonal matrix closest to [R, C]: its singular values all become about 1 (0.7 to 1.2)."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.t() if tall else matrix
    x = x / (x.norm() + 1e-7)
    if runs.computes_bfloat16(x.device):
        x = x.bfloat16()
    for _ in range(_ITERATIONS):
        square = x @ x.t()
        x = a * x + (b * square + c * square @ square) @ x
    return (x.t() if tall else x).to(matrix.dtype)
