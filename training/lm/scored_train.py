"""Trains the language model on one GPU, on codes that lie in its memory, within a time box."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...musicgen.config import ModelConfig
from .. import runs
from ..recipe import CODEC, MELODY_RADIX2
from .muon import Muon
from .scored import FRAME_TARGETS, REST, TEXT_TARGETS, UNKNOWN, ScoredBatch, ScoredMusicGen, later
from .team import Team
from .text import t5_table
from .worn import drifts, spans, wrong_tones

CODE_WEIGHTS = (1.6, 1.0, 0.8, 0.6)  # of the codebooks: the first ones carry the music, the last ones noise
_GRADIENT_NORM, _WARM_UP_STEPS, _SMALL = 1.0, 100, 32
# Chances of what a clip is conditioned on. Openings have texts and no rows; clips with neither are what guidance needs.
_BOTH, _TEXT_ONLY, _ROWS_ONLY = 0.42, 0.4, 0.06
# Of a chord model, as the authors of musicgen-chord have it: all is left out in a fifth of the rows, the chords alone in half of the
# others. Source: `sakemin/cog-musicgen-chord`, config/conditioner/chord2music.yaml.
_CHORD_BOTH, _CHORD_TEXT_ONLY, _CHORD_ROWS_ONLY = 0.4, 0.4, 0.0
_SCORE, _MIX = 0.35, 0.45  # chances that the rows are the score's melody, the mix's chroma; otherwise the chords
_OPENING_ROWS = 0.35  # chance that an opening has the score's melody as well: without a past, it alone tells the tones
_EMPTY = 0.02  # chance of an empty text
_NO_TEXT = 0.1  # chance that an opening's text is left out
_PHASE, _BEAT, _TONE = (list(FRAME_TARGETS).index(name) for name in ("phase", "beat", "tone"))
_TEMPO = list(TEXT_TARGETS).index("tempo")
_FRAMES_A_ROW = 2**MELODY_RADIX2 // 4 / CODEC.hop
# Chance that whole clips are seen from a multiple of so many frames and rows in their first half on, as windows of a longer piece.
_WITHIN, _LATER_FRAMES, _LATER_ROWS = 0.4, 32, 5


@dataclass(frozen=True)
class Plan:
    """How to train; times are seconds, shares are of the time box."""

    seconds: float
    batch_size: int = 160
    learning_rate: float = 2.0e-3
    muon_rate: float = 2.0  # Muon's learning rate over AdamW's
    average: float = 0.998  # of the weights, per step; the average is what is shipped
    guesses_from: float = 0.5
    guessed: float = 0.2  # share of the rows that see the model's guesses
    seed: int = 0
    chords: bool = False  # a chord model: its rows are the score's chords, and nothing else


@dataclass(frozen=True)
class Shelf:
    """N clips as the language model is taught them, on its device."""

    codes: Tensor  # [N, K, T] int16
    chords: Tensor  # [N, F] int16 bits of the pitch classes
    mix: Tensor  # [N, F] uint8 strongest pitch class of the audio
    frames: Tensor  # [N, targets, T] uint8
    ids: Tensor  # [N, V, W] int16 tokens of V texts, padded
    lengths: np.ndarray  # [N, V]
    texts: Tensor  # [N, V, targets] uint8

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def joined(cls, shelves: "Sequence[Shelf]") -> "Shelf":
        """One after another."""
        names = [field.name for field in fields(cls)]
        columns = [[getattr(shelf, name) for shelf in shelves] for name in names]
        joined: list[Any] = [np.concatenate(c) if isinstance(c[0], np.ndarray) else torch.cat(c) for c in columns]
        return cls(*joined)

    def batches(
        self,
        plan: Plan,
        grow: "Callable[[Shelf], Shelf] | None" = None,
        step: int = 0,
        opening: int = 0,
        timed: bool = False,
    ) -> Iterator[ScoredBatch]:
        """Endless; every clip with one of its texts before any comes again; texts of a batch have one length.

        grow: gives the shelf with what came since, before each round. step: number of the first batch; a batch follows from
        its number and the clips, so that a run goes on as if it had not been interrupted. opening: frames of `openings`;
        0 = whole clips. timed: of each clip's texts one that names the tempo, if any does.
        """
        rng = np.random.default_rng(plan.seed)
        number = 0
        waiting: dict[int, list[np.ndarray]] = {}
        while True:
            self = grow(self) if grow else self
            order = rng.permutation(len(self))
            liking = rng.random(self.lengths.shape)
            if timed:
                liking += (self.texts[..., _TEMPO] != UNKNOWN).cpu().numpy()
            variants = liking.argmax(axis=1)[order]
            lengths = self.lengths[order, variants]
            empty = rng.random(len(order)) < _EMPTY
            lengths = np.where(empty, 0, lengths)
            ready = []
            for n in np.unique(lengths):
                at = np.flatnonzero(lengths == n)
                rows = np.stack([order[at], variants[at]], axis=1)
                rows = np.concatenate([*waiting.pop(int(n), []), rows])
                whole = len(rows) // plan.batch_size * plan.batch_size
                ready += [(int(n), part) for part in np.split(rows[:whole], whole // plan.batch_size)] if whole else []
                if whole < len(rows):
                    waiting[int(n)] = [rows[whole:]]
            for i in rng.permutation(len(ready)):
                n, rows = ready[i]
                if number >= step:
                    rng_of_batch = np.random.default_rng([plan.seed, number])
                    if opening:
                        yield self.openings(rows[:, 0], rows[:, 1], n, rng_of_batch, plan.chords, opening)
                    else:
                        batch = self.batch(rows[:, 0], rows[:, 1], n, rng_of_batch, plan.chords)
                        within = not timed and rng_of_batch.random() < _WITHIN
                        most = self.codes.shape[2] // 2 // _LATER_FRAMES if within else 0
                        steps = int(rng_of_batch.integers(1, most + 1)) if most else 0
                        yield later(batch, steps * _LATER_FRAMES, steps * _LATER_ROWS) if steps else batch
                number += 1

    def fixed(self, batch_size: int, chords: bool = False, n_batches: int = 4, opening: int = 0) -> list[ScoredBatch]:
        """A few batches to measure by, of the commonest lengths of text. opening: frames of `openings`; 0 = whole clips."""
        lengths, counts = np.unique(self.lengths[:, 0], return_counts=True)
        result = []
        for n in lengths[np.argsort(-counts, kind="stable")][:n_batches]:
            at = np.flatnonzero(self.lengths[:, 0] == n)[:batch_size]
            variants = np.zeros(len(at), int)
            if opening:
                batch = self.openings(at, variants, int(n), np.random.default_rng(0), chords, opening)
                result.append(replace(batch, with_text=torch.ones_like(batch.with_text)))
            else:
                result.append(self.batch(at, variants, int(n), None, chords))
        return result

    def batch(
        self, clips: np.ndarray, variants: np.ndarray, n: int, rng: np.random.Generator | None, chords: bool = False
    ) -> ScoredBatch:
        """n: tokens of each text; 0: none. rng None: nothing is left out, and the rows are the score's melody, or chords."""
        device = self.codes.device
        index, variant = (torch.from_numpy(x).to(device) for x in (clips, variants))
        n_rows = len(clips)
        kind = np.zeros(n_rows, int)
        source = np.zeros(n_rows, int)
        if rng:
            chances = np.array([_BOTH, _TEXT_ONLY, _ROWS_ONLY])
            if chords:
                chances = np.array([_CHORD_BOTH, _CHORD_TEXT_ONLY, _CHORD_ROWS_ONLY])
            kind = rng.choice(4, size=n_rows, p=[*chances, 1 - chances.sum()])
            source = rng.choice(3, size=n_rows, p=[_SCORE, _MIX, 1 - _SCORE - _MIX])
        with_text = (kind < 2) & (n > 0)
        with_rows = (kind == 0) | (kind == 2)
        if chords:
            rows = self._chord_rows(index)
        else:
            rows = self._rows(index, torch.from_numpy(np.where(with_rows, source, 3)).to(device), rng)
        ids = self.ids[index, variant, :n].long() if n else torch.ones(n_rows, 1, dtype=torch.long, device=device)
        return ScoredBatch(
            self.codes[index].long(), rows, ids, torch.from_numpy(with_text).float().to(device),
            self.frames[index].long(), self.texts[index, variant].long(),
            spans(with_rows, self.codes.shape[2], rng).to(device) if rng else None,
            torch.from_numpy(with_rows).float().to(device) if chords else None,
            drifts(with_text & self._timed(index, variant), self.codes.shape[2], rng).to(device) if rng else None,
        )  # fmt: skip

    def openings(
        self, clips: np.ndarray, variants: np.ndarray, n: int, rng: np.random.Generator, chords: bool, n_frames: int
    ) -> ScoredBatch:
        """The `n_frames` frames of each clip from one of its bar lines on, with its text and, at times, its melody.

        Within a clip nearly all follows from the frames before: of whole clips a model learnt in 56 hours that a text is worth
        0.004 nats a code. Where the past is short, the text is what tells.
        """
        device, n_rows = self.codes.device, len(clips)
        index, variant = (torch.from_numpy(x).to(device) for x in (clips, variants))
        phase, beat = self.frames[index][:, _PHASE], self.frames[index][:, _BEAT]
        begins = (phase == 0) & (beat == 0)
        begins[:, 1:] &= phase[:, :-1] != 0
        begins[:, 0] = True
        begins = begins[:, : begins.shape[1] - n_frames + 1].cpu().numpy()
        first = torch.tensor([rng.choice(np.flatnonzero(row)) for row in begins], device=device)
        at = first[:, None] + torch.arange(n_frames, device=device)
        codes, frames = (
            table.gather(2, at[:, None].expand(-1, table.shape[1], -1)).long()
            for table in (self.codes[index], self.frames[index])
        )
        with_text = (rng.random(n_rows) >= _NO_TEXT) & (n > 0)
        ids = self.ids[index, variant, :n].long() if n else torch.ones(n_rows, 1, dtype=torch.long, device=device)
        if chords:
            rows = torch.zeros(n_rows, self.mix.shape[1], 12, device=device)
        else:
            told = torch.from_numpy(rng.random(n_rows) < _OPENING_ROWS).to(device)
            rows = _one_hot(torch.where(told[:, None], wrong_tones(self._melody(index, first), rng), REST))
        without = torch.zeros(n_rows, device=device) if chords else None
        return ScoredBatch(
            codes, rows, ids, torch.from_numpy(with_text).float().to(device), frames, self.texts[index, variant].long(), None, without,
            drifts(with_text & self._timed(index, variant), n_frames, rng).to(device),
        )  # fmt: skip

    def _timed(self, index: Tensor, variant: Tensor) -> np.ndarray:
        """[B] whether the texts name the tempo."""
        return (self.texts[index, variant, _TEMPO] != UNKNOWN).cpu().numpy()

    def _melody(self, index: Tensor, first: Tensor) -> Tensor:
        """[B, F] pitch class of the score's melody where each chroma frame has its middle, from frame `first` on; 12: it rests.

        Rows taken half a chroma frame earlier would have a model write each tone later than the rows have it.
        """
        tones, n_rows = self.frames[index][:, _TONE].long(), self.mix.shape[1]
        at = first[:, None] + (torch.arange(n_rows, device=index.device) * _FRAMES_A_ROW).round().long()
        return torch.where(at < tones.shape[1], tones.gather(1, at.clamp(max=tones.shape[1] - 1)), REST).clamp(max=REST)

    def _chord_rows(self, index: Tensor) -> Tensor:
        """[B, F, 12] of 0 and 1: the notes of the score's chords. A single note is no chord, but pansori's melody: no notes."""
        bits = (self.chords[index].long()[..., None] >> torch.arange(12, device=index.device)) & 1
        return (bits * (bits.sum(dim=-1, keepdim=True) > 1)).float()

    def _rows(self, index: Tensor, source: Tensor, rng: np.random.Generator | None) -> Tensor:
        """[B, F, 12] by source: 0 melody, 1 mix, 2 chords, 3 nothing. rng: of the wrong tones in the melody; None: none."""
        melody = self._melody(index, torch.zeros_like(index))
        melody = wrong_tones(melody, rng) if rng else melody
        single = torch.where(source[:, None] == 0, melody, self.mix[index].long())
        one_hot = _one_hot(torch.where(source[:, None] == 3, REST, single))
        bits = (self.chords[index].long()[..., None] >> torch.arange(12, device=melody.device)) & 1
        bits[..., 0] |= bits.sum(dim=-1) == 0
        return torch.where((source == 2)[:, None, None], bits.float(), one_hot)


