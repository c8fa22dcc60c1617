"""A piece from its samples to everything that is heard in it."""

import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...audio import Audio, convert
from ...errors import InputError
from ...tempo import FASTEST_BPM, SLOWEST_BPM, pulse_of, smoothed
from ..choices import MAX_METER, VOCABULARIES
from .beats import Onsets, hear_onsets
from .chords import NONE, bar_text, hear_chords, spans
from .key import hear_key
from .notes import hear_drums, hear_melody
from .result import Heard
from .rhythm import Rhythm, hear_rhythm, read_beats
from .sections import find_sections
from .spectrum import RATE_HZ, Pitches, hear_pitches
from .tracker import track_with_model

logger = logging.getLogger(__name__)

OnStep = Callable[[int, int], None]

SHORTEST_S, LONGEST_S = 2.0, 1200.0
SILENT_DB = -60.0
_PIECE_S = 10
_GRID_S = 0.5  # chords of a piece without a pulse are looked for at this distance
_LEAST_PULSE = 0.15  # noise has up to 0.08; pieces with and without drums 0.45 and more
_LEAST_ONSET_DB = 2.0  # mean rise over all bands of the strongest onsets; a tone that swells has 0.5
_TONAL = 0.2  # share of time with a chord, below which there is no key
_NO_PULSE = (
    "tempo is 0, meter and downbeats are empty, chords are looked for each half second, and the chord text lists their changes "
    "without bars."
)
_STAGES = {"samples": 5, "onsets": 5, "pitches": 50, "beats": 25, "melody": 15}  # of 100


def hear(
    audio: Audio,
    bpm: float = 0.0,
    meter: int = 0,
    vocabulary: str = "triads",
    beat_model: Path | None = None,
    on_step: OnStep | None = None,
) -> Heard:
    """Everything that is heard in one clip [1, C, L]: tempo, beats, bars, key, chords, sections, melody and drums.

    bpm: expected tempo; one within 30 % of it is given. 0 = any. meter: beats in a bar, 0 = three, four or, in 6/8, six
    eighths, as heard; of these `bpm` and the beats are then.
    vocabulary: "triads" or "sevenths". beat_model: checkpoint of beat-this, instead of the built-in tracker.
    on_step(done, total) is called several times a second; what it raises ends the work.

    Without a pulse: bpm, meter, beats and downbeats are 0 or empty, and chords are looked for each half second; `notices` says
    so, and the log. InputError: several clips, silence, shorter than 2 s or longer than 20 min, values out of range.
    """
    check_hearing(audio, bpm, meter, vocabulary)
    stages = _Stages(on_step)
    mono = _mono(audio, stages.next("samples"))
    with torch.inference_mode():
        onsets = hear_onsets(mono, RATE_HZ, stages.next("onsets"))
        pitches = hear_pitches(mono, stages.next("pitches"))
        rhythm, confidence, notices = _rhythm(
            mono, onsets, pitches, bpm, meter, vocabulary, beat_model, stages.next("beats")
        )
    heard = _heard(audio.duration_s, onsets, pitches, rhythm, confidence, vocabulary, notices)
    heard = replace(heard, melody=hear_melody(pitches, stages.next("melody")), drums=hear_drums(onsets))
    for notice in heard.notices:
        logger.warning("hearing: %s", notice)
    stages.end()
    return heard


def _mono(audio: Audio, check: Callable[[float], None]) -> torch.Tensor:
    """Mono samples [L] at RATE_HZ, the largest 1: converted ten seconds at a time, with a second on each side."""
    rate_hz, n = audio.rate_hz, math.ceil(audio.duration_s)
    parts = []
    for first in range(0, n, _PIECE_S):
        check(first / n)
        before = min(first, 1)
        part = audio.samples[..., (first - before) * rate_hz : (first + _PIECE_S + 1) * rate_hz]
        converted = convert(Audio(part, rate_hz), RATE_HZ, 1).samples[0, 0, before * RATE_HZ :]
        parts.append(converted[: _PIECE_S * RATE_HZ])
    mono = torch.cat(parts)
    return mono / mono.abs().max()


