"""The decoding loop: one column of codes a step, guided, sampled, written back."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .delay import UNKNOWN, delay, first_column, undelay
from .model import LM, Stream
from .sampling import RowNoise, Sampling, draw, guide
from .stepper import PlainStepper, Stepper

OnStep = Callable[[int, int], None]
# (n, read): the first n frames are finished, and read(first, last) copies codes [B, K, last - first] of them to the CPU.
OnFrames = Callable[[int, Callable[[int, int], Tensor]], None]


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
    stepper: Stepper | None = None,
    mix: Callable[[Tensor], Tensor] | None = None,
    n_texts: int = 1,
    on_frames: OnFrames | None = None,
) -> Tensor:
    """Write `n_frames` of codes, at most the model's window: -> [B, K, n_frames] int64 on the CPU.

    conditional: one stream a row. null: as many for classifier-free guidance, or None for none.
    prompt: codes [B, K, P] to continue, P < n_frames; they come first in the result.
    on_step: called as on_step(done, total) after each step, and with done = 0 while the run is prepared and the prompt taken in; what it raises
    ends the run. stepper: of `accel.choose`; None = the plain model. on_frames: called after each step, before on_step.
    mix: makes one of the logits of `n_texts` texts a row (`guidance.Mix`), whose streams `conditional` holds text by text.
    Source: audiocraft `LMModel.generate`.
    """
    config = lm.config
    n_rows = len(conditional) // n_texts
    frames = torch.full((n_rows, config.n_codebooks, n_frames), UNKNOWN, dtype=torch.long)
    n_prompt = 0
    if prompt is not None:
        n_prompt = prompt.shape[-1]
        frames[..., :n_prompt] = prompt
    assert n_prompt < n_frames, "the prompt leaves nothing to generate"
    sequence = delay(frames, config.delays, config.cardinality).to(lm.device)
    first, n_columns = first_column(n_prompt, config.delays), sequence.shape[-1]

    def report(done: int) -> None:
        if on_step is not None:
            on_step(done, n_columns - first)

    def read(first: int, last: int) -> Tensor:
        return undelay(sequence[..., first : last + 1 + config.max_delay], config.delays).cpu()

    stepper = stepper or PlainStepper(lm)
    streams = [*conditional, *null] if null else list(conditional)
    stepper.start(streams, n_columns - 1, lambda: report(0))
    known = 0
    for column in range(first, n_columns):
        codes = sequence[..., known:column]
        logits = stepper.take_in(codes.repeat(len(streams) // n_rows, 1, 1), lambda: report(0))
        if mix:
            logits = mix(logits)
        if null:
            logits = guide(logits, cfg)
        drawn = draw(logits, sampling, None if sampling.greedy else noise.draw().to(logits.device, non_blocking=True))
        cells = sequence[..., column]
        sequence[..., column] = torch.where(cells == UNKNOWN, drawn, cells)
        known = column
        if on_frames is not None:
            on_frames(max(n_prompt, column - config.max_delay), read)
        report(column - first + 1)
    return undelay(sequence, config.delays).cpu()
