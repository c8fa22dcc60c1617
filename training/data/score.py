"""A piece of music as notes in seconds, before it has a sound."""

from dataclasses import dataclass, field

DRUM_BANK = 128


@dataclass(frozen=True)
class Note:
    """One tone, or one stroke of a drum kit."""

    start_s: float
    duration_s: float
    pitch: int  # MIDI; of a kit, the General MIDI number of the drum
    velocity: int  # 1..127


@dataclass
class Part:
    """What one player plays."""

    name: str  # of `instruments.INSTRUMENTS`, or the kit
    role: str  # melody, chords, bass, pad, counter, drums
    program: int
    bank: int = 0
    level: int = 100  # MIDI volume
    pan: int = 64
    reverb: int = 40
    notes: list[Note] = field(default_factory=list)

    def add(self, start_s: float, duration_s: float, pitch: int, velocity: float) -> None:
        self.notes.append(Note(start_s, duration_s, int(pitch), max(1, min(127, round(velocity)))))
