"""The decoding loop: one column of codes a step, guided, sampled, written back."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from .cpu_fused import FusedStep, crew
from .cuda_graphs import CudaGraphs
from .delay import UNKNOWN, delay, first_column, undelay
from .model import LM, State, Stream
from .sampling import NoiseAhead, RowNoise, Sampling, draw, guided_draw
from .static import CHUNK, Shape, StaticRun, StaticRuns

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
    n_prefix = max(len(stream.prefix) for stream in streams)
    job = _Job(lm, streams, bool(null), sequence, first, sampling, noise, cfg, on_step)
    if lm.device.type == "cuda" and lm.captured is None:
        lm.captured = StaticRuns(CudaGraphs)
    if isinstance(lm.captured, StaticRuns):
        n_cross = max(len(stream.cross) for stream in streams) if config.cross_attention else 0
        shape = Shape.of(n_rows, bool(null), n_prefix + last - 1, max(n_cross, int(config.cross_attention)), sampling)
        _run_static(job, lm.captured.get(lm, shape))
    else:
        _run(job)
    return undelay(sequence, config.delays).cpu()


@dataclass
class _Job:
    """What is written, column by column, from `first` on."""

    lm: LM
    streams: Sequence[Stream]
    guided: bool
    sequence: Tensor  # [B, K, S]
    first: int
    sampling: Sampling
    noise: RowNoise | NoiseAhead
    cfg: float
    on_step: OnStep | None

    @property
    def n_steps(self) -> int:
        return self.sequence.shape[-1] - self.first

    def write(self, state: State, fed: int, column: int) -> None:
        """Take in the columns from `fed` on, draw one, and write it where nothing is known."""
        codes = self.sequence[..., fed:column]
        logits = self.lm.step(state, torch.cat([codes, codes]) if self.guided else codes)
        noise = None if self.sampling.greedy else self.noise.draw().to(logits.device)
        if self.guided:
            chosen = guided_draw(logits, self.cfg, self.sampling, noise)
        else:
            chosen = draw(logits, self.sampling, noise)
        known = self.sequence[..., column]
        self.sequence[..., column] = torch.where(known == UNKNOWN, chosen, known)

    def report(self, done: int) -> None:
        if self.on_step is not None:
            self.on_step(done, self.n_steps)


def _run(job: _Job) -> None:
    """One step after the other."""
    state, fed = job.lm.start(job.streams, job.sequence.shape[-1] - 1), 0
    with contextlib.ExitStack() as during:
        if isinstance(state.cpu, FusedStep):  # between its steps, all cores but one are at rest
            during.enter_context(crew.alone())
            pool = during.enter_context(ThreadPoolExecutor(1, "musicgen-noise"))
            job.noise = NoiseAhead(job.noise, job.n_steps, pool)
        for column in range(job.first, job.sequence.shape[-1]):
            job.write(state, fed, column)
            fed = column
            job.report(column - job.first + 1)


def _run_static(job: _Job, run: StaticRun) -> None:
    """The first step takes in all that is known; the others are captured ones, CHUNK of them at a time.

    The device has a chunk to work on while the next one's noise is drawn, and is waited for one chunk behind.
    """
    state = job.lm.start(job.streams, job.first)
    job.write(state, 0, job.first)
    job.report(1)
    run.begin(state, job.sequence, job.first + 1, job.sampling, job.cfg)
    del state
    on_cuda = job.sequence.device.type == "cuda"
    drawn = [torch.empty(run.noise.shape, pin_memory=on_cuda) for _ in range(2)]
    ended: list[tuple[int, Callable[[], None]]] = []  # chunks under way: steps done after them, and how to wait
    for number, start in enumerate(range(1, job.n_steps, CHUNK)):
        n = min(CHUNK, job.n_steps - start)
        if not job.sampling.greedy:
            run.fill_noise(job.noise.fill(drawn[number % 2][:n]))
        for _ in range(n):
            run.step()
        ended.append((start + n, _mark(on_cuda)))
        if len(ended) > 1:
            _wait(ended, job)
    while ended:
        _wait(ended, job)
    job.sequence.copy_(run.sequence[..., : job.sequence.shape[-1]])


def _mark(on_cuda: bool) -> Callable[[], None]:
    """What waits for all that the device has been told so far."""
    if not on_cuda:
        return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize


def _wait(ended: list[tuple[int, Callable[[], None]]], job: _Job) -> None:
    done, wait = ended.pop(0)
    wait()
    job.report(done)
