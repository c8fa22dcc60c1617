"""How likely codes are to a language model: teacher forcing through the plain layers."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..codes import Codes
from ..conditioning import Conditioning
from ..lm import LM, Stream
from ..lm.cache import Columns
from ..lm.delay import delay
from ..lm.linear import Linear
from ..lm.model import Rows
from ..pipeline import LanguageModel

OnStep = Callable[[int, int], None]
_COLUMNS = 1500  # of all rows of a pass: their logits are what takes memory


@torch.inference_mode()
def log_likelihood(
    model: LanguageModel, codes: Codes, conditioning: Conditioning, on_step: OnStep | None = None
) -> Tensor:
    """Mean log-probability of a code of each codebook, in nats, after all codes before it: [B, K] float32 on the CPU.

    conditioning: one row, or B. A piece longer than the model's window is read in windows half of which was read before.
    Memory does not grow with B. on_step(done, total) is called before each layer; what it raises ends the work.
    """
    codes.check_codec(model.config.codec.identity)
    n_rows, _, n_frames = codes.codes.shape
    longest = int(model.config.segment_s * codes.frame_rate_hz)
    windows, together = _windows(n_frames, longest), max(1, _COLUMNS // min(n_frames, longest))
    groups = torch.arange(n_rows).split(together)
    total = torch.zeros(codes.codes.shape[:2])
    passes = [(window, group.tolist()) for window in windows for group in groups]
    for index, ((start, known, end), rows) in enumerate(passes):
        streams = model.streams(conditioning, n_rows, start / codes.frame_rate_hz if len(windows) > 1 else None)

        def on_layer(done: int = index) -> None:
            if on_step is not None:
                on_step(done, len(passes))

        total[rows] += _sums(model.lm, codes.codes[rows, :, start:end], [streams[row] for row in rows], known, on_layer)
    return total / n_frames


def likelihood_bytes(model: LanguageModel) -> int:
    """Memory of a pass besides the weights: its logits, thrice, and the activations of a layer."""
    lm = model.config.lm
    return 4 * 2 * _COLUMNS * (3 * lm.n_codebooks * lm.cardinality + 4 * lm.dim + lm.ffn_dim)


def _windows(n_frames: int, longest: int) -> list[tuple[int, int, int]]:
    """(first frame, frames of it that an earlier window has counted, last frame + 1) of each window."""
    windows, counted, start = [], 0, 0
    while counted < n_frames:
        end = min(n_frames, start + longest)
        windows.append((start, counted - start, end))
        counted, start = end, end - longest // 2
    return windows


def _sums(lm: LM, codes: Tensor, streams: Sequence[Stream], known: int, on_layer: Callable[[], None]) -> Tensor:
    """Sums of log-probabilities over the frames from `known` on of codes [R, K, T]: [R, K]."""
    config = lm.config
    sequence = delay(codes, config.delays, config.cardinality).to(lm.device)
    counted = torch.zeros_like(codes)
    counted[..., known:] = 1
    counted = delay(counted, config.delays, 0)[..., 1:].to(lm.device)  # cells without a frame are not counted
    targets = sequence[..., 1:].clamp(max=config.cardinality - 1)
    scores = _logits(lm, sequence[..., :-1], streams, on_layer).log_softmax(dim=-1)
    return (scores.gather(-1, targets[..., None])[..., 0] * counted).sum(dim=-1).cpu()


def _logits(lm: LM, codes: Tensor, streams: Sequence[Stream], on_layer: Callable[[], None]) -> Tensor:
    """`LM.forward`, with one layer at a time in float32 where products of half precision are slow."""
    rows = Rows.of(streams, lm)
    x = torch.cat([rows.prefix, lm.embed(codes)], dim=1)
    n_columns = x.shape[1]
    x = x + rows.positions(n_columns)
    columns = Columns(0, n_columns, rows.mask(0, n_columns))
    for layer in lm.layers:
        on_layer()
        block = _quick(layer)
        text = block.text_cache(rows.text, rows.text_mask) if block.has_cross else None
        x = block(x, columns, text=text)
    logits = _quick(lm.heads)(lm.norm(x[:, rows.prefix.shape[1] :])).float()
    return logits.unflatten(-1, (lm.config.n_codebooks, -1)).transpose(1, 2)


def _quick(layer: nn.Module) -> Any:
    """A copy in float32 of a layer in half precision on a CPU; any other as it is."""
    linears = [module for module in layer.modules() if isinstance(module, Linear)]
    slow = any(one.weight.device.type == "cpu" and one.weight.dtype != torch.float32 for one in linears)
    return copy.deepcopy(layer).float() if slow else layer