class Trainer:
    """A ScoredMusicGen in training and the running average of its weights."""

    def __init__(
        self, config: ModelConfig, plan: Plan, tokenizer_json: str, device: torch.device, codebooks: Tensor,
        team: Team | None = None,
    ) -> None:  # fmt: skip
        torch.manual_seed(plan.seed)  # the initialization of torch's own layers knows no other generator
        self.config, self.plan, self.tokenizer_json, self.device = config, plan, tokenizer_json, device
        self.team = team or Team()
        model = ScoredMusicGen(config, t5_table(tokenizer_json))
        model.know_codes(codebooks)
        self.model = model.to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        inside = [block.parameters() for block in (*self.model.lm.layers, self.model.text.t5.encoder.block)]
        chosen = {p for parameters in inside for p in parameters if p.ndim == 2 and min(p.shape) > _SMALL}
        matrices = [p for p in self.model.parameters() if p in chosen]
        others = [p for p in self.model.parameters() if p not in chosen]
        self.muon = Muon(matrices, lr=plan.learning_rate, weight_decay=0.05)
        self.adam = torch.optim.AdamW(others, lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        self.step, self.elapsed_s = 0, 0.0

    def state(self) -> dict:
        """What `restore` goes on from, to the bit."""
        return {
            "plan": asdict(self.plan), "tokenizer": self.tokenizer_json, "step": self.step, "elapsed_s": self.elapsed_s,
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "adam": self.adam.state_dict(), "muon": self.muon.state_dict(),
        }  # fmt: skip

    def restore(self, table: Mapping) -> None:
        """The run of `state`, its plan included."""
        self.plan = Plan(**table["plan"])
        for name in ("model", "average", "adam", "muon"):
            getattr(self, name).load_state_dict(table[name])
        self.step, self.elapsed_s = table["step"], table["elapsed_s"]

    def train_step(self, batch: ScoredBatch, done: float) -> dict[str, Tensor]:
        """One batch at the share `done` of the time box -> losses, which are not waited for."""
        self._set_rate(done)
        guessed = int(self.plan.guessed * len(batch.codes)) if done >= self.plan.guesses_from else 0
        batch, guessed = self.team.part(batch, guessed)
        with self._autocast():
            made = self.model(batch, guessed, self._generator())
        weights = made["codebooks"].new_tensor(CODE_WEIGHTS[: len(made["codebooks"])])
        norm = self._learn((made["codebooks"] * weights).mean() + made["auxiliary"])
        return {name: value.detach() for name, value in {**made, "norm": norm}.items()}

    def lesson(self, batch: ScoredBatch, done: float, n_frames: int) -> dict[str, Tensor]:
        """One batch of which no code is shown: what of the beat, the drums and the chords follows from text and rows.

        Asked of `n_frames` frames anywhere in the clips. Taught the first 125 alone, a model lost the beat after them.
        """
        self._set_rate(done)
        batch, _ = self.team.part(batch, 0)
        total = batch.frames.shape[2]
        columns = torch.randperm(total, device=self.device, generator=self._generator())[:n_frames].sort().values
        with self._autocast():
            made = self.model.lesson(batch, columns)
        self._learn(made["auxiliary"])
        return {f"lesson_{name}": value.detach() for name, value in made.items()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=runs.computes_bfloat16(self.device))

    def _generator(self) -> torch.Generator:
        """Of what is drawn in this step."""
        return torch.Generator(self.device).manual_seed(self.plan.seed + (self.step << 16))

    def _set_rate(self, done: float) -> None:
        rate = self.plan.learning_rate * learning_rate(done, self.step)
        for optimizer, factor in ((self.adam, 1.0), (self.muon, self.plan.muon_rate)):
            for group in optimizer.param_groups:
                group["lr"] = factor * rate

    def _learn(self, loss: Tensor) -> Tensor:
        """One step downhill; the norm of the gradient."""
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        self.team.mean(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_NORM)
        self.adam.step()
        self.muon.step()
        self.step += 1
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            lerp = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]  # has no other name
            lerp(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)
        return norm

    @torch.no_grad()
    def measure(self, batches: list[ScoredBatch]) -> dict[str, float]:
        """Losses of the averaged weights: as they are, without rows, without text, with the rows of another clip."""
        ways = {"loss": lambda b: b, "no_rows": _without_rows, "no_text": _without_text, "other_rows": _with_other_rows}
        result: dict[str, float] = {}
        for name, way in ways.items():
            made = [self.average(way(batch)) for batch in batches]
            result[name] = float(torch.stack([m["codebooks"].mean() for m in made]).mean())
            if name == "loss":
                for part in ("phase", "beat"):
                    result[part] = float(torch.stack([m[part] for m in made]).mean())
        return result


