"""Codes, chroma, scores and token ids of clips, written once into shards by several processes, and read back as a Shelf."""

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...musicgen.codec import Codec
from ...musicgen.errors import InputError
from .. import runs
from ..data.render import Synthesizer
from ..lm.scored_train import Shelf
from ..onegpu.clips import Clips, encoder, made
from ..onegpu.feed import coded
from ..onegpu.recipe import N_FRAME_TARGETS, N_TEXT_TARGETS
from ..onegpu.run import load_codec
from .place import Place
from .recipe import Days

_FIELDS = [field.name for field in fields(Shelf)]
Synthesize = Callable[[], Synthesizer | None]


def write(place: Place, days: Days, minutes: float, synthesize: Synthesize, n_processes: int = 2) -> int:
    """Code all clips of the recipe by the frozen codec; shards that are there stay as they are. How many there are then.

    A process that is asked to end (SIGTERM) leaves the shard that it has begun.
    """
    place.codes.mkdir(parents=True, exist_ok=True)
    place.tokenizer()
    box = runs.TimeBox(minutes)
    if n_processes == 1:
        _work(place, days, box, synthesize, (0, 1))
        return len(existing(place, "train"))
    context = multiprocessing.get_context("fork")
    parts = [
        context.Process(target=_child, args=(place, days, box, synthesize, (i, n_processes)))
        for i in range(n_processes)
    ]
    for part in parts:
        part.start()
    while any(part.is_alive() for part in parts):
        time.sleep(0.2)
        if box.over:
            for part in parts:
                part.terminate()
            break
    for part in parts:
        part.join()
    if any(part.exitcode for part in parts):
        raise InputError(
            "a process that codes clips has failed: its message is above. Mend it and run this step again."
        )
    return len(existing(place, "train"))


def existing(place: Place, split: str) -> list[Path]:
    return sorted(place.codes.glob(f"{split}-*.npz"))


def read(place: Place, split: str, device: torch.device) -> Shelf:
    """All shards of a split that are there. InputError if there are none, or if they answer other questions than are asked."""
    paths = existing(place, split)
    if not paths:
        raise InputError(f"there are no {split} codes in {place.codes}. Make them: `days codes`.")
    parts = []
    for path in paths:
        with np.load(path) as file:
            columns = {name: file[name] for name in _FIELDS}
        if columns["texts"].shape[-1] != N_TEXT_TARGETS or columns["frames"].shape[1] != N_FRAME_TARGETS:
            raise InputError(
                f"{path} was made for other questions than are asked today. Delete {place.codes}, and code again."
            )
        lengths = columns.pop("lengths")
        parts.append(Shelf(**{k: torch.from_numpy(v).to(device) for k, v in columns.items()}, lengths=lengths))
    return Shelf.joined(parts)


def _child(place: Place, days: Days, box: runs.TimeBox, synthesize: Synthesize, part: tuple[int, int]) -> None:
    """A forked process has the box's signal handlers too. One thread each: those of the parent do not survive a fork."""
    torch.set_num_threads(1)
    _work(place, days, box, synthesize, part)


def _work(place: Place, days: Days, box: runs.TimeBox, synthesize: Synthesize, part: tuple[int, int]) -> None:
    recipe, size = days.recipe, days.shard_clips
    wanted = [("held-out", n) for n in range(-(-recipe.n_held_out // size))]
    wanted += [("train", n) for n in range(-(-recipe.n_clips // size))]
    missing = [(split, n) for split, n in wanted[part[0] :: part[1]] if not place.shard(split, n).exists()]
    if not missing:
        return
    synthesizer, codec, encode = synthesize(), load_codec(place.frozen), encoder(place.tokenizer())
    for done, (split, number) in enumerate(missing, start=1):
        shelf = _shard(days, split, number, synthesizer, codec, encode, box)
        if shelf is None:
            return
        _save(place.shard(split, number), shelf)
        speed = done * size * recipe.clip_length / recipe.codec.sample_rate_hz / max(box.elapsed_s, 1e-3)
        print(f"{split} shard {number}: {done} of {len(missing)}, {speed:.1f} s of audio a second", flush=True)


def _shard(
    days: Days, split: str, number: int, synthesizer: Synthesizer | None, codec: Codec, encode, box: runs.TimeBox
) -> Shelf | None:
    """A shard's clips; None if the time is over before."""
    clips = Clips(replace(days.recipe, n_clips=days.shard_clips))
    for i in range(days.shard_clips):
        if box.over:
            return None
        clips.fill(i, made(days.recipe, split, number * days.shard_clips + i, synthesizer), encode)
    batch, parts = days.recipe.encode_batch, []
    for rows in np.split(np.arange(days.shard_clips), range(batch, days.shard_clips, batch)):
        if box.over:
            return None
        parts.append(coded(clips, codec, rows, torch.device("cpu")))
    return Shelf.joined(parts)


def _save(path: Path, shelf: Shelf) -> None:
    columns: dict[str, Any] = {name: np.asarray(getattr(shelf, name)) for name in _FIELDS}
    draft = path.with_suffix(f".{os.getpid()}.part")
    with open(draft, "wb") as file:
        np.savez_compressed(file, **columns)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
