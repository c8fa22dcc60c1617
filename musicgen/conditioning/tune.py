"""The melody of a score as a melody model sees it: rows of chroma from its notes, without a sound between.

A row is made by the rule that the models' own rows of recordings are made by (`chroma`): the pitch class that is strongest in a Hann
window around its time, one of twelve. A tone's strength there is the integral of the window over the time that it sounds. A rest takes the
tone that the window still reaches, 0.26 s away in the published models; beyond that it is the silence that the models know, the first bin.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import MelodyConfig
from ..errors import InputError
from ..score import Score, melody_of
from .chroma import NO_ANCHOR, Anchor
from .melody import check_chroma
from .mixture import Mixture, leaves_of

if TYPE_CHECKING:
    from .conditioner import Conditioner, Conditioning

_N_NOTES = 12
_MOST_SOUNDING = 2_000_000  # notes of a window, the score repeated


@dataclass(frozen=True)
class Tune:
    """Notes with the projection of their rows; stands where a `Melody` does. On the CPU; never altered in place."""

    times_s: tuple[tuple[float, float, int], ...]  # (start, end, MIDI pitch) of one pass, one after another
    duration_s: float  # of one pass; then it begins anew
    rate_hz: float  # rows a second
    window_s: float  # of the Hann window
    n_frames: int  # rows of a window of the model
    weight: Tensor  # [D, 12], the projection
    bias: Tensor  # [D]

    def chroma(self, start_s: float | None = None, anchor: Anchor = NO_ANCHOR) -> Tensor:
        """One-hot rows [n_frames, 12] of the window that starts at `start_s` of the piece; None = at its beginning.

        anchor: what is earlier music at the window's start has the melody of its own time.
        """
        rows = self._rows(start_s or 0.0, self.n_frames)
        n_anchor = int(anchor[0] * self.rate_hz)
        return torch.cat([self._rows(anchor[1], n_anchor), rows[n_anchor:]]) if n_anchor else rows

    @torch.inference_mode()
    def embed(self, start_s: float | None = None, anchor: Anchor = NO_ANCHOR) -> Tensor:
        """The rows of `chroma`, projected: [n_frames, D]."""
        return F.linear(self.chroma(start_s, anchor), self.weight, self.bias)

    def _rows(self, start_s: float, n_rows: int) -> Tensor:
        centres_s = start_s + np.arange(n_rows) / self.rate_hz
        starts_s, ends_s, classes = self._sounding(
            start_s - self.window_s, start_s + n_rows / self.rate_hz + self.window_s
        )
        rows = torch.zeros(n_rows, dtype=torch.long)
        first = np.searchsorted(ends_s, centres_s - self.window_s / 2, side="right")
        last = np.searchsorted(starts_s, centres_s + self.window_s / 2)
        for number in range(n_rows):
            part = slice(first[number], last[number])
            if part.start < part.stop:
                overlap = _hann(ends_s[part] - centres_s[number], self.window_s)
                overlap -= _hann(starts_s[part] - centres_s[number], self.window_s)
                rows[number] = int(np.bincount(classes[part], overlap, _N_NOTES).argmax())
        return F.one_hot(rows, _N_NOTES).float()

    def _sounding(self, from_s: float, until_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Starts, ends and pitch classes of the notes from one time of the piece to another, the tune repeated."""
        passes = np.arange(max(math.floor(from_s / self.duration_s), 0), math.ceil(until_s / self.duration_s))
        if len(passes) * len(self.times_s) > _MOST_SOUNDING:
            raise InputError(
                f"The score is {self.duration_s:.3g} s long with {len(self.times_s)} notes: repeated it has too many for a window. "
                "Lower its tempo, or give a longer score."
            )
        table = np.array(self.times_s)
        shift = np.repeat(passes * self.duration_s, len(table))
        starts_s, ends_s, pitches = (np.tile(column, len(passes)) for column in table.T)
        return starts_s + shift, ends_s + shift, pitches.astype(int) % _N_NOTES


def _hann(time_s: np.ndarray, window_s: float) -> np.ndarray:
    """Integral of a Hann window of length `window_s` around 0, up to `time_s`."""
    time_s = np.clip(time_s, -window_s / 2, window_s / 2)
    return time_s / 2 + window_s / (4 * np.pi) * np.sin(2 * np.pi * time_s / window_s)


def tune_of(score: Score, config: MelodyConfig, sample_rate_hz: int) -> Tune:
    """The melody of a score in rows of a model, with a projection that leaves them as they are."""
    notes = melody_of(score)
    window = 2**config.radix2_exp
    return Tune(
        tuple(score.times_s(notes)), score.duration_s, sample_rate_hz / (window // 4), window / sample_rate_hz, config.n_frames,
        torch.eye(_N_NOTES), torch.zeros(_N_NOTES),
    )  # fmt: skip


def encode_score(
    conditioner: "Conditioner", conditioning: "Conditioning | Mixture", score: Score
) -> "Conditioning | Mixture":
    """`conditioning`, of a mixture all, with the melody of a score, in place of another melody or chords.

    In longer pieces the score begins anew. InputError: a model without melody conditioning, another engine or model, a score
    without notes.
    """
    config, leaves = conditioner.config, leaves_of(conditioning, "conditioning")
    chroma = check_chroma(config, leaves, "'score' was given as a melody", "melody")
    if chroma.chords:
        raise InputError(
            f"{config.name} follows chords, not melodies. Wire the score's chords, bpm and meter to MusicGen Chords, or load a "
            "melody model."
        )
    if chroma.n_chroma != _N_NOTES:
        raise InputError(
            f"A score has {_N_NOTES} notes, but {config.name} has {chroma.n_chroma} chroma bins. Load another model."
        )
    weight, bias = (parameter.detach().cpu() for parameter in conditioner.melody_projection.parameters())
    tune = replace(tune_of(score, chroma, config.codec.sample_rate_hz), weight=weight, bias=bias)
    return conditioning.mapped(lambda leaf: replace(leaf, melody=tune))
