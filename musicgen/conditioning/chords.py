"""Chords at a tempo: their times, their rows as a chord model sees them, and the conditioning with them.

A row has a 1 for each note that sounds, C first, and lasts 0.128 s in the published models. Bar k begins at the row nearest
to its time, chords inside a bar at the rows nearest to theirs, and the progression begins anew where it ends.
Source: `sakemin/cog-musicgen-chord`, `ChromaChordConditioner`, which hurries through bars of several chords, drifts in
the windows of long pieces and shifts the first row of a batch alone. It is reproduced by `chords_reference`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..units import Meter, check_bpm
from .chord_labels import pitch_classes
from .chord_text import parse_bars
from .chords_reference import ReferenceProgression
from .chroma import NO_ANCHOR, Anchor
from .melody import check_chroma
from .mixture import Mixture, leaves_of

if TYPE_CHECKING:
    from .chord_times import TimedChords
    from .conditioner import Conditioner, Conditioning

logger = logging.getLogger(__name__)

BPM, METER = 120.0, "4/4"
STRENGTH, MAX_STRENGTH = 1.0, 2.5
_N_NOTES = 12


@dataclass(frozen=True)
class Chord:
    """One chord at its time, in seconds from the beginning of the piece."""

    start_s: float
    end_s: float
    label: str  # as it was written


class Rows(Protocol):
    """A progression that gives rows [n, 12] of any window."""

    def rows(self, start_s: float, n_rows: int, rate_hz: float) -> Tensor: ...


@dataclass(frozen=True)
class Progression:
    """Bars of chords at a tempo. `bpm` counts the meter's unit: 6/8 at 120 lasts 3 s, as in the original."""

    bars: tuple[tuple[str, ...], ...]  # labels
    bpm: float
    meter: Meter

    @classmethod
    def parse(
        cls, text: str, bpm: float = BPM, meter: str = METER, names: tuple[str, str] = ("chords", "meter")
    ) -> "Progression":
        """Grammar: `chord_text`. InputError names the bar and the word, or the tempo or meter that is wrong.

        names: of the inputs `text` and `meter`, for the errors.
        """
        tempo, checked = check_bpm(bpm), Meter.parse(meter, names[1])
        return cls(tuple(parse_bars(text, names[0])), tempo, checked)

    @property
    def bar_s(self) -> float:
        return 60 / (self.bpm / self.meter.beats)

    @property
    def duration_s(self) -> float:
        """Of one pass."""
        return len(self.bars) * self.bar_s

    def chords(self) -> list[Chord]:
        """One pass, in order; chords of a bar have equal shares of it."""
        return [
            Chord((k + j / len(bar)) * self.bar_s, (k + (j + 1) / len(bar)) * self.bar_s, label)
            for k, bar in enumerate(self.bars)
            for j, label in enumerate(bar)
        ]

    def check_rows(self, rate_hz: float) -> None:
        """InputError, naming the bar, for chords shorter than a row of a model with `rate_hz` rows a second."""
        most = int(self.bar_s * rate_hz)
        for number, bar in enumerate(self.bars, 1):
            if len(bar) > most:
                allowed = f"at most {most} chords a bar can be followed" if most else "no bar can be followed"
                raise InputError(
                    f"'chords', bar {number} as it is played, has {len(bar)} chords in {self.bar_s:.3g} s, but the model sees "
                    f"{rate_hz:.4g} rows a second: {allowed} at this tempo. Take fewer, or lower 'bpm'."
                )

    def rows(self, start_s: float, n_rows: int, rate_hz: float) -> Tensor:
        """Rows [n_rows, 12] of 0 and 1 from `start_s` of the piece on; `rate_hz` rows a second."""
        first, bar_rows = round(start_s * rate_hz), self.bar_s * rate_hz
        table = {label: row_of(label) for bar in set(self.bars) for label in bar}
        parts, begin, offset, k = [], 0, 0.0, 0
        while begin < first + n_rows:
            bar = self.bars[k % len(self.bars)]
            exact = offset + bar_rows  # the error is carried on, as in the original: no drift, and its ties
            n = round(exact)
            if begin + n > first:
                ends = [round(offset + (j + 1) / len(bar) * bar_rows) for j in range(len(bar) - 1)] + [n]
                for label, start, end in zip(bar, [0, *ends], ends, strict=False):
                    start, end = max(begin + start, first), max(begin + end, first)
                    parts.append(table[label].expand(end - start, -1))
            offset, begin, k = exact - n, begin + n, k + 1
        return torch.cat(parts)[:n_rows]


def row_of(label: str) -> Tensor:
    """[12] of 0 and 1: the notes of a label."""
    notes = pitch_classes(label)
    return torch.tensor([float(note in notes) for note in range(_N_NOTES)])


