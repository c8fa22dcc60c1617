"""Processes that train one model: each computes the gradients of its rows, and all take the step of their mean.

Two threads of one process wait for one another at every operation; two processes wait once a step.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from .scored import ScoredBatch


class Team:
    """One process of a team, `rank` of `size`. Alone it changes nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def part(self, batch: ScoredBatch, n_first: int) -> tuple[ScoredBatch, int]:
        """The rows of a batch that this process learns from, and how many of them are among its first `n_first`."""
        if self.size == 1:
            return batch, n_first
        table = {field.name: getattr(batch, field.name) for field in fields(batch)}
        mine = {name: value[self.rank :: self.size] for name, value in table.items() if value is not None}
        return replace(batch, **mine), len(range(self.rank, n_first, self.size))

    def mean(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean of all processes' gradients in place of each one's."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, this: bool) -> bool:
        """Whether it is so for one of the processes: they end at the same step."""
        if self.size == 1:
            return this
        flag = torch.tensor(float(this))
        dist.all_reduce(flag)
        return bool(flag > 0)


def together(size: int, work: Callable[[Team], object]) -> object:
    """What `work` gives for the first of `size` forked processes. RuntimeError if another one fails."""
    if size == 1:
        return work(Team())
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        others = [context.Process(target=_joined, args=(rank, size, meeting, work)) for rank in range(1, size)]
        for other in others:
            other.start()
        try:
            result = _joined(0, size, meeting, work)
            for other in others:
                other.join()
        finally:
            for other in others:
                other.terminate()
    if any(other.exitcode for other in others):
        raise RuntimeError("a process of the team has failed: its message is above")
    return result


def _joined(rank: int, size: int, meeting: str, work: Callable[[Team], object]) -> object:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    try:
        return work(Team(rank, size))
    finally:
        dist.destroy_process_group()