class _Stages:
    """Shares of stages to steps of 100."""

    def __init__(self, on_step: OnStep | None) -> None:
        self._on_step, self._done, self._size = on_step or (lambda done, total: None), 0, 0

    def next(self, name: str) -> Callable[[float], None]:
        """check(share) of the next stage."""
        self._done, self._size = self._done + self._size, _STAGES[name]
        start, size = self._done, self._size
        return lambda share: self._on_step(int(start + share * size), 100)

    def end(self) -> None:
        self._on_step(100, 100)


def check_hearing(audio: Audio, bpm: float = 0.0, meter: int = 0, vocabulary: str = VOCABULARIES[0]) -> None:
    """InputError for what `hear` refuses: several clips, silence, shorter than 2 s or longer than 20 min, values out of range."""
    if len(audio.samples) != 1:
        raise InputError(
            f"'audio' holds {len(audio.samples)} clips, and one is heard at a time. Choose one with MusicGen Takes."
        )
    if not SHORTEST_S <= audio.duration_s <= LONGEST_S:
        raise InputError(
            f"'audio' is {audio.duration_s:.2f} s long, and {SHORTEST_S:g} s to {LONGEST_S / 60:g} min can be heard. "
            + ("Give a longer clip." if audio.duration_s < SHORTEST_S else "Cut a part with Trim Audio.")
        )
    peak_db = 20 * float(torch.log10(audio.samples.abs().max().clamp(min=1e-9)))
    if peak_db < SILENT_DB:
        raise InputError(
            f"'audio' is silent: its loudest sample is at {peak_db:.0f} dB, and {SILENT_DB:g} dB or more can be heard. Give audible music."
        )
    if bpm and not SLOWEST_BPM <= bpm <= FASTEST_BPM:
        raise InputError(f"'bpm' must be from {SLOWEST_BPM:g} to {FASTEST_BPM:g}, or 0 to have it heard, got {bpm:g}")
    if meter and not 2 <= meter <= MAX_METER:
        raise InputError(f"'meter' must be from 2 to {MAX_METER} beats, or 0 to have it heard, got {meter}")
    if vocabulary not in VOCABULARIES:
        raise InputError(f"'vocabulary' must be one of {', '.join(VOCABULARIES)}, got {vocabulary!r}")


def _rhythm(
    mono: torch.Tensor,
    onsets: Onsets,
    pitches: Pitches,
    bpm: float,
    meter: int,
    vocabulary: str,
    beat_model: Path | None,
    check: Callable[[float], None],
) -> tuple[Rhythm | None, float, tuple[str, ...]]:
    """(reading or None without a pulse, confidence of the tempo, notices)."""
    pulse = pulse_of(smoothed(torch.from_numpy(onsets.all).float()), onsets.frame_s, bpm or None)
    if beat_model is not None:
        beats_s, downbeats_s = track_with_model(mono, RATE_HZ, beat_model, check)
        if len(beats_s) >= 3:
            rhythm = read_beats(onsets, pitches, beats_s, downbeats_s, meter, vocabulary)
            return rhythm, pulse[1] if pulse else 0.0, ()
        return None, 0.0, (f"No pulse is heard by {beat_model.name}: {_NO_PULSE}",)
    if pulse is None or pulse[1] < _LEAST_PULSE or np.percentile(onsets.all, 98) < _LEAST_ONSET_DB:
        return None, 0.0, (f"No pulse is heard: {_NO_PULSE}",)
    rhythm = hear_rhythm(onsets, pitches, pulse[0], meter, vocabulary, not bpm, check)
    if rhythm is None:
        return None, 0.0, (f"Fewer than eight beats are heard: {_NO_PULSE}",)
    return rhythm, pulse[1], ()


