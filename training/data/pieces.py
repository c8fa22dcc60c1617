"""Clips: what is played, described by a label, and played. A clip follows from its split and number alone."""

from dataclasses import dataclass

import numpy as np

from . import melody, voices
from .jangdan import JANGDAN, Hit, hits
from .modes import MODES, SCALES

SPLITS = ("train", "held-out")
KINDS = {  # (instrument, buk, plain scale): how often
    ("none", True, False): 0.14,
    ("voice", True, False): 0.28,
    ("voice", False, False): 0.10,
    ("daegeum", False, False): 0.07,
    ("daegeum", True, False): 0.09,
    ("gayageum", False, False): 0.07,
    ("gayageum", True, False): 0.09,
    ("voice", False, True): 0.04,
    ("daegeum", False, True): 0.06,
    ("gayageum", False, True): 0.06,
}
PLAYERS = tuple(dict.fromkeys(player for player, *_ in KINDS))
LINE_FRAME_S = 0.02  # of `Clip.line_hz`
_SCALE_TEMPOS_BPM = (90, 120, 150, 180, 210)
_WITHIN = 1 / 6  # chance that a clip begins within a cycle
_RMS, _PEAK = 0.1, 0.9
_ECHOES_S, _ECHO_LEVELS = (0.011, 0.023, 0.037, 0.061), (0.16, 0.12, 0.08, 0.05)


@dataclass(frozen=True)
class Label:
    """What a clip is, in the words of the field; `words.describe` puts it into a sentence."""

    instrument: str  # of PLAYERS; none: the buk alone
    buk: bool
    jangdan: str | None  # None for a plain scale
    bpm: float  # of the jangdan's beats, or of the scale's tones
    mode: str | None  # of MODES or SCALES; None for the buk alone
    tonic: int | None  # pitch class, C = 0
    register: str | None  # deep or high
    upwards: bool = True  # a plain scale begins upwards


@dataclass(frozen=True)
class Clip:
    """One piece of audio with all that is known of it."""

    label: Label
    rate_hz: int
    samples: np.ndarray  # [L] float32
    melodic: np.ndarray | None  # [L] the same without the buk; None where it is alone
    line_hz: np.ndarray  # [T] pitch of the melody per LINE_FRAME_S, NaN for silence
    hits: tuple[Hit, ...]
    line: melody.Contour | None  # the melody finer, and with its loudness


def clip(split: str, number: int, duration_s: float, rate_hz: int) -> Clip:
    """Clip `number` of a split: always the same, whatever was made before it."""
    rng = _generator(split, number)
    return play(draw_label(rng), duration_s, rate_hz, rng)


def start(split: str, number: int) -> tuple[Label, float]:
    """The label of clip `number`, and how many pulses into a cycle it begins, without playing it."""
    rng = _generator(split, number)
    label = draw_label(rng)
    return label, _first_pulse(label, rng)


def draw_label(rng: np.random.Generator) -> Label:
    """A random label, all jangdan and modes alike."""
    chances = np.array(list(KINDS.values()))
    instrument, buk, plain = list(KINDS)[rng.choice(len(KINDS), p=chances / chances.sum())]
    jangdan = JANGDAN[str(rng.choice(list(JANGDAN)))]
    mode = str(rng.choice(list(SCALES if plain else MODES)))
    register = str(rng.choice(["deep", "high"]))
    tonic = int(rng.integers(12))
    bpm = float(rng.choice(_SCALE_TEMPOS_BPM if plain else jangdan.tempos_bpm))
    upwards = bool(rng.random() < 0.6)
    if instrument == "none":
        return Label("none", True, jangdan.name, bpm, None, None, None)
    if plain:
        return Label(instrument, buk, None, bpm, mode, tonic, register, upwards)
    return Label(instrument, buk, jangdan.name, bpm, mode, tonic, register)


