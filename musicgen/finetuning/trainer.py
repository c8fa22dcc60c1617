"""The loop: torch's optimizers and schedules over the training step; measured, kept, resumed."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import InputError
from ..memory import large_blocks_mapped
from ..outputs import atomic_file
from .batches import Window, batch, mixed
from .encoding import Encoded
from .loss import batch_loss, cell_logits, cell_losses, valid_cells
from .model import AtStrength, State, Trainable, padded, put_state, state_of
from .settings import TrainSettings

logger = logging.getLogger(__name__)

_BETAS, _EPS, _CLIP = (0.9, 0.99), 1e-8, 1.0
_A_COLUMN = (
    24  # activations of a layer that the backward pass needs, in widths of a column; the feed-forward's twice beside
)
_REMEMBERED_BYTES = 2**29  # of a clip, up to which activations are held instead of being computed again
_KEEP_S = 60.0  # between two checkpoints
_PATIENCE, _GAIN = 3, 0.005  # measurements without so many nats of gain end a training
_BAD_STEPS = 2  # updates in a row with a loss that is no number


@dataclass(frozen=True)
class Measurement:
    """Losses in nats a code after `step` updates."""

    step: int
    held_out: float
    foreign: float  # of other music, the base's own


@dataclass
class History:
    """What a training has been through."""

    losses: list[float] = field(default_factory=list)  # of each update
    measured: list[Measurement] = field(default_factory=list)
    best_step: int = 0
    stopped: str = ""  # why it ended before its last update
    took_s: float = 0.0  # over all sittings

    @property
    def base(self) -> Measurement:
        return self.measured[0]

    @property
    def best(self) -> Measurement:
        return next(one for one in self.measured if one.step == self.best_step)


class Watcher(Protocol):
    """Who follows a training."""

    def check(self) -> None:
        """Called many times a second; what it raises (Cancel) ends the training, whose checkpoint stays."""

    def updated(self, step: int, total: int, left_s: float, history: History) -> None:
        """After each update."""

    def sample_due(self, step: int, model: Trainable) -> None:
        """Every `sample_every` updates."""


@dataclass(frozen=True)
class Music:
    """What is learned, and what is measured."""

    learned: Sequence[Encoded]
    base: Sequence[Encoded]  # the base's own music, which is learned beside it
    held_out: Sequence[Window]
    foreign: Sequence[Window]
    n_frames: int  # of a window
    n_chroma: int  # of a melody


def clip_losses(model: Trainable, windows: Sequence[Window], check: Callable[[], None] | None = None) -> Tensor:
    """Mean loss of each window and codebook in nats, [n, K], of the model as it is, without dropout."""
    rows = []
    model.train(False)
    with torch.no_grad():
        for window in windows:
            losses, valid = _losses_of(model, window, window.codes.shape[-1], check)
            rows.append((losses.sum(dim=(0, 2)) / valid.sum(dim=(0, 2)).clamp(min=1)).cpu())
    model.train(True)
    return torch.stack(rows)


def _losses_of(
    model: Trainable, window: Window, n_frames: int, check: Callable[[], None] | None, keep: bool = False
) -> tuple[Tensor, Tensor]:
    """`cell_losses` of one window, padded to n_frames. keep: against the base's own probabilities, not against the codes."""
    codes, n_valid = padded([window.codes], model.config.lm.cardinality)
    codes = torch.nn.functional.pad(codes, (0, n_frames - codes.shape[-1]), value=model.config.lm.cardinality)
    codes, n_valid = codes.to(model.device), n_valid.to(model.device)
    stream = model.stream(window.states, window.chroma, window.drop_text)
    teacher = None
    if keep:
        with AtStrength(model, 0.0), torch.no_grad():
            own = model.stream(window.states, window.chroma, window.drop_text)
            teacher = cell_logits(model.lm, codes, [own], check=check)
    return cell_losses(model.lm, codes, n_valid, [stream], _remembers(model, n_frames), check, teacher)


def _remembers(model: Trainable, n_frames: int) -> bool:
    """Whether the activations of a clip are few enough to be held for the backward pass."""
    lm, melody = model.config.lm, model.config.melody
    n_columns = n_frames + (melody.n_frames if melody else 0)
    return lm.n_layers * n_columns * (_A_COLUMN * lm.dim + 2 * lm.ffn_dim) * 4 <= _REMEMBERED_BYTES


def schedule(settings: TrainSettings, step: int) -> float:
    """Factor of the learning rate at update `step`, from 0."""
    if step < settings.warmup:
        return (step + 1) / (settings.warmup + 1)
    after, total = step - settings.warmup, max(1, settings.updates - settings.warmup)
    share = min(1.0, after / total)
    if settings.lr_scheduler == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    if settings.lr_scheduler == "polynomial_decay":
        return 1 - share
    if settings.lr_scheduler == "inverse_sqrt":
        return (max(1, settings.warmup) / max(1, settings.warmup + after)) ** 0.5
    if settings.lr_scheduler == "exponential":
        return 0.01**share
    return 1.0  # linear_warmup


def _optimizer(settings: TrainSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, settings.lr, _BETAS, _EPS, settings.weight_decay)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, settings.lr, _BETAS, _EPS)
    return torch.optim.SGD(parameters, settings.lr, momentum=0.9)