def chord_list(chords: Sequence[Chord]) -> str:
    """A line a chord: start and end in seconds, label; tabs between them, as in the .lab files of chord annotations."""
    return "\n".join(f"{chord.start_s:.3f}\t{chord.end_s:.3f}\t{chord.label}" for chord in chords)


@dataclass(frozen=True)
class Chords:
    """Chords with the projection of their rows; stands where a `Melody` does. On the CPU; never altered in place."""

    progression: Rows
    strength: float  # factor of the rows
    rate_hz: float  # rows a second
    n_frames: int  # rows of a window
    weight: Tensor  # [D, 12], the projection
    bias: Tensor  # [D]
    rest: Tensor | None = None  # [D], stands for rows without notes; None = their projection

    def chroma(self, start_s: float | None = None, anchor: Anchor = NO_ANCHOR) -> Tensor:
        """Rows [n_frames, 12] of 0 and 1 of the window that starts at `start_s` of the piece; None = at its beginning.

        anchor: what is earlier music at the window's start has the chords of its own time.
        """
        rows = self.progression.rows(start_s or 0.0, self.n_frames, self.rate_hz)
        n_anchor = int(anchor[0] * self.rate_hz)
        if not n_anchor:
            return rows
        return torch.cat([self.progression.rows(anchor[1], n_anchor, self.rate_hz), rows[n_anchor:]])

    @torch.inference_mode()
    def embed(self, start_s: float | None = None, anchor: Anchor = NO_ANCHOR) -> Tensor:
        """The rows of `chroma` times `strength`, projected: [n_frames, D]."""
        rows = self.chroma(start_s, anchor)
        projected = F.linear(self.strength * rows, self.weight, self.bias)
        return projected if self.rest is None else torch.where(rows.any(dim=1, keepdim=True), projected, self.rest)


def encode_chords(
    conditioner: "Conditioner",
    conditioning: "Conditioning | Mixture",
    chords: "Progression | TimedChords | ReferenceProgression",
    strength: float = STRENGTH,
) -> "Conditioning | Mixture":
    """`conditioning`, of a mixture all, with chords, in place of a melody if it has one.

    strength: factor of the rows, 0 to 2.5; 1 = as trained. A melody model takes the rows of no chord as the silence that it
    knows, and those of chords as an experiment, unless its card says that it was taught them.
    InputError: a model without chord and melody conditioning, chords shorter than a row, another engine, another model.
    """
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= MAX_STRENGTH:
        raise InputError(f"'strength' must be a number from 0 to {MAX_STRENGTH:g} (1 = as trained), got {strength!r}")
    config, leaves = conditioner.config, leaves_of(conditioning, "conditioning")
    chroma = check_chroma(config, leaves, "'chords' were given", "chord or melody")
    if chroma.n_chroma != _N_NOTES:
        raise InputError(
            f"'chords' have {_N_NOTES} notes, but {config.name} has {chroma.n_chroma} chroma bins. Load another model."
        )
    rate_hz = config.codec.sample_rate_hz / (2**chroma.radix2_exp // 4)
    if isinstance(chords, Progression):
        chords.check_rows(rate_hz)
    elif not isinstance(
        chords, ReferenceProgression
    ):  # times of a recording: 235 rows in 30 s, as the original has them
        rate_hz = chroma.n_frames / config.segment_s
    weight, bias = (parameter.detach().cpu() for parameter in conditioner.melody_projection.parameters())
    rest = None
    if not chroma.chords:
        rest = None if (null := leaves[0].null_melody) is None else null[0]
    if note := experiment(conditioner):
        logger.warning(note)
    stands = Chords(chords, float(strength), rate_hz, chroma.n_frames, weight, bias, rest)
    return conditioning.mapped(lambda leaf: replace(leaf, melody=stands))


def experiment(conditioner: "Conditioner") -> str | None:
    """A sentence on what a melody model makes of chords; None for a model that was taught them."""
    config, vocabulary = conditioner.config, conditioner.vocabulary
    if config.melody is None or config.melody.chords or (vocabulary is not None and vocabulary.chords):
        return None
    return f"{config.name} is a melody model, trained on one note at a time: chords are an experiment. A chord model follows them."


def described(progression: "Progression | TimedChords") -> str:
    """A sentence on how long a progression is and what follows it."""
    if not isinstance(progression, Progression):
        return progression.description
    n, meter = len(progression.bars), progression.meter
    return (
        f"{n} bar{'s' if n > 1 else ''} of {meter.beats}/{meter.unit} at {progression.bpm:g} bpm: {progression.duration_s:.6g} s. "
        "Longer music begins them anew, shorter music ends within them."
    )
