"""Melody lines: notes of a mode on the grid of a jangdan, and the pitch they make from moment to moment."""

from dataclasses import dataclass

import numpy as np

from .jangdan import Jangdan
from .modes import OCTAVE, Mode

CONTROL_HZ = 250  # of pitch and loudness before they are made as fine as the audio
_A4_MIDI, _A4_HZ = 69, 440.0


@dataclass(frozen=True)
class Note:
    """One tone."""

    start_s: float
    duration_s: float
    midi: float  # where it ends up
    gesture: str  # plain, vibrato, trembling, breaking
    swing_semitones: float = 0.0  # half of the vibrato's
    from_midi: float | None = None  # of a breaking tone: where it is struck


@dataclass(frozen=True)
class Contour:
    """Pitch and loudness of a line at CONTROL_HZ, both [n]."""

    midi: np.ndarray
    loudness: np.ndarray  # 0..1, 0 where there is silence

    def hz(self) -> np.ndarray:
        return _A4_HZ * 2.0 ** ((self.midi - _A4_MIDI) / OCTAVE)


@dataclass(frozen=True)
class Style:
    """How an instrument moves from tone to tone."""

    glide_s: float  # time constant of the pitch
    scoop_semitones: float  # how far below its pitch a tone begins, at most
    rate_hz: tuple[float, float]  # of the vibrato
    swing: float  # factor of the vibrato's depth
    attack_s: float


def compose(
    jangdan: Jangdan, bpm: float, first_pulse: float, duration_s: float, mode: Mode, tonic_midi: int,
    rng: np.random.Generator,
) -> list[Note]:  # fmt: skip
    """A line of phrases, each with a breath at its end, that wander through about an octave and a half."""
    pulse_s, per_beat = jangdan.pulse_s(bpm), jangdan.pulses_per_beat
    beat_s = pulse_s * per_beat
    notes: list[Note] = []
    pulse = float(np.ceil(first_pulse))
    degree = int(rng.choice([0, 0, 2, len(mode.tones)]))
    top = int(1.4 * len(mode.tones))
    left = _phrase_beats(beat_s, rng)
    while (start_s := (pulse - first_pulse) * pulse_s) < duration_s:
        for length in _rhythm(per_beat, beat_s, rng):
            degree = _next_degree(degree, top, rng)
            start_s = (pulse - first_pulse) * pulse_s
            notes.append(_note(start_s, length * pulse_s, mode, tonic_midi, degree, rng))
            pulse += length
            left -= length / per_beat
        if left <= 0:
            last = notes[-1]
            degree = int(rng.choice([0, 0, len(mode.tones)])) if degree < top * 0.6 else len(mode.tones)
            notes[-1] = _note(last.start_s, last.duration_s, mode, tonic_midi, degree, rng)
            rest = 1 if beat_s > 0.4 else 2
            pulse += rest * per_beat if rng.random() < 0.7 else 0
            left = _phrase_beats(beat_s, rng)
    return notes


def plain_scale(
    scale: Mode, bpm: float, duration_s: float, tonic_midi: int, upwards: bool, rng: np.random.Generator
) -> list[Note]:
    """The tones of a scale one after another, a beat each, up and down (or down and up) until the end."""
    top = len(scale.tones)
    climb = list(range(top + 1))
    cycle = climb + climb[-2:0:-1] if upwards else climb[::-1] + climb[1:-1]
    beat_s, length = 60.0 / bpm, rng.uniform(0.8, 0.98)
    n_notes = int(np.ceil(duration_s / beat_s))
    degrees = [cycle[i % len(cycle)] for i in range(n_notes)]
    return [
        Note(i * beat_s, length * beat_s, tonic_midi + scale.pitch(degree), "plain") for i, degree in enumerate(degrees)
    ]


def contour(notes: list[Note], style: Style, duration_s: float, rng: np.random.Generator) -> Contour:
    """What the notes sound like: glides, vibrato, breaking tones, and a loudness that swells and falls."""
    n = round(duration_s * CONTROL_HZ)
    midi, loudness = np.full(n, np.nan), np.zeros(n)
    for note in notes:
        first, last = int(note.start_s * CONTROL_HZ), int((note.start_s + note.duration_s) * CONTROL_HZ)
        time_s = np.arange(last - first) / CONTROL_HZ
        stop = min(last, n)
        if stop <= first:
            continue
        midi[first:stop] = _pitch_of(note, time_s, style, rng)[: stop - first]
        loudness[first:stop] = _loudness_of(note, time_s, style, rng)[: stop - first]
    return Contour(_smoothed(_held(midi), style.glide_s), _smoothed(loudness, style.attack_s))