def play(label: Label, duration_s: float, rate_hz: int, rng: np.random.Generator) -> Clip:
    """A performance of `label`: the same label with another generator is another piece of the same kind.

    Most begin with a cycle, some anywhere within one, as later windows of a long piece do.
    """
    n = round(duration_s * rate_hz)
    jangdan = JANGDAN[label.jangdan] if label.jangdan else None
    first_pulse = _first_pulse(label, rng)
    melodic, line, line_hz = None, None, np.full(round(duration_s / LINE_FRAME_S), np.nan)
    if label.instrument != "none":
        melodic, line = _play_line(label, first_pulse, duration_s, rate_hz, n, rng)
        line_hz = melody.line_hz(line, LINE_FRAME_S, len(line_hz))
        melodic = _echoed(melodic / max(1e-6, float(np.sqrt(np.mean(melodic**2)))), rate_hz)
    samples = np.zeros(n, np.float32) if melodic is None else melodic
    played: list[Hit] = []
    if label.buk and jangdan:
        played = hits(jangdan, label.bpm, first_pulse, duration_s, rng)
        drum = _echoed(voices.drum(played, rate_hz, n, rng), rate_hz)
        level = 1.0 if melodic is None else rng.uniform(0.8, 1.2) * 3.5  # strokes stand out from the line
        samples = samples + level * drum / max(1e-6, float(np.abs(drum).max()))
    rms, peak = float(np.sqrt(np.mean(samples**2))), float(np.abs(samples).max())
    gain = min(_RMS * 10 ** (rng.uniform(-4, 2) / 20) / max(rms, 1e-6), _PEAK / max(peak, 1e-6))
    return Clip(
        label, rate_hz, (gain * samples).astype(np.float32),
        None if melodic is None else (gain * melodic).astype(np.float32), line_hz, tuple(played), line,
    )  # fmt: skip


def _generator(split: str, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([SPLITS.index(split), number])))


def _first_pulse(label: Label, rng: np.random.Generator) -> float:
    if label.jangdan is None or rng.random() >= _WITHIN:
        return 0.0
    return float(rng.uniform(0, JANGDAN[label.jangdan].n_pulses))


def _play_line(
    label: Label, first_pulse: float, duration_s: float, rate_hz: int, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, melody.Contour]:
    style = {"voice": voices.SORI_STYLE, "daegeum": voices.DAEGEUM_STYLE, "gayageum": voices.GAYAGEUM_STYLE}
    assert label.mode is not None  # the buk alone has no line
    tonic = _tonic_midi(label)
    if label.jangdan:
        notes = melody.compose(
            JANGDAN[label.jangdan], label.bpm, first_pulse, duration_s, MODES[label.mode], tonic, rng
        )
    else:
        notes = melody.plain_scale(SCALES[label.mode], label.bpm, duration_s, tonic, label.upwards, rng)
    line = melody.contour(notes, style[label.instrument], duration_s, rng)
    if label.instrument == "voice":
        deep = label.register == "deep"
        tract = rng.uniform(0.92, 1.0) if deep else rng.uniform(1.08, 1.2)
        singer = voices.Singer(tract, rng.uniform(0.35, 1.0), rng.uniform(1500, 2800))
        return voices.sing(line, singer, rate_hz, n, rng), line
    if label.instrument == "daegeum":
        return voices.blow(line, rate_hz, n, rng), line
    return voices.pluck(notes, line, rate_hz, n, rng), line


def _tonic_midi(label: Label) -> int:
    """The tonic's pitch in the octave of the instrument and register."""
    lowest = {"voice": (46, 55), "daegeum": (55, 67), "gayageum": (45, 57)}[label.instrument]
    assert label.tonic is not None
    low = lowest[0] if label.register == "deep" else lowest[1]
    return low + (label.tonic - low) % 12


def _echoed(x: np.ndarray, rate_hz: int) -> np.ndarray:
    """With the first reflections of a room."""
    out = x.astype(np.float32).copy()
    for time_s, level in zip(_ECHOES_S, _ECHO_LEVELS, strict=True):
        shift = int(time_s * rate_hz)
        out[shift:] += np.float32(level) * x[: len(x) - shift]
    return out