def _heard(
    duration_s: float,
    onsets: Onsets,
    pitches: Pitches,
    rhythm: Rhythm | None,
    confidence: float,
    vocabulary: str,
    notices: tuple[str, ...],
) -> Heard:
    """Everything but melody and drums."""
    edges_s = np.arange(0, duration_s + 1e-6, _GRID_S) if rhythm is None else rhythm.edges_s
    chords = hear_chords(pitches.between(edges_s), vocabulary) if rhythm is None else rhythm.chords
    found = spans(chords, edges_s)
    tonal = sum(span.end_s - span.start_s for span in found if span.label != NONE) / float(edges_s[-1] - edges_s[0])
    key, key_confidence = hear_key(chords.chroma.mean(axis=0), chords.labels) if tonal >= _TONAL else ("", 0.0)
    if not key:
        notices += ("Hardly any chord is heard: the key is empty.",)
    first = np.flatnonzero(rhythm.bars.positions == 0) if rhythm else np.zeros(0, dtype=int)
    bar_edges_s = np.append(edges_s[first], edges_s[-1]) if len(first) else edges_s[[0, -1]]
    if rhythm and len(first) < 2:
        notices += ("Less than two bars are heard: meter and downbeats are guesses.",)
    certain = rhythm is not None and len(first) >= 2
    return Heard(
        duration_s=duration_s,
        bpm=rhythm.bpm if rhythm else 0.0,
        bpm_confidence=confidence,
        beats_s=tuple(map(float, rhythm.beats_s)) if rhythm else (),
        beats_confidence=float(1 / (1 + np.exp(-rhythm.on_beat))) if rhythm else 0.0,
        meter=rhythm.bars.meter if rhythm else 0,
        meter_confidence=rhythm.bars.meter_confidence if certain and rhythm else 0.0,
        downbeats_s=tuple(map(float, edges_s[first])),
        downbeats_confidence=rhythm.bars.confidence if certain and rhythm else 0.0,
        key=key,
        key_confidence=key_confidence,
        tuning_cents=pitches.tuning_cents,
        chords=found,
        chords_confidence=float(np.average(chords.probability, weights=np.diff(edges_s))),
        chord_text=_chord_text(chords.labels, first) if len(first) else " ".join(span.label for span in found),
        sections=find_sections(_bar_features(onsets, pitches, bar_edges_s), bar_edges_s),
        melody=(),
        drums=(),
        notices=notices,
        unit=8 if rhythm and rhythm.bars.meter == 6 else 4,
    )


def _chord_text(labels: list[str], first: np.ndarray) -> str:
    """Bars from the first downbeat on. labels: of each beat; first: numbers of the downbeats."""
    return " ".join(bar_text(labels[start:end]) for start, end in zip(first, [*first[1:], len(labels)]))


def _bar_features(onsets: Onsets, pitches: Pitches, edges_s: np.ndarray) -> np.ndarray:
    """What sounds in each bar, [n, F]: pitches, onsets by band, and onsets by twelfth of the bar, of equal weight."""
    frames = np.clip(np.round(edges_s / onsets.frame_s).astype(int), 0, len(onsets.all) - 1)
    bands, twelfths = [], []
    for start, end in itertools.pairwise(frames):
        bands.append(onsets.bands[start : max(end, start + 1)].mean(axis=0))
        slots = np.linspace(start, end, 13).astype(int)
        twelfths.append([onsets.all[slot : max(after, slot + 1)].mean() for slot, after in itertools.pairwise(slots)])
    features = []
    for part in (pitches.between(edges_s), np.array(bands), np.array(twelfths)):
        spread = part.std(axis=0)
        scale = np.maximum(spread + 0.3 * spread.mean(), 1e-9) * part.shape[1] ** 0.5  # what hardly varies says little
        features.append((part - part.mean(axis=0)) / scale)
    return np.hstack(features)
