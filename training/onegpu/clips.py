"""Clips as arrays in memory that processes share: rendered by as many as there are cores, read by the one that trains."""

import logging
import mmap
import multiprocessing
import multiprocessing.process
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..data import pieces, songs, words
from ..data.harmony import OCTAVE
from ..data.instruments import INSTRUMENTS
from ..data.jangdan import JANGDAN
from ..data.render import Synthesizer, levelled
from ..data.score import beat_on_frames
from ..data.songs import song
from ..data.songwords import describe
from ..lm.scored import FRAME_TARGETS, OVER_AFTER_S, TEXT_TARGETS, UNKNOWN
from ..recipe import CLIP_S, melody_of
from .recipe import N_FRAME_TARGETS, N_TEXT_TARGETS, N_TEXTS, N_TOKENS, PANSORI_EVERY, Recipe

logger = logging.getLogger(__name__)
_UNTAUGHT_S = 0.5  # of a window that begins within a piece
_PHASES, _BEATS = FRAME_TARGETS["phase"][0], FRAME_TARGETS["beat"][0]
_SLOWEST_BPM, _TEMPO_STEP, _N_TEMPOS = 25.0, 0.0105, TEXT_TARGETS["tempo"][0]
_LEADS = list(INSTRUMENTS)
_WAITING, _DONE, _FAILED = 0, 1, 2

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Made:
    """One clip with all that the language model is taught of it."""

    samples: np.ndarray  # [L] float32
    chords: np.ndarray  # [F] int16
    frames: np.ndarray  # [targets, T] uint8
    texts: list[str]
    targets: np.ndarray  # [V, targets] uint8


class Clips:
    """Arrays of N clips in memory shared by forked processes. The first `n_held_out` are of the held-out split."""

    def __init__(self, recipe: Recipe, first_number: int = 0, n_held_out: int = 0) -> None:
        """first_number: of the training clips."""
        n, f, t = recipe.n_clips, recipe.n_chroma_frames, recipe.n_frames
        self.recipe, self.first_number, self.n_held_out = recipe, first_number, n_held_out
        self.audio = _shared((n, recipe.clip_length), np.int16)
        self.chords = _shared((n, f), np.int16)
        self.frames = _shared((n, N_FRAME_TARGETS, t), np.uint8)
        self.ids, self.lengths = _shared((n, N_TEXTS, N_TOKENS), np.int16), _shared((n, N_TEXTS), np.uint8)
        self.targets = _shared((n, N_TEXTS, N_TEXT_TARGETS), np.uint8)
        self.state = _shared((n,), np.uint8)
        self._next, self._stop = multiprocessing.Value("l", 0), multiprocessing.Value("b", 0)
        self._master: multiprocessing.process.BaseProcess

    def start(self, synthesizer: Callable[[], Synthesizer | None], encode: Encode, n_processes: int) -> None:
        """Render in the background, begun before anything touches the GPU: processes are forked.

        synthesizer: made in a process of its own, whose children share the soundfont; if it is None, pansori alone is played.
        """
        self._master = multiprocessing.get_context("fork").Process(
            target=self._lead, args=(synthesizer, encode, n_processes, os.getpid())
        )
        self._master.start()

    def stop(self) -> None:
        self._stop.value = 1
        self._master.join(timeout=30)
        if self._master.is_alive():
            self._master.terminate()

    @property
    def alive(self) -> bool:
        return self._master.is_alive()

    def _lead(self, make: Callable[[], Synthesizer | None], encode: Encode, n_processes: int, parent: int) -> None:
        """Make the synthesizer, have children render, and see that they end with the parent."""
        synthesizer = make()
        context = multiprocessing.get_context("fork")
        workers = [
            context.Process(target=self._work, args=(synthesizer, encode), daemon=True) for _ in range(n_processes)
        ]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.2)
            if os.getppid() != parent:
                self._stop.value = 1

    def ready(self) -> np.ndarray:
        """Indices of the clips that are there."""
        return np.flatnonzero(self.state == _DONE)

    def wait(self, n: int, limit_s: float) -> int:
        """Until n clips are there, all that can be are, or the time is over; how many there are."""
        begun = time.monotonic()
        while len(self.ready()) < n and self.alive and time.monotonic() - begun < limit_s:
            time.sleep(0.05)
        return len(self.ready())

    def _work(self, synthesizer: Synthesizer | None, encode: Encode) -> None:
        failures = 0
        while not self._stop.value:
            with self._next.get_lock():
                index = self._next.value
                self._next.value += 1
            if index >= len(self.state):
                return
            try:
                self._fill(index, synthesizer, encode)
                self.state[index] = _DONE
            except Exception:  # one clip fewer: the others are worth more than a stop
                self.state[index] = _FAILED
                failures += 1
                if failures < 3:
                    logger.exception("clip %d", index)

    def _fill(self, index: int, synthesizer: Synthesizer | None, encode: Encode) -> None:
        held_out = index < self.n_held_out
        number = index if held_out else index - self.n_held_out + self.first_number
        self.fill(index, made(self.recipe, "held-out" if held_out else "train", number, synthesizer), encode)

    def fill(self, index: int, one: Made, encode: Encode) -> None:
        """Put a clip in its place."""
        self.audio[index] = np.round(one.samples * 32767)
        self.chords[index], self.frames[index] = one.chords, one.frames
        self.targets[index] = one.targets
        for v, text in enumerate(one.texts):
            ids = encode(text)[:N_TOKENS]
            self.ids[index, v, : len(ids)], self.lengths[index, v] = ids, len(ids)


