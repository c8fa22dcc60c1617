"""A piece of music as notes in seconds, before it has a sound."""

from dataclasses import dataclass, field

DRUM_BANK = 128
# Notes begin and end where a frame of the codec does, at few loudnesses. A tone is then nearly the same codes wherever it
# comes: of two, 0.79 of the first codebook's are equal, and 0.14 where onsets, strokes and levels are continuous.
FRAME_S, _VELOCITY_STEP = 0.02, 16
_LATER = 1e-4  # of a frame: sums of times are not exact


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
        """Rounded to frames and to steps of velocity."""
        start_s, end_s = on_frame(max(0.0, start_s)), on_frame(start_s + duration_s)
        steps = max(1, min(127 // _VELOCITY_STEP, round(velocity / _VELOCITY_STEP)))
        self.notes.append(Note(start_s, max(FRAME_S, end_s - start_s), int(pitch), _VELOCITY_STEP * steps))


def on_frame(time_s: float) -> float:
    """The nearest time at which a frame begins; the later one of two that are as near, so that each beat is as the one before."""
    return int(time_s / FRAME_S + 0.5 + _LATER) * FRAME_S


def beat_on_frames(bpm: float) -> float:
    """The nearest tempo whose beats are whole frames: at most 3 % from it at 190 bpm, 1 % at 60."""
    return 60 / (FRAME_S * round(60 / bpm / FRAME_S))
