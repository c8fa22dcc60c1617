"""`python -m training onegpu`: everything on one GPU, in two stages that can be two commands: codec, then lm."""

import json
import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...musicgen.codec import Codec
from ..codec import adversarial
from ..data import instruments, pieces, songs, songwords, words
from ..data.render import Synthesizer
from ..export import write
from ..lm import beat_tracker, scored_train
from ..lm.scored_train import Shelf
from ..lm.text import train_tokenizer
from ..recipe import CLIP_S
from .clips import Clips, encoder, summary
from .feed import Feed, Growth
from .figures import codec_figures, judged_codes, samples
from .recipe import MAX_BYTES, N_TEXTS, VOCABULARY, Recipe

logger = logging.getLogger(__name__)
PART_BYTES = 15_000_000  # of the files that come back
_ENCODE_S, _FINISH_S = (
    50.0,
    80.0,
)  # kept for codes at the end of the first stage, for export and music at the end of the second


@dataclass(frozen=True)
class Place:
    """Where things are."""

    assets: Path  # music.sf3, lib/, tokenizer.json
    work: Path  # what the second stage needs of the first
    out: Path  # what comes back


class Log:
    """JSON lines with the time since the start, printed and kept."""

    def __init__(self, path: Path, begun: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._begun = path, begun

    def __call__(self, **row: object) -> None:
        row = {"t": round(time.monotonic() - self._begun, 1), **{k: _short(v) for k, v in row.items()}}
        line = json.dumps(row, ensure_ascii=False)
        print(line, flush=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def codec_stage(recipe: Recipe, place: Place, minutes: float, n_processes: int, device: torch.device) -> None:
    """Render, train the codec, code all clips: leaves codec.pt and shelves.pt in `place.work`, and the codec in `place.out`."""
    begun = time.monotonic()
    log = Log(place.out / "log-codec.jsonl", begun)
    place.work.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(place, log)
    clips = Clips(recipe, n_held_out=recipe.n_held_out)
    clips.start(lambda: _synthesizer(recipe, place, log), encoder(tokenizer), n_processes)
    log(event="rendering", processes=n_processes)
    try:
        _prepare(device)
        feed = Feed(clips, device)
        clips.wait(recipe.first_clips, 120.0)
        n = feed.take()
        log(event="first clips", **summary(clips))
        if n <= recipe.n_held_out:
            raise RuntimeError(f"{n} clips were rendered in two minutes, of which {recipe.n_held_out} are held out")
        reserve = min(_ENCODE_S, 0.25 * 60 * minutes)
        plan = adversarial.Plan(0.0, recipe.codec_batch, recipe.codec_crop_s, n_filters=recipe.adversary_filters)
        trainer = adversarial.Trainer(recipe.codec, plan, device, feed.crops()[:4])
        seconds = max(1.0, 60 * minutes - (time.monotonic() - begun) - reserve)
        trainer.plan = replace(plan, seconds=seconds)
        adversarial.train(trainer, feed.crops, lambda row: log(clips=len(clips.ready()), **row))
        codec = trainer.finished()
        torch.save({"config": asdict(recipe.codec), "codec": _half(codec)}, place.work / "codec.pt")
        _copy_parts(place.work / "codec.pt", place.out)
        log(event="codec done", step=trainer.step, **summary(clips))
        deadline = begun + 60 * minutes - 0.2 * reserve
        held_out, train = feed.shelves(codec, deadline, time.monotonic)
        log(event="codes", train=len(train), held_out=len(held_out))
        table = {name: {k: torch.as_tensor(v).cpu() for k, v in vars(shelf).items()} for name, shelf in
                 (("held_out", held_out), ("train", train))}  # fmt: skip
        torch.save({"tokenizer": tokenizer, **table}, place.work / "shelves.pt")
        clips.stop()
        _attempt(
            log, "codec figures", lambda: _json(place, "figures-codec.json", codec_figures(codec, feed.held_out(24)))
        )
    finally:
        clips.stop()
    log(event="stage over", **summary(clips))


def lm_stage(
    recipe: Recipe, place: Place, minutes: float, n_processes: int, device: torch.device, resume: bool = False
) -> None:
    """Train the language model on the first stage's codes; leaves the model that ships, in parts, music and figures.

    resume: go on from the checkpoint that an earlier sitting left in `place.work`, if there is one.
    """
    begun = time.monotonic()
    log = Log(place.out / "log-lm.jsonl", begun)
    clips = Clips(recipe, first_number=recipe.n_clips)  # others than the first stage's
    clips.start(lambda: _synthesizer(recipe, place, log), encoder(_tokenizer(place, log)), n_processes)
    try:
        _train_lm(recipe, place, begun + 60 * minutes, clips, device, log, resume)
    finally:
        clips.stop()
    log(event="stage over", **summary(clips))


def _train_lm(
    recipe: Recipe, place: Place, end: float, clips: Clips, device: torch.device, log: Log, resume: bool
) -> None:
    begun = time.monotonic()
    _prepare(device)
    codec = load_codec(place.work / "codec.pt").to(device)
    table = torch.load(place.work / "shelves.pt", map_location=device, weights_only=True)
    held_out, train = (_shelf(table[name]) for name in ("held_out", "train"))
    codebooks = torch.stack([layer.codebook.embed.detach().cpu() for layer in codec.quantizer.layers])
    reserve = min(_FINISH_S, 0.4 * (end - begun))
    plan = scored_train.Plan(0.0, recipe.lm_batch, chords=recipe.chords)
    trainer = scored_train.Trainer(recipe.model, plan, table["tokenizer"], device, codebooks)
    log(event="language model", clips=len(train), parameters=sum(p.numel() for p in trainer.model.parameters()))
    check = held_out.fixed(recipe.lm_batch, recipe.chords)
    limit_s = max(1.0, end - time.monotonic() - reserve)
    trainer.plan = replace(plan, seconds=limit_s)
    checkpoint = place.work / f"{recipe.name}-lm.pt"
    if resume and checkpoint.exists():
        trainer.restore(torch.load(checkpoint, map_location=device, weights_only=True))
        log(event="resumed", step=trainer.step, elapsed_s=trainer.elapsed_s, of_s=trainer.plan.seconds)
    batches = train.batches(plan, Growth(clips, codec, device), trainer.step)
    scored_train.train(
        trainer, batches, check, lambda row: log(clips=len(train) + len(clips.ready()), **row),
        limit_s=limit_s, checkpoint=checkpoint,
    )  # fmt: skip
    clips.stop()
    log(event="trained", step=trainer.step, **trainer.measure(check))
    target = place.out / f"{recipe.name}.safetensors"
    tracker = beat_tracker.teach(recipe.codec, codebooks, train.codes, train.frames)
    write(codec.cpu(), trainer.average, trainer.tokenizer_json, target, MAX_BYTES, tracker=tracker)
    _copy_parts(target, place.out)
    log(event="exported", bytes=target.stat().st_size)
    duration_s = CLIP_S if end - begun > 120 else 0.5
    _attempt(log, "music", lambda: _json(place, "figures-lm.json", samples(target, place.out, device, duration_s)))
    _attempt(log, "codes for judging", lambda: judged_codes(target, place.out, device, duration_s, end))
    target.unlink()


def load_codec(path: Path) -> Codec:
    """The codec that the first stage left."""
    table = torch.load(path, map_location="cpu", weights_only=True)
    return rebuilt(table["config"], table["codec"])


def rebuilt(config: Mapping, tensors: Mapping[str, torch.Tensor]) -> Codec:
    """A codec of its configuration as a table and its weights of any float type."""
    from ...musicgen.config import CodecConfig

    codec = Codec(CodecConfig(**{**config, "ratios": tuple(config["ratios"])}))
    codec.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return codec


def descriptions(n: int, seed: int = 0):
    """n texts for the tokenizer, every fifth of pansori."""
    rng = np.random.default_rng(seed)
    for number in range(0, n, N_TEXTS):
        facts = songs.song("train", number, CLIP_S).facts
        for _ in range(N_TEXTS):
            yield songwords.describe(facts, rng) if rng.random() < 0.8 else words.describe(pieces.draw_label(rng), rng)


def _tokenizer(place: Place, log: Log) -> str:
    path = place.assets / "tokenizer.json"
    if path.exists():
        return path.read_text(encoding="utf-8")
    log(event="tokenizer is learnt")
    return train_tokenizer(texts=descriptions(3000), vocabulary=VOCABULARY)


def _synthesizer(recipe: Recipe, place: Place, log: Log) -> Synthesizer | None:
    try:
        synthesizer = Synthesizer(place.assets / "music.sf3", recipe.codec.sample_rate_hz, place.assets / "lib")
        synthesizer.load(instruments.presets())
    except (OSError, ValueError, KeyError) as error:
        log(event="NO SOUNDFONT, pansori alone", error=str(error))
        return None
    log(event="soundfont")
    return synthesizer


def _prepare(device: torch.device) -> None:
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if device.type == "cuda":
        torch.zeros(1, device=device)


def _shelf(table: dict) -> Shelf:
    return Shelf(**{**table, "lengths": table["lengths"].cpu().numpy()})


def _half(codec: Codec) -> dict:
    return {name: tensor.detach().half().cpu() for name, tensor in codec.state_dict().items()}


def _copy_parts(path: Path, out: Path) -> None:
    """As files of at most PART_BYTES, to be joined by `cat name.part* > name`."""
    data = path.read_bytes()
    for i, first in enumerate(range(0, len(data), PART_BYTES)):
        (out / f"{path.name}.part{i}").write_bytes(data[first : first + PART_BYTES])


def _json(place: Place, name: str, figures: dict) -> None:
    (place.out / name).write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _attempt(log: Log, name: str, action: Callable[[], None]) -> None:
    """What is not worth the run if it fails."""
    try:
        action()
        log(event=name)
    except Exception as error:
        log(event=f"{name} FAILED", error=repr(error))
        traceback.print_exc()


def _short(value: object) -> object:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def n_processes() -> int:
    """As many as there are cores, but one."""
    return max(1, len(os.sched_getaffinity(0)) - 1)
