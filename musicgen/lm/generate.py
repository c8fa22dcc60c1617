"""The decoding loop: one column of codes a step, guided, sampled, written back."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .delay import UNKNOWN, delay, first_column, undelay
from .model import LM, Stream
from .sampling import RowNoise, Sampling, draw, guide

OnStep = Callable[[int, int], None]


@torch.inference_mode()
def generate_codes(
    lm: LM,
    conditional: Sequence[Stream],
    null: Sequence[Stream] | None,
    n_frames: int,
    sampling: Sampling,
    noise: RowNoise,
    cfg: float = 1.0,
    prompt: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Write `n_frames` of codes, at most the model's window: -> [B, K, n_frames] int64 on the CPU.

    conditional: one stream a row. null: as many for classifier-free guidance, or None for none.
    prompt: codes [B, K, P] to continue, P < n_frames; they come first in the result.
    on_step: called as on_step(done, total) after each step; what it raises ends the run.
    Source: audiocraft `LMModel.generate`.
    """
    config = lm.config
    n_rows = len(conditional)
    frames = torch.full((n_rows, config.n_codebooks, n_frames), UNKNOWN, dtype=torch.long)
    n_prompt = 0
    if prompt is not None:
        n_prompt = prompt.shape[-1]
        frames[..., :n_prompt] = prompt
    assert n_prompt < n_frames, "the prompt leaves nothing to generate"
    sequence = delay(frames, config.delays, config.cardinality).to(lm.device)
    first, last = first_column(n_prompt, config.delays), sequence.shape[-1]
    streams = [*conditional, *null] if null else list(conditional)
    state = lm.start(streams, last - 1)
    fed = 0
    for column in range(first, last):
        codes = sequence[..., fed:column]
        logits = lm.step(state, torch.cat([codes, codes]) if null else codes)
        if null:
            logits = guide(logits, cfg)
        step_noise = None if sampling.greedy else noise.draw().to(logits.device)
        chosen = draw(logits, sampling, step_noise)
        known = sequence[..., column]
        sequence[..., column] = torch.where(known == UNKNOWN, chosen, known)
        fed = column
        if on_step is not None:
            on_step(column - first + 1, last - first)
    return undelay(sequence, config.delays).cpu()
