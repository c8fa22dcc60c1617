"""Single lines: melodies that walk through a scale, played by harmonic tones or hummed by a voice of pulses and formants."""

from fractions import Fraction

import numpy as np
import torch

from ...musicgen.audio import Audio
from ...musicgen.score import Note, Part, Score, melody_of, read_notes

RATE_HZ = 32_000
VOICE_RATE_HZ = 22_050
FORMANTS_HZ = ((600, 80), (1000, 100), (2400, 160))
MAJOR = (0, 2, 4, 5, 7, 9, 11)


def walk(seed, n_notes=40, key=0, steps=MAJOR):
    """A melody of a scale, of notes from a half beat to two beats at 120."""
    rng = np.random.default_rng(seed)
    place, degree, notes, n = Fraction(0), 0, [], len(steps)
    for _ in range(n_notes):
        degree = int(np.clip(degree + rng.integers(-3, 4), -5, 9))
        length = Fraction(int(rng.choice([2, 2, 4, 4, 6, 8])), 4)
        notes.append(Note(place, length, 60 + key + 12 * (degree // n) + steps[degree % n]))
        place += length
    return Score((Part("Melody", tuple(notes)),), place)


def played(score, harmonics=(1.0, 0.5, 0.25, 0.12)):
    """Samples [L] of a score's melody at RATE_HZ: harmonic tones with a short attack and release, and a little noise."""
    samples = np.zeros(int(score.duration_s * RATE_HZ))
    for start_s, end_s, pitch in score.times_s(melody_of(score)):
        t = np.arange(int((end_s - start_s) * RATE_HZ)) / RATE_HZ
        frequency_hz = 440 * 2 ** ((pitch - 69) / 12)
        tone = sum(level * np.sin(2 * np.pi * frequency_hz * number * t) for number, level in enumerate(harmonics, 1))
        envelope = np.minimum(1, np.minimum(t / 0.01, (end_s - start_s - t) / 0.02).clip(0))
        first = int(start_s * RATE_HZ)
        samples[first : first + len(t)] += (tone * envelope)[: len(samples) - first]
    noise = np.random.default_rng(0).standard_normal(len(samples))
    return torch.from_numpy(0.1 * samples + 1e-4 * noise).float()


def hummed(text, seed=0, vibrato_cents=40, glide_s=0.06, cents=None):
    """(score, clip) of typed notes: pitch glides from note to note with vibrato, breath is mixed in, the voice is out of tune."""
    rng = np.random.default_rng(seed)
    score = read_notes(text)
    notes = score.times_s(score.parts[0].notes)
    t = np.arange(int((score.duration_s + 0.3) * VOICE_RATE_HZ)) / VOICE_RATE_HZ
    pitch, level = np.full(len(t), float(notes[0][2])), np.zeros(len(t))
    for start_s, end_s, midi in notes:
        pitch[t >= start_s] = midi
        level[(t >= start_s) & (t < end_s - 0.03)] = 1
    size = int(glide_s * VOICE_RATE_HZ)
    pitch = np.convolve(np.pad(pitch, (size, size), mode="edge"), np.ones(size) / size, "same")[size:-size]
    level = np.convolve(level, np.ones(600) / 600, "same")
    cents = rng.uniform(-45, 45) if cents is None else cents
    vibrato = vibrato_cents * np.sin(2 * np.pi * 5.5 * t + rng.uniform(0, 6))
    frequency_hz = 440 * 2 ** ((pitch - 69 + (cents + vibrato + 8 * rng.standard_normal()) / 100) / 12)
    phase = 2 * np.pi * np.cumsum(frequency_hz) / VOICE_RATE_HZ
    sound = np.zeros(len(t))
    for number in range(1, 25):
        harmonic_hz = frequency_hz * number
        gain = sum(np.exp(-(((harmonic_hz - centre) / (2 * width)) ** 2)) for centre, width in FORMANTS_HZ) + 0.08
        sound += np.where(harmonic_hz < 9000, gain / number, 0) * np.sin(number * phase)
    sound = level * (sound + 0.03 * rng.standard_normal(len(t))) + 1e-3 * rng.standard_normal(len(t))
    return score, Audio(torch.from_numpy(0.3 * sound / np.abs(sound).max()).float()[None, None], VOICE_RATE_HZ)


def found_share(score, heard):
    """(share of a score's notes that are heard at their pitch within 0.15 s, notes heard for each note)."""
    wanted, found = score.times_s(score.parts[0].notes), heard.times_s(heard.parts[0].notes)
    hits = [any(abs(start - other) < 0.15 and pitch == midi for other, _, midi in found) for start, _, pitch in wanted]
    return sum(hits) / len(hits), len(found) / len(wanted)