def train(
    trainer: Trainer, batches: Iterator[ScoredBatch], check: list[ScoredBatch], log: Callable[[dict[str, float]], None],
    log_s: float = 15.0, limit_s: float = float("inf"), checkpoint: Path | None = None,
) -> None:  # fmt: skip
    """Steps until the plan's time is over, that of earlier sittings included, or `limit_s` of this one.

    checkpoint: the file that `Trainer.restore` goes on from, written every few minutes and at the end.
    """
    begun = logged = saved = time.monotonic()
    before_s = trainer.elapsed_s
    while trainer.elapsed_s < trainer.plan.seconds and time.monotonic() - begun < limit_s:
        losses = trainer.train_step(next(batches), trainer.elapsed_s / trainer.plan.seconds)
        trainer.elapsed_s = before_s + time.monotonic() - begun
        if checkpoint is not None and time.monotonic() - saved > runs.CHECKPOINT_S:
            saved = time.monotonic()
            runs.save(checkpoint, trainer.state())
        if time.monotonic() - logged > log_s or trainer.step == 1:
            logged = time.monotonic()
            row = {f"loss{k}": value for k, value in enumerate(losses.pop("codebooks").tolist())}
            row |= {name: value.item() for name, value in losses.items()}
            log({"step": trainer.step, "elapsed_s": trainer.elapsed_s, **row, **_prefixed(trainer.measure(check))})
    if checkpoint is not None:
        runs.save(checkpoint, trainer.state())


def learning_rate(done: float, step: int) -> float:
    """Share of the peak: rises over the first steps, holds, falls in the last 70 % of the time box to a fiftieth."""
    falling = max(0.0, (min(done, 1.0) - 0.3) / 0.7)
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * max(0.02, 1 - falling)


def _one_hot(tones: Tensor) -> Tensor:
    """[..., 12] float; of rests, bin 0."""
    return nn.functional.one_hot(torch.where(tones == REST, 0, tones), 12).float()


def _without_rows(batch: ScoredBatch) -> ScoredBatch:
    if batch.with_rows is not None:
        return replace(batch, with_rows=torch.zeros_like(batch.with_rows))
    rows = torch.zeros_like(batch.rows)
    rows[..., 0] = 1
    return replace(batch, rows=rows)


def _with_other_rows(batch: ScoredBatch) -> ScoredBatch:
    return replace(batch, rows=batch.rows.roll(1, dims=0))


def _without_text(batch: ScoredBatch) -> ScoredBatch:
    return replace(batch, with_text=torch.zeros_like(batch.with_text))


def _prefixed(row: dict[str, float]) -> dict[str, float]:
    return {f"held_out_{name}": value for name, value in row.items()}
