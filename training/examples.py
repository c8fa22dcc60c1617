"""Batches for the language model: codes with a fresh description each time, and conditioning left out at random."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .codes import MELODIES, read_shard
from .pieces import Label
from .text import Texts
from .words import describe

# Chances of what a clip is conditioned on. Most users give a text and no melody.
_BOTH, _TEXT_ONLY, _MELODY_ONLY = 0.5, 0.3, 0.1  # the rest: nothing
# Codes follow from the codes before them so well that a model is slow to see what text and melody are good for, and
# never learns to find back to them. So in some clips spans are hidden from it, or are another clip's; or so much is
# hidden that only the text can tell the tempo.
HIDDEN = -1
_WORN, _N_SPANS, _SPAN, _FOREIGN = 0.75, (2, 8), (3, 60), 0.4  # chance of it, how many, frames, chance of another clip
_LONG = 0.25  # chance that instead of several short spans one long one is hidden
_NULL_CHROMA = 0  # the pitch class that silence falls on, which stands for no melody


@dataclass(frozen=True)
class Batch:
    """B clips whose descriptions have the same number of tokens, so that no row needs padding."""

    codes: Tensor  # [B, K, T]
    chroma: Tensor  # [B, F] pitch classes, of the null melody where there is none
    ids: tuple[tuple[int, ...], ...]  # B rows of n tokens
    with_text: Tensor  # [B] bool: False = zeros in place of the text, as in the null rows of guidance
    shown: Tensor | None = None  # [B, K, T] what is seen of the codes, HIDDEN where nothing is; None: all


@dataclass(frozen=True)
class Examples:
    """All shards of a split in memory: some 5 KB a clip."""

    codes: np.ndarray  # [N, K, T] int16
    chroma: np.ndarray  # [N, len(MELODIES), F] uint8
    labels: tuple[Label, ...]

    @classmethod
    def read(cls, folder: Path, split: str) -> "Examples":
        shards = [read_shard(path) for path in sorted(folder.glob(f"{split}-*.npz"))]
        if not shards:
            raise FileNotFoundError(f"{folder} holds no codes of the {split} split: run 'python -m training codes'")
        return cls(
            np.concatenate([shard.codes for shard in shards]),
            np.concatenate([shard.chroma for shard in shards]),
            tuple(label for shard in shards for label in shard.labels),
        )

    def batches(self, texts: Texts, batch_size: int, seed: int) -> Iterator[Batch]:
        """Endless; every clip once before any comes again."""
        rng = np.random.default_rng(seed)
        waiting: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
        while True:
            for index in rng.permutation(len(self.labels)):
                ids = texts.ids(describe(self.labels[index], rng))
                waiting[len(ids)].append((index, ids))
                if len(waiting[len(ids)]) == batch_size:
                    yield self._batch(waiting.pop(len(ids)), rng)

    def fixed(self, texts: Texts, batch_size: int, n_batches: int) -> list[Batch]:
        """The same batches each time, with text and melody."""
        rng, made = np.random.default_rng(0), []
        by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
        for index, label in enumerate(self.labels):
            ids = texts.ids(describe(label, rng))
            by_length[len(ids)].append((index, ids))
        for rows in by_length.values():
            made += [self._batch(rows[i : i + batch_size], None) for i in range(0, len(rows), batch_size)]
        return sorted(made, key=lambda batch: -len(batch.ids))[:n_batches]

    def _batch(self, rows: list[tuple[int, list[int]]], rng: np.random.Generator | None) -> Batch:
        """rng None: nothing is left out, and the melody is the mix's."""
        indices = [index for index, _ in rows]
        chroma = np.stack([self.chroma[i, rng.integers(len(MELODIES)) if rng else 0] for i in indices])
        with_text = np.ones(len(rows), bool)
        codes = self.codes[indices].astype(np.int64)
        if rng:
            kind = rng.choice(
                4, size=len(rows), p=[_BOTH, _TEXT_ONLY, _MELODY_ONLY, 1 - _BOTH - _TEXT_ONLY - _MELODY_ONLY]
            )
            with_text = kind < 2
            chroma[(kind == 1) | (kind == 3)] = _NULL_CHROMA
        return Batch(
            torch.from_numpy(codes),
            torch.from_numpy(chroma.astype(np.int64)),
            tuple(tuple(ids) for _, ids in rows),
            torch.from_numpy(with_text),
            torch.from_numpy(self._worn(codes, rng)) if rng else None,
        )

    def _worn(self, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[B, K, T] with spans hidden, or as in other clips."""
        shown = codes.copy()
        for row in np.flatnonzero(rng.random(len(codes)) < _WORN):
            if rng.random() < _LONG:
                start = rng.integers(codes.shape[2] // 2)
                shown[row, :, start : start + rng.integers(_SPAN[1], codes.shape[2])] = HIDDEN
                continue
            for _ in range(rng.integers(*_N_SPANS)):
                start = rng.integers(codes.shape[2])
                span = slice(start, start + rng.integers(*_SPAN))
                foreign = rng.random() < _FOREIGN
                shown[row, :, span] = self.codes[rng.integers(len(self.codes)), :, span] if foreign else HIDDEN
        return shown


def without_melody(batch: Batch) -> Batch:
    return Batch(batch.codes, torch.full_like(batch.chroma, _NULL_CHROMA), batch.ids, batch.with_text)


def without_text(batch: Batch) -> Batch:
    return Batch(batch.codes, batch.chroma, batch.ids, torch.zeros_like(batch.with_text))
