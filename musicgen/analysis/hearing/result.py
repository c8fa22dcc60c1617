"""What was heard, with the confidence of each part."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from .chords import ChordSpan
from .notes import Hit, Note
from .sections import Section


@dataclass(frozen=True)
class Heard:
    """A piece as it was heard. Confidences are 0..1; times are seconds from the beginning of the sound."""

    duration_s: float
    bpm: float  # 0 = no pulse
    bpm_confidence: float  # correlation of the onsets with themselves a beat later
    beats_s: tuple[float, ...]
    beats_confidence: float  # share of the onsets that the beats have, against the places halfway between them
    meter: int  # beats in a bar; 0 = not heard
    meter_confidence: float  # 0.5 = the other meter fits as well; 1 = it was given
    downbeats_s: tuple[float, ...]
    downbeats_confidence: float  # 0.5 = bars that begin on another beat fit as well
    key: str  # `C major`; empty = no chord is heard
    key_confidence: float
    tuning_cents: float  # against A = 440 Hz
    chords: tuple[ChordSpan, ...]
    chords_confidence: float  # mean over time
    chord_text: str  # the grammar of chord texts: bars by space, chords of a bar by comma
    sections: tuple[Section, ...]
    melody: tuple[Note, ...]
    drums: tuple[Hit, ...]
    notices: tuple[str, ...]  # fallbacks that were taken, a sentence each
    unit: int = 4  # the note that a beat is; 8 in 6/8

    @property
    def meter_text(self) -> str:
        """`4/4`, `6/8`, or an empty text where no meter is heard."""
        return f"{self.meter}/{self.unit}" if self.meter else ""

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON; numbers to four digits after the point."""
        return _rounded({**asdict(self), "meter": self.meter_text})

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=1)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
