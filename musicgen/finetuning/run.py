"""From music to a fine-tune with its proof: every stage in its order."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..audio import Audio
from ..codes import Codes
from ..config import ModelConfig
from ..memory import release_freed_memory
from . import export
from .batches import split_tracks, windows_of
from .dataset import Dataset
from .encoding import Cache, Encoded, Separate, encode_codes, encode_texts, variants_for
from .model import Trainable, build
from .proof import STRENGTHS, Clips, Proof, prove
from .samples import Base, OnStep, Writer, as_tracks, merged, other_texts
from .settings import TrainSettings
from .trainer import History, Music, Trainer

logger = logging.getLogger(__name__)

SAMPLE_S = 8.0  # of a clip to listen to, and of those of the proof
_OTHER_S = 10.0  # of a clip of the base's own music
_LEARNED, _WATCHED, _TESTED = 12, 4, 8  # such clips: learned beside the data, watched in training, kept for the proof
_MEASURED = 16  # held-out windows, at most
_DATA_SEED, _SAMPLE_SEED = 20_000, 1_000

Part = Literal["model", "conditioner", "codec", "training"]


class Watch:
    """Who follows a fine-tuning; nothing is done unless a subclass does it."""

    def check(self) -> None:
        """Called many times a second; what it raises (Cancel) ends the work. The checkpoint stays."""

    def place(self, part: Part) -> None:
        """Called before one of the base's objects is used, and before the training: bring it to its device."""

    def stage(self, name: str, done: int, total: int) -> None:
        """How far a stage other than the training is."""

    def updated(self, step: int, total: int, left_s: float, history: History) -> None:
        """After each update of the training."""

    def sample(self, step: int, audio: Audio) -> None:
        """A clip to listen to, [1, C, L]."""


@dataclass(frozen=True)
class Result:
    """A fine-tune that was made."""

    path: Path
    history: History
    proof: Proof
    samples: Codes | None  # of the fine-tune
    resumed_at: int  # updates that an earlier sitting had done


class _Follower:
    """Hands a training's calls to a Watch, and makes the samples that are due."""

    def __init__(self, watch: Watch, run: "_Run") -> None:
        self._watch, self._run = watch, run
        self.check = watch.check
        self.updated = watch.updated

    def sample_due(self, step: int, model: Trainable) -> None:
        codes = self._run.write(model, 1.0, self._run.texts[:1])
        self._watch.sample(step, self._run.decode(codes))


class _Run:
    """What the stages share."""

    def __init__(self, base: Base, device: torch.device, watch: Watch, texts: Sequence[str]) -> None:
        self.base, self.device, self.watch, self.texts = base, device, watch, list(texts)

    @property
    def sample_s(self) -> float:
        return min(SAMPLE_S, self.base.model.config.segment_s)

    def write(
        self,
        model: Trainable | None,
        strength: float,
        texts: Sequence[str],
        duration_s: float = 0,
        seed: int = _SAMPLE_SEED,
        on_step: OnStep | None = None,
    ) -> Codes:
        """Clips of these texts by the fine-tune, or by the base."""
        for part in ("model", "conditioner"):
            self.watch.place(part)
        source = None if model is None or strength == 0 else merged(self.base.source, model, strength)
        writer = Writer(self.base, source, self.device, self.watch.check)
        codes = writer.write(texts, duration_s or self.sample_s, seed, on_step)
        del writer
        release_freed_memory()
        return codes

    def decode(self, codes: Codes) -> Audio:
        self.watch.place("codec")
        sound = self.base.codec.decode(codes)
        return Audio(sound.samples.clone(), sound.rate_hz)


def fine_tune(
    base: Base,
    dataset: Dataset,
    settings: TrainSettings,
    target: Path,
    work: Path | None = None,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    watch: Watch | None = None,
    separate: Separate | None = None,
    peft_folder: Path | None = None,
) -> Result:
    """Train a fine-tune of `base` on `dataset`, write it as the file `target`, prove it, and write the proof into the file.

    work: folder of the checkpoint, with which the same training goes on after a Cancel or a kill; None = no checkpoint.
    cache: folder where codes and hidden states are kept. separate: takes the voices out of a song, where they are dropped.
    peft_folder: also write PEFT's folder there. Nothing of the base is altered.
    """
    watch, device = watch or Watch(), torch.device(device)
    # ComfyUI runs nodes under inference_mode, whose tensors no gradient passes through.
    with torch.inference_mode(False), torch.enable_grad():
        return _fine_tune(base, dataset, settings, target, work, Cache(cache), device, watch, separate, peft_folder)


