"""A score as sound: additive and plucked instruments, drums of noise and falling sines, a room."""

import numpy as np

from .music import Note, Score

RATE_HZ = 22050
# Strengths of the harmonics, attack in seconds, decay in seconds (0 = sustained), further decay a harmonic, vibrato in cents.
TIMBRES = {
    "piano": ([1, 0.6, 0.45, 0.3, 0.18, 0.12, 0.08, 0.05], 0.004, 0.9, 0.35, 0),
    "organ": ([1, 0.8, 0.6, 0.5, 0.1, 0.3, 0, 0.2], 0.015, 0, 0, 4),
    "strings": ([1, 0.5, 0.35, 0.25, 0.2, 0.16, 0.14, 0.12, 0.1], 0.07, 0, 0, 12),
    "guitar": ([1, 0.8, 0.3, 0.4, 0.1, 0.15, 0.1], 0.003, 0.5, 0.5, 0),
    "electric piano": ([1, 0.1, 0.25, 0.02, 0.06, 0, 0.08], 0.004, 0.8, 0.8, 5),
    "brass": ([0.7, 1, 0.8, 0.6, 0.4, 0.25, 0.15, 0.1], 0.03, 0, 0, 6),
    "clarinet": ([1, 0.05, 0.6, 0.05, 0.35, 0.05, 0.15], 0.02, 0, 0, 8),
    "flute": ([1, 0.3, 0.1, 0.04], 0.04, 0, 0, 15),
    "bass": ([1, 0.6, 0.3, 0.15, 0.08], 0.008, 0.8, 0.3, 0),
    "synth bass": ([1, 0.5, 0.33, 0.25, 0.2, 0.17], 0.005, 0, 0, 0),
}
CHORDS = ("piano", "organ", "strings", "guitar", "electric piano", "brass")
LEADS = ("clarinet", "flute", "piano", "strings", "brass", "guitar")
_JITTER_S = 0.006


def play(score: Score, seed: int) -> np.ndarray:
    """Samples [L] float32 of a score at RATE_HZ, peak 0.8."""
    rng = np.random.default_rng([seed, 26])
    mix = np.zeros(int((score.end_s + 1.5) * RATE_HZ))
    cents = float(rng.uniform(-25, 25))
    parts = (
        (score.comping, str(rng.choice(CHORDS)), rng.uniform(0.5, 1)),
        (score.bass, str(rng.choice(["bass", "synth bass"])), rng.uniform(0.7, 1.3)),
        (score.melody, str(rng.choice(LEADS)), rng.uniform(0.5, 1.1)),
    )
    for notes, timbre, level in parts:
        for note in notes:
            _add(mix, note.start_s + rng.normal(0, _JITTER_S), level * note.velocity * tone(note, timbre, cents, rng))
    level, kit = rng.uniform(0.6, 1.4), _kit(rng)
    for hit in score.hits:
        _add(mix, hit.time_s + rng.normal(0, _JITTER_S / 2), level * hit.velocity * kit[hit.drum])
    wet = rng.uniform(0, 0.25)
    room = rng.standard_normal(int(0.8 * RATE_HZ)) * np.exp(-np.arange(int(0.8 * RATE_HZ)) / (0.15 * RATE_HZ))
    n = 1 << (len(mix) + len(room)).bit_length()
    echo = np.fft.irfft(np.fft.rfft(mix, n) * np.fft.rfft(room, n), n)[: len(mix)]
    mix = mix + wet * echo * (np.std(mix) / max(np.std(echo), 1e-9))
    mix = 0.8 * mix / np.abs(mix).max()
    return (mix + 1e-4 * rng.standard_normal(len(mix))).astype(np.float32)


def tone(note: Note, timbre: str, cents: float, rng) -> np.ndarray:
    """One note [l], with a release of 30 ms."""
    strengths, attack_s, decay_s, faster, vibrato = TIMBRES[timbre]
    t = np.arange(int((note.end_s - note.start_s + 0.03) * RATE_HZ)) / RATE_HZ
    frequency = 440 * 2 ** ((note.pitch - 69 + cents / 100) / 12)
    phase = 2 * np.pi * frequency * t
    if vibrato:
        phase += frequency * (2 ** (vibrato / 1200) - 1) / 5.5 * np.sin(2 * np.pi * 5.5 * t + rng.uniform(0, 6))
    sound = np.zeros(len(t))
    for number, strength in enumerate(strengths, 1):
        if number * frequency < 0.45 * RATE_HZ:
            fall = np.exp(-t / decay_s * (1 + faster * (number - 1))) if decay_s else 1.0
            sound += strength * fall * np.sin(number * phase + rng.uniform(0, 6))
    sound *= np.minimum(1, t / attack_s) * np.minimum(1, (t[-1] - t) / 0.03)
    return 0.25 * sound / np.sqrt(np.sum(np.square(strengths)))


def _kit(rng) -> dict[str, np.ndarray]:
    def noise(length_s: float, decay_s: float, bright: bool) -> np.ndarray:
        n = int(length_s * RATE_HZ)
        sound = rng.standard_normal(n) * np.exp(-np.arange(n) / (decay_s * RATE_HZ))
        return np.diff(sound, prepend=0) if bright else sound

    t = np.arange(int(0.25 * RATE_HZ)) / RATE_HZ
    low = rng.uniform(45, 60)
    kick = np.exp(-t / 0.07) * np.sin(2 * np.pi * (low * t + 90 * 0.03 * (1 - np.exp(-t / 0.03))))
    snare = noise(0.25, 0.05, False)
    snare += 0.6 * np.exp(-t / 0.05) * np.sin(2 * np.pi * 190 * t)
    return {"k": kick, "s": 0.35 * snare, "h": 0.12 * noise(0.08, 0.02, True), "r": 0.08 * noise(0.4, 0.1, True)}


def _add(mix: np.ndarray, at_s: float, sound: np.ndarray) -> None:
    first = max(0, int(at_s * RATE_HZ))
    part = mix[first : first + len(sound)]
    part += sound[: len(part)]
