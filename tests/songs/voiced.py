"""A song whose voice is known apart: an accompaniment of known beats and chords, and a sung line of vowels over it."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from comfyui_musicgen.musicgen.audio import Audio, convert

from .music import Score, compose
from .players import RATE_HZ, play

_FORMANTS_HZ = ((700, 1150, 2500), (400, 1900, 2600), (450, 800, 2600))  # a, e, o
SONG_RATE_HZ = 44100


@dataclass(frozen=True)
class Voiced:
    """A song in stereo at 44.1 kHz, its voice and its accompaniment, whose sum it is."""

    score: Score
    song: Audio
    voice: Audio  # louder on the left
    music: Audio


def voiced_song(seed: int, seconds: float | None = None) -> Voiced:
    """The song of a seed: its melody sung, panned to the left; the other instruments in mono."""
    score = compose(seed)
    music = play(replace(score, melody=[]), seed)
    voice = _sung(score, seed, len(music))
    n = len(music) if seconds is None else round(seconds * RATE_HZ)
    music, voice = (torch.from_numpy(part[:n].astype(np.float32))[None, None] for part in (music, voice))
    voice = torch.cat([0.35 * voice, 0.15 * voice], dim=1)
    parts = [convert(Audio(part, RATE_HZ), SONG_RATE_HZ, 2) for part in (0.5 * music, voice)]
    return Voiced(score, Audio(parts[0].samples + parts[1].samples, SONG_RATE_HZ), parts[1], parts[0])


def _sung(score: Score, seed: int, n: int) -> np.ndarray:
    """[n]: harmonics under the formants of a vowel a note, with vibrato and breath. Peak 1."""
    rng, out = np.random.default_rng([seed, 27]), np.zeros(n)
    for note in score.melody:
        t = np.arange(int((note.end_s - note.start_s) * RATE_HZ)) / RATE_HZ
        if len(t) < 100:
            continue
        pitch_hz = 440 * 2 ** ((note.pitch - 12 - 69) / 12)
        depth = pitch_hz * 0.012 * np.minimum(1, t / 0.3)
        phase = 2 * np.pi * (pitch_hz * t + np.cumsum(depth * np.sin(2 * np.pi * 5.2 * t)) / RATE_HZ)
        formants, sound = _FORMANTS_HZ[int(rng.integers(3))], 0.02 * rng.standard_normal(len(t))
        for number in range(1, int(4000 / pitch_hz) + 1):
            level = sum(
                np.exp(-0.5 * ((number * pitch_hz - centre) / (90 + 0.08 * centre)) ** 2) for centre in formants
            )
            sound += (level + 0.05) / number**0.5 * np.sin(number * phase)
        sound *= np.minimum(1, t / 0.06) * np.minimum(1, (t[-1] - t) / 0.08) * note.velocity
        first = int(note.start_s * RATE_HZ)
        part = out[first : first + len(sound)]
        part += sound[: len(part)]
    return out / max(np.abs(out).max(), 1e-9)
