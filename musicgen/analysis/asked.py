"""Music beside the score that was asked for: both as notes, and how much of the melody is heard."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..audio import Audio, convert
from ..conditioning.chroma import chroma
from ..conditioning.tune import tune_of
from ..config import MelodyConfig
from ..errors import InputError
from ..score import Score
from ..tempo import FASTEST_BPM, SLOWEST_BPM
from .hearing import Heard, hear, heard_parts

_RATE_HZ = 32_000  # of the published melody models
_MOST_PASSES = 500


@dataclass(frozen=True)
class Following:
    """How much of a score's melody is heard in music, in rows of 0.128 s."""

    share: float  # of the rows whose strongest pitch class is the score's
    chance: float  # the same share, were the rows in another order
    n_rows: int

    @property
    def report(self) -> str:
        return (
            f"The score's note is the strongest in {self.share:.0%} of {self.n_rows} rows of 0.128 s "
            f"(chance {self.chance:.0%}: the same notes in another order)."
        )


def following(audio: Audio, score: Score) -> Following:
    """How much of the score's melody, begun anew where it ends, one clip follows. InputError for several clips.

    The measure is the melody models' own row (`conditioning.chroma`), so harmonics and accompaniment count against it.
    """
    if len(audio.samples) != 1:
        raise InputError(
            f"'audio' holds {len(audio.samples)} clips, and one is compared at a time. Choose one with MusicGen Takes."
        )
    config = MelodyConfig()
    mono = convert(audio, _RATE_HZ, 1).samples[0, 0]
    hop = 2**config.radix2_exp // 4
    n_rows = max(len(mono) // hop, 1)
    heard = chroma(mono, _RATE_HZ, config, n_rows)
    asked = replace(tune_of(score, config, _RATE_HZ), n_frames=len(heard)).chroma()
    share = (heard * asked).sum(dim=1).mean()
    chance = (heard.mean(dim=0) * asked.mean(dim=0)).sum()
    return Following(float(share), float(chance), len(heard))


def beside(score: Score, audio: Audio, on_step: Callable[[int, int], None] | None = None) -> tuple[Score, Heard]:
    """A score with the parts that were asked for and those that are heard in one clip, on the score's own tempo and meter.

    The asked parts begin anew until the clip ends. The heard ones are melody, chords and drums, at their times in seconds.
    InputError for a clip that cannot be heard: silence, less than 2 s, more than 20 minutes, several clips.
    """
    quarters = score.tempos[0].bpm
    heard = hear(audio, quarters if SLOWEST_BPM <= quarters <= FASTEST_BPM else 0.0, on_step=on_step)
    asked = repeated(score, audio.duration_s)
    parts = [replace(part, name=f"Asked: {part.name}") for part in asked.parts]
    parts += [replace(part, name=f"Heard: {part.name.lower()}") for part in heard_parts(heard, asked)]
    length = max([asked.length, *(note.end for part in parts for note in part.notes)])
    return replace(asked, parts=tuple(parts), length=length), heard


def repeated(score: Score, duration_s: float) -> Score:
    """The score, begun anew until `duration_s`; a longer one stays as it is."""
    passes = min(math.ceil(duration_s / score.duration_s - 1e-6), _MOST_PASSES)
    n_notes = sum(len(part.notes) for part in score.parts)
    passes = max(min(passes, 50_000 // max(n_notes, 1)), 1)
    if passes == 1:
        return score
    shifts = [score.length * number for number in range(passes)]

    def again(items: tuple) -> tuple:
        return tuple(replace(item, start=item.start + shift) for shift in shifts for item in items)

    parts = tuple(replace(part, notes=again(part.notes)) for part in score.parts)
    return replace(
        score, parts=parts, length=score.length * passes, tempos=again(score.tempos) if len(score.tempos) > 1 else score.tempos,
        meters=again(score.meters) if len(score.meters) > 1 else score.meters, symbols=again(score.symbols),
    )  # fmt: skip