def made(recipe: Recipe, split: str, number: int, synthesizer: Synthesizer | None) -> Made:
    """Clip `number` of a split: every fifth one pansori."""
    rng = np.random.default_rng([11, pieces.SPLITS.index(split), number])
    if number % PANSORI_EVERY == PANSORI_EVERY - 1 or synthesizer is None:
        return _pansori(recipe, split, number, rng)
    return _general(recipe, split, number, synthesizer, rng)


def tempo_class(bpm: float) -> int:
    """Of TEXT_TARGETS: steps of 1 %."""
    return int(np.clip(round(np.log(bpm / _SLOWEST_BPM) / _TEMPO_STEP), 0, _N_TEMPOS - 1))


def bpm_of(classes: Tensor) -> Tensor:
    """The tempo that stands for each of `tempo_class`, in beats a minute."""
    return _SLOWEST_BPM * (_TEMPO_STEP * classes.double()).exp()


def _general(recipe: Recipe, split: str, number: int, synthesizer: Synthesizer, rng: np.random.Generator) -> Made:
    piece = song(split, number, CLIP_S)
    samples = levelled(synthesizer.play(piece.parts, piece.first_s, CLIP_S), piece.facts.dynamics)
    t, f = recipe.n_frames, recipe.n_chroma_frames
    reach_s = f * 2 ** melody_of(recipe.model).radix2_exp / 4 / recipe.codec.sample_rate_hz  # chroma frames are centred
    frames = np.full((N_FRAME_TARGETS, t), UNKNOWN, np.uint8)
    frames[:2] = piece.beat_frames(CLIP_S, t, _PHASES, _BEATS, UNKNOWN)
    frames[2] = piece.melody_frames(CLIP_S, t)
    frames[3] = piece.chord_frames(CLIP_S, t)[1]
    frames[4] = piece.drum_frames(CLIP_S, t)
    frames[5] = piece.first_s + np.arange(t) * CLIP_S / t > piece.end_s + OVER_AFTER_S
    if not piece.facts.begins:  # a model that learnt to write this would begin in the middle of a note, with a click
        frames[5, : round(_UNTAUGHT_S * t / CLIP_S)] = UNKNOWN
    texts = [describe(piece.facts, rng, split == "held-out") for _ in range(N_TEXTS)]
    return Made(samples, piece.chord_frames(reach_s, f)[0], frames, texts, said(piece.facts, texts))


