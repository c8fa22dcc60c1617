"""Trains the language model on the shards, in as many sittings as one likes, and puts everything into one file."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from ...musicgen.errors import InputError
from .. import runs
from ..export import write
from ..lm import scored_train
from ..lm.team import Team, together
from ..onegpu.recipe import MAX_BYTES
from ..onegpu.run import load_codec
from . import handed_on
from .codec import latest
from .codes import read
from .place import Place
from .recipe import Days

_LOG_STEPS, _MEASURE_S, _MEASURED_ROWS = 50, 1800.0, 8
# Times as sharp as learnt: a sample at temperature 1 is then one of 0.85. Of what is measured, that raised tempo, *no drums* and
# instruments most; 1.25 and 1.33 raised them no further. The commonest tone takes 0.42 of a solo's time, 0.36 as learnt, as in the
# synthesizer's, and 0.47 at 1.25.
_SHARPNESS = 1.18


def train(place: Place, days: Days, minutes: float, n_processes: int = 1) -> scored_train.Trainer:
    """Train until the minutes are over, the process is asked to end, or the model is done; goes on where it was.

    With the same shards and as many processes an interrupted run gives the weights of one that was not, to the bit.
    """
    result = together(n_processes, lambda team: _train(place, days, minutes, team))
    assert isinstance(result, scored_train.Trainer)
    return result


def _train(place: Place, days: Days, minutes: float, team: Team) -> scored_train.Trainer:
    box, device = runs.TimeBox(minutes), runs.pick_device()
    shelf, held_out = read(place, "train", device), read(place, "held-out", device)
    check, check_openings = (held_out.fixed(_MEASURED_ROWS, opening=n) for n in (0, days.opening_frames))
    trainer = begun(place, days, device, team)
    log, lessons = runs.Log(place.out / "lm.csv"), runs.Log(place.out / "lm_lessons.csv")
    log_openings = runs.Log(place.out / "lm_openings.csv")
    measured, means, taught, opened = runs.Log(place.out / "lm_held_out.csv"), runs.Means(), runs.Means(), runs.Means()
    first, measured_s, row_s = trainer.step, 0.0, days.lm_batch_s

    def measure() -> None:
        of_openings = trainer.measure(check_openings)
        told = {f"opening_{name}": of_openings[name] for name in ("loss", "no_text")}
        measured.write({"step": trainer.step, "audio_h": trainer.step * row_s / 3600, **trainer.measure(check), **told})

    so_far = Counter(days.kind(step) for step in range(trainer.step))
    plan, short = trainer.plan, replace(trainer.plan, batch_size=days.opening_batch)
    batches = {
        "clip": shelf.batches(plan, step=so_far["clip"]),
        "opening": shelf.batches(
            replace(short, seed=plan.seed + 1), step=so_far["opening"], opening=days.opening_frames
        ),
        "lesson": shelf.batches(replace(short, seed=plan.seed + 2), step=so_far["lesson"], timed=True),
    }
    while trainer.step < days.lm_steps and not team.any(box.over):
        done, kind = trainer.step / days.lm_steps, days.kind(trainer.step)
        batch = next(batches[kind])
        if kind == "lesson":
            told = trainer.lesson(batch, done, days.opening_frames)
            taught.add({name: value.item() for name, value in told.items()})
        else:
            losses = trainer.train_step(batch, done)
            row = {f"loss{k}": value for k, value in enumerate(losses.pop("codebooks").tolist())}
            row |= {name: value.item() for name, value in losses.items()}
            if kind == "opening":
                opened.add({f"opening_{name}": value for name, value in row.items()})
            else:
                means.add(row)
        if team.rank:
            continue  # the first process writes for all
        if trainer.step % _LOG_STEPS == 0:
            speed = (trainer.step - first) * row_s / max(box.elapsed_s, 1e-3)
            for kept, each in ((log, means), (log_openings, opened), (lessons, taught)):
                if row := each.taken():
                    kept.write({"step": trainer.step, "audio_h": trainer.step * row_s / 3600, "speed": speed, **row})
        if box.checkpoint_due():
            runs.save(place.lm, trainer.state())
        if box.elapsed_s - measured_s > _MEASURE_S:
            measured_s = box.elapsed_s
            measure()
    if team.rank:
        return trainer
    runs.save(place.lm, trainer.state())
    if trainer.step >= days.lm_steps:  # not when asked to end: who asks may not wait
        measure()
    return trainer


def begun(place: Place, days: Days, device: torch.device, team: Team | None = None) -> scored_train.Trainer:
    """The trainer of the checkpoint, else of the model that the checkout hands on, else a new one that knows the codec's codes.

    What is handed on must be of these sizes, this tokenizer and this codec; the moments of the optimizers begin anew.
    """
    codebooks = _codebooks(place)
    plan = scored_train.Plan(
        0.0,
        days.recipe.lm_batch,
        days.lm_rate,
        average=days.average,
        guesses_from=days.guesses_from,
        guessed=days.guessed,
    )
    trainer = scored_train.Trainer(days.recipe.model, plan, place.tokenizer(), device, codebooks, team)
    if place.lm.exists():
        table = runs.load(place.lm)
        if {k: v.shape for k, v in table["model"].items()} != {
            k: v.shape for k, v in trainer.model.state_dict().items()
        }:
            raise InputError(f"{place.lm} has other sizes than this recipe. Give another --out, or the same recipe.")
        trainer.restore(table)
        trainer.plan = plan
    elif (handed := handed_on.read()) and _fits(handed, trainer, codebooks):
        for model in (trainer.model, trainer.average):
            model.load_state_dict(handed.weights)
        trainer.step = handed.step
    return trainer


def hand_on(place: Place, days: Days, target: Path) -> None:
    """Write the averaged weights for `begun` on another machine. InputError before there is a checkpoint."""
    trainer = _checkpoint(place, days)
    handed_on.write(target, trainer.average.state_dict(), trainer.step, trainer.tokenizer_json, _codebooks(place))


def export(place: Place, days: Days, target: Path) -> Path:
    """The codec and the averaged weights as one file that the engine loads. InputError before there is a checkpoint."""
    trainer = _checkpoint(place, days)
    return write(latest(place, days), trainer.average, trainer.tokenizer_json, target, MAX_BYTES, _SHARPNESS)


def _checkpoint(place: Place, days: Days) -> scored_train.Trainer:
    trainer = begun(place, days, torch.device("cpu")) if place.frozen.exists() else None
    if trainer is None or trainer.step == 0:
        raise InputError(f"there is no language model in {place.out}. Train one: `days lm`.")
    return trainer


def _codebooks(place: Place) -> torch.Tensor:
    return torch.stack([layer.codebook.embed for layer in load_codec(place.frozen).quantizer.layers])


def _fits(handed: handed_on.HandedOn, trainer: scored_train.Trainer, codebooks: torch.Tensor) -> bool:
    shapes = {name: tensor.shape for name, tensor in trainer.model.state_dict().items()}
    return (
        {name: tensor.shape for name, tensor in handed.weights.items()} == shapes
        and handed.tokenizer_json == trainer.tokenizer_json
        and handed.codebooks == handed_on.digest(codebooks)
    )
