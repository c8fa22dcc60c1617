"""Trains the language model with its text encoder on the codes of clips, in as many sittings as one likes."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...musicgen.config import ModelConfig
from ...musicgen.lm import RowNoise
from .. import runs
from ..recipe import model_config
from .codes import read_codebooks
from .examples import Batch, Examples, without_melody, without_text
from .model import MusicGen
from .muon import Muon
from .rollouts import Rollouts
from .text import Texts, t5_table, train_tokenizer

CHECKPOINT = "lm.pt"
_WARM_UP_STEPS, _GRADIENT_NORM = 200, 1.0
_MUON_RATE, _SMALL = 2.5, 32  # Muon's learning rate over AdamW's; matrices narrower than this are left to AdamW
CODE_WEIGHTS = (1.8, 1.0, 0.7, 0.5)  # of the codebooks: the first ones carry the music, the last ones noise
# The beat is learnt first, and kept up with one lesson in so many steps.
_FIRST_LESSONS, _LESSON_EVERY = 600, 6
# From so many steps on, when its music is music, it writes some of its own now and then, and hears that too.
_OWN_FROM, _OWN_EVERY, _OWN_PIECES, _OWN_AT_LEAST = 6000, 150, 24, 72
_OWN_GUIDANCES = (3.0, 1.0)  # by turns: the mistakes differ
_LOG_STEPS, _MEASURE_S, _MEASURED_BATCHES = 25, 600.0, 6


@dataclass(frozen=True)
class LMTraining:
    """How to train. The learning rate falls along a cosine over `audio_hours`, and then stays at a twentieth."""

    dim: int = 192
    n_heads: int = 4
    n_layers: int = 6
    audio_hours: float = 44.0
    batch_size: int = 4
    learning_rate: float = 1.2e-3
    average: float = 0.998  # of the weights, per step; the average is what is shipped
    seed: int = 0


class Trainer:
    """A MusicGen in training, the running average of its weights, and how far it has come."""

    def __init__(self, config: ModelConfig, plan: LMTraining, tokenizer_json: str, device: torch.device) -> None:
        torch.manual_seed(plan.seed)  # the initialization of torch's own layers knows no other generator
        self.config, self.plan, self.tokenizer_json, self.device = config, plan, tokenizer_json, device
        self.model = MusicGen(config, t5_table(tokenizer_json)).to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        inside = [block.parameters() for block in (*self.model.lm.layers, self.model.text.t5.encoder.block)]
        matrices = {p for parameters in inside for p in parameters if p.ndim == 2 and min(p.shape) > _SMALL}
        others = [p for p in self.model.parameters() if p not in matrices]
        matrices = [p for p in self.model.parameters() if p in matrices]
        self.muon = Muon(matrices, lr=plan.learning_rate, weight_decay=0.05)
        self.adam = torch.optim.AdamW(others, lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        self.step, self.audio_s = 0, 0.0

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One batch -> its losses and the learning rate."""
        with self._autocast():
            made = self.model(batch)
        losses, rate = made.codebooks, self._learning_rate()
        norm = self.learn((made.weighted * losses.new_tensor(CODE_WEIGHTS)).mean() + made.auxiliary, rate)
        self.audio_s += batch.codes.shape[0] * batch.codes.shape[2] / self.config.codec.frame_rate_hz
        return {
            "loss": losses.mean().item(), **_by_codebook(losses), "auxiliary": made.auxiliary.item(),
            "pulses": made.pulses.item(), "jangdan": made.jangdan.item(), "gradient": norm, "rate": rate,
        }  # fmt: skip

    def lesson(self, batch: Batch) -> dict[str, float]:
        """One batch of `Examples.lessons` -> how much of it was known."""
        with self._autocast():
            made = self.model.lesson(batch)
        self.learn(made.auxiliary, self._learning_rate())
        return {"lesson": made.auxiliary.item(), "lesson_pulses": made.pulses.item()}

    def write(self, tasks: Sequence[Batch], seed: int, guidance: float) -> Tensor:
        """Codes [B, K, T] that the averaged weights write to B batches of one text, sampled as users do."""
        config = self.config.lm
        noise = RowNoise(seed, len(tasks), config.n_codebooks, config.cardinality)
        return self.average.eval().write(tasks, tasks[0].codes.shape[2], noise, guidance)

    @torch.no_grad()
    def measure(self, batches: list[Batch]) -> dict[str, float]:
        """Losses of the averaged weights, and by how much leaving out text or melody raises them."""
        self.average.eval()
        ways = {"loss": lambda b: b, "no_melody": without_melody, "no_text": without_text}
        result = {name: self._mean(batches, way) for name, way in ways.items()}
        codebooks, pulses, jangdan = result["loss"]
        return {
            "loss": codebooks.mean().item(), **_by_codebook(codebooks), "pulses": pulses, "jangdan": jangdan,
            **{name: (result[name][0] - codebooks).mean().item() for name in ("no_melody", "no_text")},
        }  # fmt: skip

    def state(self) -> dict:
        return {
            "plan": asdict(self.plan), "tokenizer": self.tokenizer_json, "step": self.step, "audio_s": self.audio_s,
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "adam": self.adam.state_dict(), "muon": self.muon.state_dict(),
        }  # fmt: skip

    def restore(self, table: Mapping) -> None:
        self.model.load_state_dict(table["model"])
        self.average.load_state_dict(table["average"])
        self.adam.load_state_dict(table["adam"])
        self.muon.load_state_dict(table["muon"])
        self.step, self.audio_s = table["step"], table["audio_s"]

    def _mean(self, batches: list[Batch], way) -> tuple[Tensor, float, float]:
        made = [self.average(way(batch)) for batch in batches]
        pulses, jangdan = (
            float(np.mean([getattr(losses, name).item() for losses in made])) for name in ("pulses", "jangdan")
        )
        return torch.stack([losses.codebooks for losses in made]).mean(dim=0), pulses, jangdan

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def learn(self, loss: Tensor, rate: float) -> float:
        """One step downhill; the norm of the gradient."""
        for optimizer, factor in ((self.adam, 1.0), (self.muon, _MUON_RATE)):
            for group in optimizer.param_groups:
                group["lr"] = factor * rate
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_NORM)
        self.adam.step()
        self.muon.step()
        self.step += 1
        self._follow()
        return norm.item()

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        for average, current in pairs:
            average.lerp_(current, 1 - keep)

    def _learning_rate(self) -> float:
        done = self.audio_s / (3600 * self.plan.audio_hours)
        return runs.learning_rate(self.plan.learning_rate, done, self.step, _WARM_UP_STEPS)


