"""The training step of MusicGen: teacher-forced logits through the plain layers, and their cross-entropy.

Source: audiocraft `LMModel.compute_predictions`, `MusicGenSolver._compute_cross_entropy`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..lm import LM, Stream
from ..lm.cache import Columns
from ..lm.delay import delay
from ..lm.model import Rows
from ..lm.transformer import Block

Check = Callable[[], None]


def valid_cells(n_valid: Tensor, n_frames: int, delays: Sequence[int]) -> Tensor:
    """Which of the columns 1..T are scored, [R, K, T] boolean: those that hold a frame before n_valid [R].

    T columns are scored, not T + max(delays): of codebook k its first T - delays[k] frames, as the reference does.
    """
    frame = torch.arange(n_frames, device=n_valid.device) - torch.tensor(delays, device=n_valid.device)[:, None]
    return (frame >= 0) & (frame < n_valid[:, None, None])


def cell_losses(
    lm: LM, codes: Tensor, n_valid: Tensor, streams: Sequence[Stream], remember: bool = True, check: Check | None = None,
    teacher: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Cross-entropy of each cell in nats and where it counts: codes [R, K, T] -> [R, K, T] float32, [R, K, T] boolean.

    n_valid: frames of each row [R] that are music; those after them are padding of any value.
    remember False: activations of a layer are computed again in the backward pass, instead of being held. check: called
    between layers, forwards and backwards; what it raises ends the work. teacher: `cell_logits` of a model whose every
    probability is to be kept, in place of the codes.
    """
    config, n_frames = lm.config, codes.shape[-1]
    valid = valid_cells(n_valid, n_frames, config.delays)
    logits = cell_logits(lm, codes, streams, remember, check)
    if teacher is not None:
        return -(teacher.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1) * valid, valid
    targets = delay(codes, config.delays, config.cardinality)[..., 1 : n_frames + 1].masked_fill(~valid, 0)
    losses = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none").view(targets.shape)
    return losses * valid, valid


def cell_logits(
    lm: LM, codes: Tensor, streams: Sequence[Stream], remember: bool = True, check: Check | None = None
) -> Tensor:
    """Logits of the columns 1..T of the delayed codes [R, K, T]: [R, K, T, cardinality] float32."""
    sequence = delay(codes, lm.config.delays, lm.config.cardinality)[..., : codes.shape[-1]]
    return _logits(lm, sequence, streams, remember, check or (lambda: None))


def batch_loss(losses: Tensor, n_cells: Tensor) -> Tensor:
    """The reference's mean: over the valid cells n_cells [K] of a batch, then over codebooks; losses [R, K, T] of some rows.

    Of the rows of a batch in turn, with n_cells of them all, the results add up to the loss of the batch.
    """
    return (losses.sum(dim=(0, 2)) / n_cells.clamp(min=1)).mean()


def _logits(lm: LM, codes: Tensor, streams: Sequence[Stream], remember: bool, check: Check) -> Tensor:
    """`LM.forward`, layer by layer: [R, K, S] -> [R, K, S, cardinality] float32."""
    rows = Rows.of(streams, lm)
    x = torch.cat([rows.prefix, lm.embed(codes)], dim=1)
    n_columns = x.shape[1]
    x = x + rows.positions(n_columns)
    columns = Columns(0, n_columns, rows.mask(0, n_columns))
    for block in lm.layers:
        check()
        if remember or not torch.is_grad_enabled():
            x = _through(block, x, columns, rows)
        else:
            x = checkpoint(_through, block, x, columns, rows, use_reentrant=False)
        assert isinstance(x, Tensor)
        if x.requires_grad:
            x.register_hook(lambda gradient: check())
    return lm.logits(x[:, rows.prefix.shape[1] :])


def _through(block: Block, x: Tensor, columns: Columns, rows: Rows) -> Tensor:
    text = block.text_cache(rows.text, rows.text_mask) if block.has_cross else None
    return block(x, columns, text=text)
