"""Teaches the model to go on in the key that it began in.

Where a prompt of some seconds leaves the key open, a model that learnt how clips go on plays tones of every key that it
may be in, and then follows its own: prompts were carried on in one key, but for a third of them that was another than
the clip's. So the model continues clips, and is then taught by what it was, told the key: wherever a tone may change,
what this model would draw next is weighed by how likely it has a tone of the clip's mode. How likely a tone changes
stays as it was: rewarded for the mode alone, a model holds one tone for ever. Told nothing itself, it learns to prefer
tones that are in every key that a prompt may be in, above all those that were heard.

Sources: the optimum of a reward at a price for leaving what was learnt, as in R. Rafailov et al., "Direct preference
optimization", arXiv:2305.18290, equation 4; its teacher by the model's own steps as in R. Agarwal et al., "On-policy
distillation of language models", arXiv:2306.13649.
"""

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...musicgen.lm import RowNoise
from ...musicgen.lm.delay import delay
from ...musicgen.lm.sampling import guide
from .. import runs
from ..data.modes import MODES, OCTAVE
from ..data.pieces import Label
from ..shipped import SUFFIX, trainer_of
from .codes import MELODIES
from .examples import Batch, Examples, without_text
from .model import SAMPLING, MusicGen
from .text import Texts
from .train import CHECKPOINT, CODE_WEIGHTS, LMTraining, Trainer, opened

GUIDANCE = 3.0  # as the nodes have it
_PROMPT_S, _CONTINUED_S = (2.0, 4.0), 9.0
_AT_ONCE, _EVERY, _KEPT = 6, 12, 30  # batches that are written together, steps between, batches that are kept
_WEIGHT = 2.0  # of this lesson over that of the clips
_PRICE = 0.2  # of leaving what was learnt: a code in the mode becomes 1 / _PRICE e-folds likelier than one outside
_HEARD = 6  # frames that tell which tone sounds
_WARM_UP_STEPS, _LOG_STEPS = 30, 25


@dataclass(frozen=True)
class Continued:
    """What the model wrote after the beginnings of B clips."""

    batch: Batch
    in_mode: Tensor  # [B, OCTAVE] bool: the tones of each clip's mode
    n_prompt: int


def tones_of_codes(examples: Examples, n_codes: int) -> Tensor:
    """How often each first code of a frame has sounded with each pitch class, [n_codes, OCTAVE], rows of sum 1."""
    able = [i for i, label in enumerate(examples.labels) if label.jangdan and label.mode]
    n_frames, n_chroma = examples.codes.shape[2], examples.chroma.shape[2]
    at = ((np.arange(n_frames) + 0.5) * (n_chroma - 1) / n_frames).round().astype(int)
    tones = examples.chroma[able, MELODIES.index("guide")][:, at]
    counts = np.full((n_codes, OCTAVE), 0.5)
    np.add.at(counts, (examples.codes[able, 0].ravel(), tones.ravel()), 1)
    return torch.from_numpy(counts / counts.sum(axis=1, keepdims=True)).float()


def mode_of(labels: list[Label]) -> Tensor:
    """The tones of each label's mode, [B, OCTAVE] bool; none where there is no mode."""
    result = torch.zeros(len(labels), OCTAVE, dtype=torch.bool)
    for row, label in zip(result, labels, strict=True):
        if label.mode in MODES and label.tonic is not None:
            row[[(label.tonic + tone) % OCTAVE for tone in MODES[label.mode].tones]] = True
    return result


def taught(learnt: Tensor, codes: Tensor, in_mode: Tensor, tones: Tensor) -> Tensor:
    """What is to be drawn by who is told the key: learnt [B, T, c], the chances of frames' first codes -> as much.

    codes [B, 1 + _HEARD + T]: the first codes, those of the frames before included; in_mode [B, OCTAVE], tones [c, OCTAVE].
    The chance that the tone changes stays the same in every frame, whatever it changes to.
    """
    n_frames = learnt.shape[1]
    sounding = (
        tones.log()[codes.to(tones.device)].unfold(1, _HEARD, 1)[:, -n_frames - 1 : -1].sum(-1).softmax(-1)
    )  # [B, T, OCTAVE]
    changed = learnt * (1 - sounding @ _clear(tones).t())
    weighed = changed * (_inside(in_mode, tones) / _PRICE).exp()
    weighed = weighed * changed.sum(-1, keepdim=True) / weighed.sum(-1, keepdim=True).clamp(min=1e-9)
    return learnt - changed + weighed


def inside(made: Tensor, in_mode: Tensor, tones: Tensor) -> Tensor:
    """The share of the mode in what is drawn, made [B, T, c]."""
    return (made * _inside(in_mode, tones)).sum(-1).mean()


def _inside(in_mode: Tensor, tones: Tensor) -> Tensor:
    """How surely each code has a tone of the mode, [B, 1, c], where `tones` are."""
    return (in_mode.to(tones.device, tones.dtype) @ _clear(tones).t())[:, None]


def _clear(tones: Tensor) -> Tensor:
    """Rather the likeliest tone of each code than all that ever sounded with it."""
    return tones.square() / tones.square().sum(dim=1, keepdim=True)