def said(facts: songs.Facts, texts: list[str]) -> np.ndarray:
    """[V, targets] uint8: what V descriptions of a piece say, as classes of TEXT_TARGETS."""
    solo = facts.arrangement == "solo"  # a player alone may be described without the genre
    classes = {
        "genre": UNKNOWN if solo else songs.genre_index(facts.genre),
        "lead": _LEADS.index(facts.lead) if facts.lead else len(_LEADS),
        "arrangement": list(songs.ARRANGEMENTS).index(facts.arrangement),
        "ends": int(facts.ends),
    }
    tempo = tempo_class(beat_on_frames(facts.bpm))  # what is played
    return _targets((tempo if f"{facts.bpm:.0f}" in text else UNKNOWN for text in texts), classes)


def _targets(tempos: Iterable[int], classes: Mapping[str, int]) -> np.ndarray:
    """[V, targets] uint8 of V texts that differ in whether they name the tempo."""
    rows = ({"tempo": tempo, **classes} for tempo in tempos)
    return np.array([[row.get(name, UNKNOWN) for name in TEXT_TARGETS] for row in rows], np.uint8)


def _pansori(recipe: Recipe, split: str, number: int, rng: np.random.Generator) -> Made:
    rate_hz, t, f = recipe.codec.sample_rate_hz, recipe.n_frames, recipe.n_chroma_frames
    clip = pieces.clip(split, number, CLIP_S, rate_hz)
    label, first_pulse = clip.label, pieces.start(split, number)[1]
    hz = np.interp(np.arange(t) + 0.5, np.arange(len(clip.line_hz)) * t / len(clip.line_hz), clip.line_hz)
    tones = np.where(np.isnan(hz), 12, np.round(69 + 12 * np.log2(np.nan_to_num(hz, nan=440.0) / 440)) % OCTAVE)
    frames = np.full((N_FRAME_TARGETS, t), UNKNOWN, np.uint8)
    per_beat, first_beat = 1, 0.0
    if label.jangdan:
        per_beat = JANGDAN[label.jangdan].pulses_per_beat
        first_beat = first_pulse / per_beat
    beat = first_beat + (np.arange(t) + 0.5) * CLIP_S / t * label.bpm / 60
    frames[0] = beat % 1 * _PHASES
    if label.jangdan:
        frames[1] = beat % min(_BEATS, JANGDAN[label.jangdan].n_pulses // per_beat)
    frames[2], frames[3], frames[5] = tones, 24, 0
    frames[4] = 0
    for hit in clip.hits:
        at = int(hit.time_s * t / CLIP_S)
        if 0 <= at < t:
            frames[4, at] = 2 if hit.name in ("deok", "tak") else 1
    texts = [words.describe(label, rng) for _ in range(N_TEXTS)]
    classes = {
        "genre": len(songs.GENRES) + (list(JANGDAN).index(label.jangdan) if label.jangdan else len(JANGDAN)),
        "lead": len(_LEADS) + 1 + pieces.PLAYERS.index(label.instrument),
        "ends": 0,  # it goes on beyond the clip
    }
    targets = _targets((tempo_class(label.bpm) if "bpm" in text else UNKNOWN for text in texts), classes)
    melody = tones[np.linspace(0, t - 1, f).round().astype(int)].astype(np.uint8)
    chords = np.where(melody < 12, 1 << np.minimum(melody, 11).astype(np.int16), 0)
    return Made(clip.samples, chords.astype(np.int16), frames, texts, targets)


def _shared(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Zeros in anonymous memory, which forked processes share."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), dtype=dtype, count=int(np.prod(shape))).reshape(shape)


def encoder(tokenizer_json: str) -> Encode:
    """Texts -> token ids, by the tokenizer that will be shipped."""
    from ..lm.text import Texts

    return Texts(tokenizer_json).ids


def summary(clips: Clips) -> Mapping[str, float]:
    return {"clips": float((clips.state == _DONE).sum()), "failed": float((clips.state == _FAILED).sum())}