def train(out: Path, codes: Path, minutes: float, plan: LMTraining, resume: bool = False) -> Trainer:
    """Train for so many minutes on the shards in `codes`, and leave the checkpoint and a log in `out`.

    A resumed run keeps the sizes and the tokenizer that it began with, and reads what shards there are by now.
    """
    box = runs.TimeBox(minutes)
    out.mkdir(parents=True, exist_ok=True)
    path, log, measured = out / CHECKPOINT, runs.Log(out / "lm.csv"), runs.Log(out / "lm_held_out.csv")
    lesson_log = runs.Log(out / "lm_lessons.csv")
    trainer = opened(path) if resume and path.exists() else None
    if trainer is None:
        config = model_config(plan.dim, plan.n_heads, plan.n_layers)
        trainer = Trainer(config, plan, train_tokenizer(), runs.pick_device())
        for model in (trainer.model, trainer.average):
            model.know_codes(read_codebooks(codes))
    begun = trainer.plan
    trainer.plan = replace(plan, dim=begun.dim, n_heads=begun.n_heads, n_layers=begun.n_layers)
    texts = Texts(trainer.tokenizer_json)
    examples = Examples.read(codes, "train")
    rollouts, tasks, guidances = Rollouts(), examples.tasks(texts, trainer.step), itertools.cycle(_OWN_GUIDANCES)
    data = examples.batches(texts, plan.batch_size, trainer.step, rollouts)
    lessons = examples.lessons(texts, plan.batch_size, trainer.step, rollouts)
    check = Examples.read(codes, "held-out").fixed(texts, plan.batch_size, _MEASURED_BATCHES)
    begun_s, measured_s = trainer.audio_s, 0.0
    learnt, taught = runs.Means(), runs.Means()
    while not box.over:
        few = len(rollouts) < _OWN_AT_LEAST
        if trainer.step >= _OWN_FROM and (few or trainer.step % _OWN_EVERY == 0):
            labels, asked = zip(*itertools.islice(tasks, _OWN_PIECES), strict=True)
            rollouts.add(labels, trainer.write(asked, trainer.step + len(rollouts), next(guidances)).numpy())
        if trainer.step < _FIRST_LESSONS or trainer.step % _LESSON_EVERY == 0:
            taught.add(trainer.lesson(next(lessons)))
        else:
            learnt.add(trainer.train_step(next(data)))
        if trainer.step % _LOG_STEPS == 0:
            speed = (trainer.audio_s - begun_s) / box.elapsed_s
            for kept, means in ((log, learnt), (lesson_log, taught)):
                if row := means.taken():
                    kept.write({"step": trainer.step, "audio_h": trainer.audio_s / 3600, "speed": speed, **row})
        if box.checkpoint_due():
            runs.save(path, trainer.state())
        if box.elapsed_s - measured_s > _MEASURE_S:
            measured_s = box.elapsed_s
            measured.write({"step": trainer.step, "audio_h": trainer.audio_s / 3600, **trainer.measure(check)})
    runs.save(path, trainer.state())
    measured.write({"step": trainer.step, "audio_h": trainer.audio_s / 3600, **trainer.measure(check)})
    return trainer


def opened(path: Path) -> Trainer:
    """The trainer of a checkpoint."""
    table = runs.load(path)
    plan = LMTraining(**table["plan"])
    config = model_config(plan.dim, plan.n_heads, plan.n_layers)
    trainer = Trainer(config, plan, table["tokenizer"], runs.pick_device())
    trainer.restore(table)
    return trainer


def _by_codebook(losses: Tensor) -> dict[str, float]:
    return {f"loss{k}": value for k, value in enumerate(losses.tolist())}