def _fine_tune(
    base: Base, dataset: Dataset, settings: TrainSettings, target: Path, work: Path | None, cache: Cache,
    device: torch.device, watch: Watch, separate: Separate | None, peft_folder: Path | None,
) -> Result:  # fmt: skip
    config, fingerprint = base.model.config, export.fingerprint_of(base.source)
    n_frames = window_frames(config, settings)
    n_chroma = config.melody.n_frames if config.melody else 0
    watch.place("codec")
    encoded = encode_codes(
        dataset, base.codec, config.melody, cache, separate, lambda done, total: watch.stage("listening to your clips", done, total),
        settings.variants or variants_for(dataset.duration_s),
    )  # fmt: skip
    watch.place("conditioner")
    others = other_texts(base.conditioner, _LEARNED + _WATCHED + _TESTED)
    states = encode_texts([*(clip.text for clip in dataset.clips), *others], base.conditioner, cache)
    a_class = 1.0 if config.melody is None else 2**config.melody.radix2_exp / 4 / config.codec.hop
    tracks = [
        Encoded(clip.name, codes, states[clip.text], clip.text, classes, a_class, variant)
        for clip, variant, codes, classes in encoded
    ]
    split = split_tracks(tracks, settings.seed)
    as_it_is = [track for track in split.learned if track.variant == 0]
    texts = [as_it_is[i % len(as_it_is)].text for i in range(max(1, settings.proof_clips))]
    run = _Run(base, device, watch, texts)
    own = _own_music(run, others, states, cache, fingerprint)
    foreign = windows_of(own, n_frames, 0, len(own))
    music = Music(
        split.learned, own[:_LEARNED] if settings.keep_base else [], windows_of(split.held_out, n_frames, 0, _MEASURED),
        foreign[_LEARNED : _LEARNED + _WATCHED], n_frames, n_chroma,
    )  # fmt: skip
    watch.place("training")
    model = build(base.source, settings, device, watch.check)
    trainer = Trainer(model, music, settings, work, _identity(fingerprint, dataset, settings, model.precision))
    resumed_at = trainer.step
    history = trainer.run(_Follower(watch, run))
    del trainer
    save(base, dataset, settings, target, model, history, None, peft_folder)  # first of all: what follows may fail
    clips: Clips = {}
    if settings.proof_clips:
        for number, strength in enumerate(STRENGTHS):

            def report(done: int, total: int, number: int = number) -> None:
                watch.stage("writing clips to compare", number * total + done, len(STRENGTHS) * total)

            report(0, 1)
            clips[strength] = run.write(model, strength, run.texts, on_step=report)
        watch.sample(settings.updates, run.decode(clips[1.0].rows([0])))
    watch.stage("comparing", 0, 1)
    watch.place("codec")
    proof = prove(
        model, music.held_out, foreign[_LEARNED + _WATCHED :], as_it_is, clips, run.texts, states, base.codec, n_frames,
        n_chroma, watch.check,
    )  # fmt: skip
    save(base, dataset, settings, target, model, history, proof, peft_folder)
    watch.stage("comparing", 1, 1)
    del model
    release_freed_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Result(target, history, proof, clips.get(1.0), resumed_at)


def window_frames(config: ModelConfig, settings: TrainSettings) -> int:
    """Frames of the clips that are learned: at most the model's window."""
    seconds = min(settings.segment_s or config.segment_s, config.segment_s)
    return max(1, int(seconds * config.codec.frame_rate_hz))


def save(
    base: Base, dataset: Dataset, settings: TrainSettings, target: Path, model: Trainable, history: History,
    proof: Proof | None, peft_folder: Path | None = None,
) -> Path:  # fmt: skip
    """Write the fine-tune with its card; a file of the same name is replaced."""
    notes = export.card(base.source, dataset, settings, history, proof)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not model.adapters:
        return export.save_whole(base.source, model, target, notes)
    if peft_folder is not None:
        export.save_folder(model, settings, peft_folder, notes)
    return export.save_adapter(model, settings, target, notes)


def _own_music(
    run: _Run, texts: Sequence[str], states: dict[str, Tensor], cache: Cache, fingerprint: str
) -> list[Encoded]:
    """Clips that the base writes of other texts: what it must not forget."""
    duration_s = min(_OTHER_S, run.base.model.config.segment_s)

    def report(done: int, total: int) -> None:
        run.watch.stage("writing the model's own music, to be kept", done, total)

    def made() -> np.ndarray:
        return run.write(None, 0.0, texts, duration_s, _DATA_SEED, report).codes.short().numpy()

    report(0, 1)

    key = f"own {fingerprint} {run.base.model.precision} {duration_s:g} {_DATA_SEED} {list(texts)}"
    codes = torch.from_numpy(cache.get(key, made))
    config = run.base.codec.config
    report(1, 1)
    return as_tracks(Codes(codes, config.frame_rate_hz, config.identity), texts, states, "by the base")


def _identity(fingerprint: str, dataset: Dataset, settings: TrainSettings, precision: str) -> str:
    """What must be equal for a checkpoint to go on: all but what is only shown."""
    same = replace(settings, sample_every=0, proof_clips=0)
    return hashlib.sha256(f"{fingerprint} {dataset.identity} {same} {precision}".encode()).hexdigest()