def line_hz(contour_: Contour, frame_s: float, n_frames: int) -> np.ndarray:
    """Pitch of each frame's middle [n_frames] in Hz, NaN where nothing sounds."""
    index = np.clip(((np.arange(n_frames) + 0.5) * frame_s * CONTROL_HZ).astype(int), 0, len(contour_.midi) - 1)
    return np.where(contour_.loudness[index] > 0.1, contour_.hz()[index], np.nan)


def _phrase_beats(beat_s: float, rng: np.random.Generator) -> float:
    return rng.uniform(2.0, 4.0) / beat_s


def _rhythm(per_beat: int, beat_s: float, rng: np.random.Generator) -> tuple[int, ...]:
    """Lengths in pulses of the next notes: long in a quick jangdan, split in a slow one."""
    if beat_s > 1.2:
        choices = ((per_beat,), (2, 1), (1, 1, 1), (2 * per_beat,), (1, 2))
    elif beat_s > 0.4:
        choices = ((per_beat,), (2, 1) if per_beat == 3 else (1, 1), (2 * per_beat,), (1,) * per_beat)
    else:
        choices = ((per_beat,), (2 * per_beat,), (2 * per_beat,), (1,) * per_beat)
    return choices[rng.integers(len(choices))]


def _next_degree(degree: int, top: int, rng: np.random.Generator) -> int:
    step = int(rng.choice([-2, -1, -1, 0, 1, 1, 2]))
    if degree + step < -1 or degree + step > top:
        step = -step
    return degree + step


def _note(
    start_s: float, duration_s: float, mode: Mode, tonic_midi: int, degree: int, rng: np.random.Generator
) -> Note:
    pitch = mode.pitch(degree)
    tone = pitch % OCTAVE
    if mode.breaking and tone == mode.breaking[0] and duration_s > 0.2:
        landing = pitch - mode.breaking[0] + mode.breaking[1]
        return Note(start_s, duration_s, tonic_midi + landing, "breaking", from_midi=tonic_midi + pitch)
    if tone == mode.trembling and duration_s > 0.25:
        return Note(start_s, duration_s, tonic_midi + pitch, "trembling", rng.uniform(0.6, 1.0))
    if duration_s > 0.45:
        return Note(start_s, duration_s, tonic_midi + pitch, "vibrato", mode.vibrato_semitones)
    return Note(start_s, duration_s, tonic_midi + pitch, "plain")


def _pitch_of(note: Note, time_s: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    midi = np.full(len(time_s), float(note.midi))
    if note.gesture == "breaking":
        midi[time_s < rng.uniform(0.3, 0.45) * note.duration_s] = note.from_midi
    elif style.scoop_semitones and rng.random() < 0.5:
        midi -= style.scoop_semitones * rng.random() * np.exp(-time_s / 0.05)
    if note.swing_semitones:
        rate_hz = rng.uniform(*style.rate_hz)
        onset = np.clip((time_s - 0.12) / 0.2, 0, 1)  # a tone is straight before it begins to tremble
        midi += style.swing * note.swing_semitones * onset * np.sin(2 * np.pi * rate_hz * time_s)
    return midi


def _loudness_of(note: Note, time_s: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    level = rng.uniform(0.7, 1.0)
    release_s = min(0.06, 0.3 * note.duration_s)
    decay = 1 - 0.35 * np.clip(time_s / max(note.duration_s, 0.6), 0, 1)
    closing = np.clip((note.duration_s - time_s) / release_s, 0.25, 1)  # never quite shut: notes are slurred
    opening = np.clip(0.35 + time_s / style.attack_s, 0, 1)
    if note.duration_s - time_s[-1] < 2 / CONTROL_HZ:
        closing[-1] = 0.2
    return level * decay * closing * opening


def _held(midi: np.ndarray) -> np.ndarray:
    """Fill rests with the tone before them (the first one with the tone after it)."""
    known = np.flatnonzero(~np.isnan(midi))
    if len(known) == 0:
        return np.full(len(midi), float(_A4_MIDI))
    before = np.searchsorted(known, np.arange(len(midi)), side="right") - 1
    return midi[known[np.clip(before, 0, None)]]


def _smoothed(x: np.ndarray, time_s: float) -> np.ndarray:
    """Convolved with a raised cosine about `time_s` wide on each side."""
    reach = max(1, round(time_s * CONTROL_HZ))
    window = np.hanning(2 * reach + 3)[1:-1]
    return np.convolve(np.pad(x, reach, mode="edge"), window / window.sum(), mode="valid")
