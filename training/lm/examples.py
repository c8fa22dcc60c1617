"""Batches for the language model: codes with a fresh description each time, and conditioning left out at random."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...musicgen.errors import InputError
from ..data.pieces import Label, draw_label, start
from ..data.words import describe
from ..recipe import CLIP_S
from .auxiliary import Known, frame_targets, stacked, text_targets
from .codes import MELODIES, read_shard
from .rollouts import Rollouts
from .text import Texts

# Chances of what a clip is conditioned on. Most users give a text and no melody; what is known without either is taken
# away twice over by guidance of 3.
_BOTH, _TEXT_ONLY, _MELODY_ONLY = 0.4, 0.36, 0.06  # the rest: nothing
# Codes follow from the codes before them so well that a model is slow to see what text and melody are good for, and
# never learns to find back to them. So in some clips spans are hidden from it, or are another clip's, or its own music; or
# so much is hidden that only the text can tell the tempo.
HIDDEN = -1
_WORN, _N_SPANS, _SPAN, _FOREIGN = 0.5, (2, 8), (3, 60), 0.4  # chance of it, how many, frames, chance of another clip
_LONG, _ALL = 0.35, 0.6  # chance that instead of several short spans one long one is hidden; that it is everything
_GUESSED = 0.7  # chance that some of what is seen, any share of it, is the model's guesses
_OWN, _OWN_IN_LESSONS = 0.3, 0.5  # chance that a row whose text names the tempo shows the model's own music
_OWN_SPANS = 0.7  # of the spans of other music, if there is some of the model's own
_MISSED, _BY = 0.5, 0.04  # chance that a text names another tempo than the clip's, and by how much at most
# What is learnt last is heard more often, so many times.
_SHARE: dict[str | None, int] = {"jinyangjo": 2, "hwimori": 2, "gayageum": 2}
_MELODIC = MELODIES.index("melodic")
_NULL_CHROMA = 0  # the pitch class that silence falls on, which stands for no melody


@dataclass(frozen=True)
class Batch:
    """B clips whose descriptions have the same number of tokens, so that no row needs padding."""

    codes: Tensor  # [B, K, T]
    chroma: Tensor  # [B, F] pitch classes, of the null melody where there is none
    ids: tuple[tuple[int, ...], ...]  # B rows of n tokens
    with_text: Tensor  # [B] bool: False = zeros in place of the text, as in the null rows of guidance
    shown: Tensor | None = None  # [B, K, T] what is seen of the codes, HIDDEN where nothing is; None: all
    known: Known | None = None  # what else is known of the clips
    of_strokes: Tensor | None = None  # [B] bool: rows of which nothing but the strokes can be told from what is seen
    guessed: Tensor | None = None  # [B] share of what is seen that is to be the model's guesses at it


@dataclass(frozen=True)
class _Row:
    """A label with one of its descriptions."""

    label: Label
    text: str
    ids: tuple[int, ...]
    index: int | None  # of the clip, if there is one

    @property
    def names_tempo(self) -> bool:
        return "bpm" in self.text

    @property
    def clip(self) -> int:
        """`index` of a row that has a clip."""
        assert self.index is not None
        return self.index


@dataclass(frozen=True)
class Examples:
    """All shards of a split in memory: some 5 KB a clip."""

    codes: np.ndarray  # [N, K, T] int16
    chroma: np.ndarray  # [N, len(MELODIES), F] uint8
    labels: tuple[Label, ...]
    first_pulses: tuple[float, ...]
    frame_hz: float

    @classmethod
    def read(cls, folder: Path, split: str) -> "Examples":
        shards = [read_shard(path) for path in sorted(folder.glob(f"{split}-*.npz"))]
        if not shards:
            raise FileNotFoundError(f"{folder} holds no codes of the {split} split: run 'python -m training codes'")
        codes = np.concatenate([shard.codes for shard in shards])
        labels = tuple(label for shard in shards for label in shard.labels)
        starts = [start(split, number) for shard in shards for number in shard.numbers]
        if labels != tuple(label for label, _ in starts):
            raise InputError(
                f"{folder} was made by another version of the synthesizer: run 'python -m training codes' anew"
            )
        return cls(
            codes, np.concatenate([shard.chroma for shard in shards]), labels,
            tuple(first_pulse for _, first_pulse in starts), codes.shape[2] / CLIP_S,
        )  # fmt: skip

    def batches(self, texts: Texts, batch_size: int, seed: int, rollouts: Rollouts | None = None) -> Iterator[Batch]:
        """Endless; every clip, as often as _SHARE has it, before any comes again. `rollouts`: seen in place of some clips,
        as they come."""
        rng = np.random.default_rng(seed)
        indices = np.repeat(np.arange(len(self.labels)), [_share(label) for label in self.labels])

        def rows() -> Iterator[_Row]:
            while True:
                for index in rng.permutation(indices):
                    yield _row(self.labels[index], texts, rng, index)

        for some in _of_one_length(rows(), batch_size):
            yield self._batch(some, rng, rollouts or Rollouts())

    def lessons(self, texts: Texts, batch_size: int, seed: int, rollouts: Rollouts | None = None) -> Iterator[Batch]:
        """Endless batches of the beat alone: texts of jangdan that no clip need play, and their pulses from the start of a
        cycle. Codes are not to be predicted; all are hidden, or as in `rollouts`."""
        rng = np.random.default_rng([seed, 1])
        n_codebooks, n_frames = self.codes.shape[1:]
        codes = torch.full((batch_size, n_codebooks, n_frames), HIDDEN)
        chroma = torch.full((batch_size, self.chroma.shape[2]), _NULL_CHROMA)
        with_text = torch.ones(batch_size, dtype=torch.bool)

        def rows() -> Iterator[_Row]:
            while True:
                if (label := _drawn(rng)).jangdan:
                    yield _row(label, texts, rng)

        for some in _of_one_length(rows(), batch_size):
            shown = codes.numpy().copy()
            for row, made in enumerate(some):
                if rollouts and made.names_tempo and rng.random() < _OWN_IN_LESSONS:
                    own = rollouts.like(made.label, rng)
                    shown[row] = HIDDEN if own is None else own
            yield Batch(
                codes, chroma, tuple(row.ids for row in some), with_text,
                torch.from_numpy(shown), self._known(some, n_frames),
            )  # fmt: skip

    def tasks(self, texts: Texts, seed: int) -> Iterator[tuple[Label, Batch]]:
        """Endless: what to write for `Rollouts`. A label, and a batch of one text that names its tempo, without a clip."""
        rng = np.random.default_rng([seed, 2])
        while True:
            row = _row(_drawn(rng), texts, rng)
            if row.label.jangdan and row.names_tempo:
                yield row.label, self.asked(row.ids)

    def prompts(self, texts: Texts, batch_size: int, seed: int) -> Iterator[tuple[list[int], list[tuple[int, ...]]]]:
        """Endless: clips that have a jangdan and a mode, and a text for each, all of one length."""
        rng = np.random.default_rng([seed, 3])
        able = [i for i, label in enumerate(self.labels) if label.jangdan and label.mode]

        def rows() -> Iterator[_Row]:
            while True:
                for index in rng.permutation(able):
                    yield _row(self.labels[index], texts, rng, int(index))

        for some in _of_one_length(rows(), batch_size):
            yield [row.clip for row in some], [row.ids for row in some]

    def asked(self, *ids: tuple[int, ...], codes: Tensor | None = None) -> Batch:
        """Texts, and codes [B, K, T] that were written to them; without any, of nothing but the texts."""
        codes = torch.full((len(ids), *self.codes.shape[1:]), HIDDEN) if codes is None else codes
        chroma = torch.full((len(ids), self.chroma.shape[2]), _NULL_CHROMA)
        return Batch(codes, chroma, ids, torch.ones(len(ids), dtype=torch.bool))

    def fixed(self, texts: Texts, batch_size: int, n_batches: int) -> list[Batch]:
        """The same batches each time, with text and melody."""
        rng, made = np.random.default_rng(0), []
        by_length: dict[int, list[_Row]] = defaultdict(list)
        for index in range(len(self.labels)):
            row = _row(self.labels[index], texts, rng, index)
            by_length[len(row.ids)].append(row)
        for rows in by_length.values():
            made += [self._batch(rows[i : i + batch_size], None, Rollouts()) for i in range(0, len(rows), batch_size)]
        return sorted(made, key=lambda batch: -len(batch.ids))[:n_batches]

    def _batch(self, rows: list[_Row], rng: np.random.Generator | None, rollouts: Rollouts) -> Batch:
        """rng None: nothing is left out, and the melody is the mix's."""
        indices = [row.clip for row in rows]
        chroma = np.stack([self.chroma[i, rng.integers(len(MELODIES)) if rng else 0] for i in indices])
        with_text = np.ones(len(rows), bool)
        codes = self.codes[indices].astype(np.int64)
        of_strokes = np.zeros(len(rows), bool)
        if rng:
            kind = rng.choice(
                4, size=len(rows), p=[_BOTH, _TEXT_ONLY, _MELODY_ONLY, 1 - _BOTH - _TEXT_ONLY - _MELODY_ONLY]
            )
            with_text = kind < 2
            chroma[(kind == 1) | (kind == 3)] = _NULL_CHROMA
            shown = self._worn(codes, rows, rollouts, rng)
            for row in np.flatnonzero(with_text):
                of_strokes[row] = self._show_own(shown[row], rows[row], rollouts, rng)
            # How a melody goes on cannot be told from another, or from nothing: that would only be learnt by heart.
            of_strokes |= (shown == HIDDEN).all(axis=(1, 2))
            of_strokes &= np.array([row.label.instrument != "none" for row in rows])
        return Batch(
            torch.from_numpy(codes),
            torch.from_numpy(chroma.astype(np.int64)),
            tuple(row.ids for row in rows),
            torch.from_numpy(with_text),
            torch.from_numpy(shown) if rng else None,
            self._known(rows, codes.shape[2]),
            torch.from_numpy(of_strokes),
            torch.from_numpy(rng.random(len(rows)) * (rng.random(len(rows)) < _GUESSED)).float() if rng else None,
        )

    def _known(self, rows: list[_Row], n_frames: int) -> Known:
        frames = [
            frame_targets(row.label, 0.0, n_frames, self.frame_hz)
            if row.index is None
            else frame_targets(
                row.label, self.first_pulses[row.index], n_frames, self.frame_hz, self.chroma[row.index, _MELODIC]
            )
            for row in rows
        ]
        return Known(stacked(frames), stacked([text_targets(row.label, row.text) for row in rows]))

    def _show_own(self, shown: np.ndarray, row: _Row, rollouts: Rollouts, rng: np.random.Generator) -> bool:
        """Whether [K, T] was filled, from its beginning or from a frame of its first half on: at times, if the text tells
        the beat of all of it."""
        if row.names_tempo and self.first_pulses[row.clip] == 0 and rng.random() < _OWN:
            own = rollouts.like(row.label, rng)
            if own is not None:
                first = rng.integers(2) * rng.integers(shown.shape[1] // 2)
                shown[:, first:] = own[:, first:]
                return True
        return False

    def _worn(self, codes: np.ndarray, rows: list[_Row], rollouts: Rollouts, rng: np.random.Generator) -> np.ndarray:
        """[B, K, T] with spans hidden, or as in other clips, or as the model wrote a piece of the same kind."""
        shown = codes.copy()
        for row in np.flatnonzero(rng.random(len(codes)) < _WORN):
            if rng.random() < _LONG:
                first, length = 0, codes.shape[2]
                if rng.random() >= _ALL:
                    first, length = rng.integers(length // 2), rng.integers(_SPAN[1], length)
                shown[row, :, first : first + length] = HIDDEN
                continue
            for _ in range(rng.integers(*_N_SPANS)):
                first = rng.integers(codes.shape[2])
                span = slice(first, first + rng.integers(*_SPAN))
                shown[row, :, span] = HIDDEN
                if rng.random() < _FOREIGN:
                    own = rollouts.like(rows[row].label, rng) if rng.random() < _OWN_SPANS else None
                    other = self.codes[rng.integers(len(self.codes))] if own is None else own
                    shown[row, :, span] = other[:, span]
        return shown


def _share(label: Label) -> int:
    return max(_SHARE.get(label.jangdan, 1), _SHARE.get(label.instrument, 1))


def _drawn(rng: np.random.Generator) -> Label:
    """A random label, as often as _SHARE has it."""
    while True:
        label = draw_label(rng)
        if rng.random() < _share(label) / max(_SHARE.values()):
            return label


def _row(label: Label, texts: Texts, rng: np.random.Generator, index: int | None = None) -> _Row:
    said = label if rng.random() >= _MISSED else replace(label, bpm=label.bpm * rng.uniform(1 - _BY, 1 + _BY))
    text = describe(said, rng)
    return _Row(label, text, tuple(texts.ids(text)), index)


def _of_one_length(rows: Iterator[_Row], batch_size: int) -> Iterator[list[_Row]]:
    """Rows whose descriptions have the same number of tokens, as soon as there are enough."""
    waiting: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        waiting[len(row.ids)].append(row)
        if len(waiting[len(row.ids)]) == batch_size:
            yield waiting.pop(len(row.ids))


def without_melody(batch: Batch) -> Batch:
    return replace(batch, chroma=torch.full_like(batch.chroma, _NULL_CHROMA))


def without_text(batch: Batch) -> Batch:
    return replace(batch, with_text=torch.zeros_like(batch.with_text))