class Trainer:
    """One training, from its beginning or from its checkpoint, in `folder`.

    Everything drawn by chance is drawn from the seed and the number of the update, so a training that is killed and goes on ends
    with the weights, bit for bit, of one that was not (on one machine, with as many threads).
    """

    def __init__(
        self, model: Trainable, music: Music, settings: TrainSettings, folder: Path | None, identity: str
    ) -> None:
        self.model, self.music, self.settings, self._identity = model, music, settings, identity
        self._path = None if folder is None else folder / "checkpoint.pt"
        self.history = History()
        self.step = 0
        self._best: State = {}
        self._parameters = list(model.parameters().values())
        self._optimizer = _optimizer(settings, self._parameters)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: schedule(settings, step))
        self._kept_at_s = time.monotonic()
        self.resumed = self._resume()

    def run(self, watcher: Watcher) -> History:
        """`_run`, large models with blocks that do not stay behind in the process."""
        with contextlib.nullcontext() if _remembers(self.model, self.music.n_frames) else large_blocks_mapped():
            return self._run(watcher)

    def _run(self, watcher: Watcher) -> History:
        """Train to the end, and leave the model as it was when it was measured best.

        What `watcher` raises ends it after a checkpoint is written, with which the next run of the same training goes on.
        """
        model, settings, history = self.model, self.settings, self.history
        model.train(True)
        begun_s, begun_step, before_s = time.monotonic(), self.step, history.took_s
        try:
            if not history.measured:
                self._measure(watcher)
            while self.step < settings.updates and not history.stopped:
                self._update(watcher)
                history.took_s = before_s + time.monotonic() - begun_s
                a_step_s = (time.monotonic() - begun_s) / (self.step - begun_step)
                if self.step % settings.measure_every == 0 or self.step == settings.updates:
                    self._measure(watcher)
                watcher.updated(self.step, settings.updates, a_step_s * (settings.updates - self.step), history)
                if settings.sample_every and self.step % settings.sample_every == 0 and self.step < settings.updates:
                    watcher.sample_due(self.step, model)
                if time.monotonic() - self._kept_at_s > _KEEP_S:
                    self.keep()
        finally:
            self._optimizer.zero_grad(set_to_none=True)
            self.keep()
        if self._best:
            put_state(model, self._best)
        model.train(False)
        return history

    def _update(self, watcher: Watcher) -> None:
        """One update; nothing of it has happened yet where `watcher` raises."""
        settings, model, music = self.settings, self.model, self.music
        windows = batch(
            music.learned, music.base, self.step, settings.seed, settings.batch_size, music.n_frames, music.n_chroma,
            settings.cfg_p, settings.keep_base,
        )  # fmt: skip
        n_frames = max(window.codes.shape[-1] for window in windows)
        lengths = torch.tensor([window.codes.shape[-1] for window in windows])
        n_cells = valid_cells(lengths, n_frames, model.config.lm.delays).sum(dim=(0, 2)).to(model.device)
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # dropout's; the program's own generator goes on as if nothing was drawn
            torch.manual_seed(mixed(settings.seed ^ 0x5EED, self.step))
            for window in windows:
                keep = window.by_base and bool(model.adapters)
                losses, _ = _losses_of(model, window, n_frames, watcher.check, keep)
                loss = batch_loss(losses, n_cells)
                loss.backward()
                total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, _CLIP)
        if math.isfinite(total) and bool(torch.isfinite(norm)):
            self._optimizer.step()
            self._schedule.step()
        else:
            logger.warning("update %d was skipped: its loss is no number", self.step + 1)
        self.history.losses.append(total)
        self.step += 1
        if self.step >= _BAD_STEPS and not any(map(math.isfinite, self.history.losses[-_BAD_STEPS:])):
            self.history.stopped = f"the loss of {_BAD_STEPS} updates in a row is no number: lower the learning rate"

    def _measure(self, watcher: Watcher) -> None:
        held_out = float(clip_losses(self.model, self.music.held_out, watcher.check).mean())
        foreign = (
            float(clip_losses(self.model, self.music.foreign, watcher.check).mean()) if self.music.foreign else 0.0
        )
        history, allowed = self.history, self.settings.max_forgetting
        history.measured.append(Measurement(self.step, held_out, foreign))
        rise = foreign / history.base.foreign - 1 if history.base.foreign else 0.0
        if self.step == 0 or (held_out < history.best.held_out and (not allowed or rise <= allowed)):
            history.best_step, self._best = self.step, state_of(self.model)
        recent = history.measured[-_PATIENCE:]
        before = history.measured[:-_PATIENCE]
        if allowed and before and all(one.foreign / history.base.foreign - 1 > allowed for one in recent):
            history.stopped = (
                f"other music is forgotten by {100 * rise:.1f} %, more than the {100 * allowed:g} % allowed"
            )
        elif before and min(one.held_out for one in recent) > min(one.held_out for one in before) - _GAIN:
            history.stopped = f"nothing was gained in {_PATIENCE * self.settings.measure_every} updates"

    def keep(self) -> None:
        """Write the checkpoint. Nothing without a folder."""
        self._kept_at_s = time.monotonic()
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        table = {
            "identity": self._identity, "step": self.step, "weights": state_of(self.model), "best": self._best,
            "optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict(), "history": asdict(self.history),
        }  # fmt: skip
        with atomic_file(self._path) as file:
            torch.save(table, file)

    def _resume(self) -> bool:
        if self._path is None or not self._path.is_file():
            return False
        try:
            table: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
            if table["identity"] != self._identity:
                logger.warning("%s is of another training (settings, music or base), and begun anew", self._path)
                return False
            put_state(self.model, table["weights"])
            self._optimizer.load_state_dict(table["optimizer"])
            self._schedule.load_state_dict(table["schedule"])
            kept = table["history"]
            measured = [Measurement(**one) for one in kept.pop("measured")]
            self.history, self.step, self._best = History(measured=measured, **kept), table["step"], table["best"]
        except Exception as error:  # a damaged file fails in many ways
            raise InputError(f"{self._path} is damaged ({error}). Remove it to begin the training anew.") from error
        return True