def distance(model: MusicGen, learnt: MusicGen, own: Continued, tones: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy, in nats a code, between what the model draws after its own music and what is to be drawn there:
    what `learnt` draws, its first codes as it would if told the key."""
    config, codes, first = model.config.lm, own.batch.codes, own.n_prompt
    made = chances(model, own.batch)
    with torch.no_grad():
        wanted = chances(learnt, own.batch)
        frames = slice(first, codes.shape[2])
        was = wanted[:, 0, frames].clone()
        wanted[:, 0, frames] = taught(was, codes[:, 0, first - _HEARD - 1 :], own.in_mode, tones)
        shares = {
            name: float(inside(of, own.in_mode, tones))
            for name, of in (("was", was), ("is", made[:, 0, frames]), ("wanted", wanted[:, 0, frames]))
        }
    cells = delay(torch.ones_like(codes[..., first:]), config.delays, 0)[..., 1:].bool().to(made.device)
    made, wanted = made[..., first:, :][cells], wanted[..., first:, :][cells]
    return -(wanted * made.clamp(min=1e-9).log()).sum(-1).mean(), shares


def chances(model: MusicGen, batch: Batch) -> Tensor:
    """[B, K, S, c]: how likely each code is drawn after those of the batch."""
    prefix = torch.cat([model.prefix(way(batch)) for way in (lambda batch: batch, without_text)])
    inputs = model.inputs(batch)
    logits = guide(model.logits(prefix, torch.cat([inputs, inputs])), GUIDANCE) / SAMPLING.temperature
    least = logits.detach().topk(min(SAMPLING.top_k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf).softmax(-1)


def continued(
    model: MusicGen, examples: Examples, texts: Texts, batch_size: int, seed: int
) -> Iterator[list[Continued]]:
    """Endless: some batches of continuations, written by the model as it is by then."""
    rng, config = np.random.default_rng([seed, 4]), model.config.lm
    prompts = examples.prompts(texts, batch_size, seed)
    while True:
        some = [next(prompts) for _ in range(_AT_ONCE)]
        n_prompt = round(rng.uniform(*_PROMPT_S) * examples.frame_hz)
        chosen = [index for indices, _ in some for index in indices]
        rows = [examples.asked(ids) for _, texts_ids in some for ids in texts_ids]
        prompt = torch.from_numpy(examples.codes[chosen, :, :n_prompt].astype(np.int64))
        noise = RowNoise(int(rng.integers(2**31)), len(rows), config.n_codebooks, config.cardinality)
        codes = model.write(rows, round(_CONTINUED_S * examples.frame_hz), noise, GUIDANCE, prompt).split(batch_size)
        yield [
            Continued(examples.asked(*ids, codes=own), mode_of([examples.labels[i] for i in indices]), n_prompt)
            for (indices, ids), own in zip(some, codes, strict=True)
        ]


def train(out: Path, begin_with: Path, codes: Path, minutes: float, plan: LMTraining) -> Trainer:
    """Train for so many minutes, and leave a checkpoint and a log in `out`.

    begin_with: a run's checkpoint, or a model that ships. Each step hears a batch of clips as well, so that
    nothing else is forgotten; the learning rate falls along a cosine over the time.
    """
    box = runs.TimeBox(minutes)
    out.mkdir(parents=True, exist_ok=True)
    trainer = trainer_of(begin_with, plan) if begin_with.suffix == SUFFIX else opened(begin_with)
    trainer.plan = replace(plan, dim=trainer.plan.dim, n_heads=trainer.plan.n_heads, n_layers=trainer.plan.n_layers)
    model, begun = trainer.model, trainer.step
    learnt = copy.deepcopy(trainer.average).eval()
    texts, examples = Texts(trainer.tokenizer_json), Examples.read(codes, "train")
    tones = tones_of_codes(examples, trainer.config.lm.cardinality).to(trainer.device)
    clips = examples.batches(texts, plan.batch_size, begun)
    writing, kept = continued(model, examples, texts, plan.batch_size, begun), deque(maxlen=_KEPT)
    rng = np.random.default_rng(begun)
    path, log, means = out / CHECKPOINT, runs.Log(out / "keeping.csv"), runs.Means()
    while not box.over:
        if (trainer.step - begun) % _EVERY == 0:
            kept.extend(next(writing))
        losses = model(next(clips))
        far, shares = distance(model, learnt, kept[rng.integers(len(kept))], tones)
        heard = (losses.weighted * losses.weighted.new_tensor(CODE_WEIGHTS)).mean()
        rate = runs.learning_rate(
            plan.learning_rate, box.elapsed_s / 60 / minutes, trainer.step - begun, _WARM_UP_STEPS
        )
        norm = trainer.learn(heard + _WEIGHT * far, rate)
        means.add({"loss": losses.codebooks.mean().item(), "far": far.item(), **shares, "gradient": norm, "rate": rate})
        if trainer.step % _LOG_STEPS == 0:
            log.write({"step": trainer.step, "minutes": box.elapsed_s / 60, **means.taken()})
        if box.checkpoint_due():
            runs.save(path, trainer.state())
    runs.save(path, trainer.state())
    return trainer
