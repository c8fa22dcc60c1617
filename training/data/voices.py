"""The sounds: a rough singing voice (sori), a breathy flute (daegeum), a plucked zither (gayageum), a drum (buk).

Pitched sounds start from a closed-form harmonic series (J. A. Moorer, "The synthesis of complex audio spectra by means
of discrete summation formulae", JAES 24, 1976): sum of r^k cos(k phase) over k >= 1, whose tail r^k is far down where
it would alias. The voice is source and filter (G. Fant, "Acoustic Theory of Speech Production", 1960), the plucked
string partials whose decay grows with their number, the drum the modes of a round membrane.
"""

from dataclasses import dataclass

import numpy as np

from .jangdan import Hit
from .melody import CONTROL_HZ, Contour, Note, Style

SORI_STYLE = Style(glide_s=0.035, scoop_semitones=2.5, rate_hz=(4.6, 6.2), swing=1.0, attack_s=0.03)
DAEGEUM_STYLE = Style(glide_s=0.02, scoop_semitones=0.8, rate_hz=(3.8, 5.2), swing=1.0, attack_s=0.045)
GAYAGEUM_STYLE = Style(glide_s=0.012, scoop_semitones=0.0, rate_hz=(4.5, 6.0), swing=0.8, attack_s=0.002)

# Formants of a man's vowels in Hz, rounded from common phonetic tables; the last two give the ring of a trained voice.
_VOWELS = {
    "a": (760, 1250, 2550), "eo": (590, 950, 2550), "o": (400, 750, 2500), "u": (330, 800, 2400),
    "eu": (370, 1350, 2400), "i": (300, 2200, 2900), "e": (480, 1850, 2550),
}  # fmt: skip
_UPPER_FORMANTS, _BANDWIDTHS = (3300, 4300), (90, 110, 150, 250, 400)
_FILTER_WINDOW = 1024  # samples at the recipe's rate: 32 ms, half of it the hop
# Frequencies of a round membrane's modes relative to the lowest: zeros of Bessel functions over the first.
_MEMBRANE = (1.0, 1.594, 2.136, 2.296, 2.653, 2.918)


@dataclass(frozen=True)
class Singer:
    """What tells one voice from another."""

    tract: float  # factor of the formants: below 1 for a large body
    roughness: float  # 0..1, of the period doubling and the noise in the voice
    brightness_hz: float  # where the source's harmonics have fallen to 1/e, for full loudness


def sing(line: Contour, singer: Singer, rate_hz: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """A sori voice [n]: pulses, uneven as in a rough voice, through vowels that change from syllable to syllable."""
    loudness = _fine(line.loudness, rate_hz, n)
    jitter = _slow_noise(len(line.midi), 0.12 * singer.roughness, rng)
    hz = Contour(line.midi + jitter, line.loudness).hz()
    phase = _phase(hz, rate_hz, n)
    source = _harmonics(
        phase, np.exp(-_fine(hz, rate_hz, n) / (singer.brightness_hz * (0.4 + 0.6 * np.sqrt(loudness))))
    )
    noise = rng.standard_normal(n, dtype=np.float32)
    depth = singer.roughness * (0.35 + 0.65 * _fine(np.abs(_slow_noise(len(line.midi), 1.0, rng)), rate_hz, n))
    source *= 1 + 0.7 * depth * np.cos(0.5 * phase)  # every second pulse weaker: period doubling
    source *= 1 + 0.25 * depth * noise
    source += (0.02 + 0.05 * singer.roughness) * noise
    source *= loudness
    return _filtered(source, _vowel_frames(line, singer, rate_hz, n, rng))


def blow(line: Contour, rate_hz: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """A daegeum-like flute [n]: few harmonics, breath, and the buzz of its reed membrane where it is loud."""
    loudness = _fine(line.loudness, rate_hz, n)
    phase = _phase(line.hz(), rate_hz, n)
    tone = _harmonics(phase, (0.18 + 0.25 * loudness).astype(np.float32))
    buzz = np.diff(_harmonics(phase, np.float32(0.8)), prepend=np.float32(0))
    breath = np.diff(rng.standard_normal(n, dtype=np.float32), prepend=np.float32(0))
    breath = np.convolve(breath, np.ones(6, np.float32) / 6, mode="same")
    return loudness * (tone + rng.uniform(0.15, 0.5) * loudness**2 * buzz + rng.uniform(0.1, 0.25) * breath)


def pluck(notes: list[Note], line: Contour, rate_hz: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """A gayageum-like zither [n]: each note rings on under the next, following the pitch of the line while it is its own."""
    out = np.zeros(n + 1, np.float32)
    hz = line.hz()
    position = rng.uniform(0.12, 0.25)  # where the string is plucked, as a part of its length
    brightness_hz, n_partials = rng.uniform(1200, 3000), 16
    for note in notes:
        first = int(note.start_s * rate_hz)
        length = min(int((min(note.duration_s, 1.2) + 0.5) * rate_hz), n - first)
        if length < 64:
            continue
        own = hz[int(note.start_s * CONTROL_HZ) : int((note.start_s + note.duration_s) * CONTROL_HZ)]
        if len(own) < 2:
            continue
        time_s = np.arange(length, dtype=np.float32) / rate_hz
        pitch = np.interp(time_s, np.arange(len(own)) / CONTROL_HZ, own)
        phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
        decay = time_s * rng.uniform(1.0, 1.8) * np.sqrt(own.mean() / 200)
        partial = np.exp(1j * np.mod(phase, 2 * np.pi) - decay).astype(np.complex64)
        total, power = np.zeros(length, np.float32), partial.copy()
        for k in range(1, n_partials + 1):
            if k * own.max() > 0.45 * rate_hz:
                break
            total += np.float32(np.sin(np.pi * k * position) * np.exp(-k * own.mean() / brightness_hz)) * power.imag
            power *= partial
        fade = np.clip((length - np.arange(length)) / (0.08 * rate_hz), 0, 1).astype(np.float32)
        attack = np.clip(np.arange(length) / (0.0015 * rate_hz), 0, 1).astype(np.float32)
        out[first : first + length] += rng.uniform(0.7, 1.0) * total * fade * attack
    return out[:n]


def drum(hits: list[Hit], rate_hz: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """The buk [n]: one drum with its own tuning, struck as `hits` say."""
    lowest_hz, wood_hz = rng.uniform(85, 125), rng.uniform(850, 1250)
    sounds = {name: strike(name, lowest_hz, wood_hz, rate_hz, rng) for name in ("deong", "kung", "deok", "tak")}
    out = np.zeros(n, np.float32)
    for hit in hits:
        first = int(hit.time_s * rate_hz)
        sound = sounds[hit.name][: n - first]
        out[first : first + len(sound)] += hit.accent * sound
    return out


def strike(name: str, lowest_hz: float, wood_hz: float, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """One stroke. deong = kung + deok, together."""
    if name == "deong":
        parts = [strike(part, lowest_hz, wood_hz, rate_hz, rng) for part in ("kung", "deok")]
        return np.pad(parts[1], (0, max(0, len(parts[0]) - len(parts[1])))) * 0.8 + parts[0]
    if name == "tak":
        ratios, base_hz, decay_s, noise, bend = (1.0, 1.47, 2.09, 2.83), wood_hz, 0.022, 0.5, 0.0
    elif name == "deok":
        ratios, base_hz, decay_s, noise, bend = _MEMBRANE, 2.1 * lowest_hz, 0.07, 0.35, 0.06
    else:
        ratios, base_hz, decay_s, noise, bend = _MEMBRANE, lowest_hz, 0.2, 0.12, 0.25
    n = int(6 * decay_s * rate_hz)
    time_s = np.arange(n, dtype=np.float32) / rate_hz
    sweep = time_s + bend * 0.03 * (1 - np.exp(-time_s / 0.03))  # the blow tightens the skin: pitch falls back at first
    sound = np.zeros(n, np.float32)
    for i, ratio in enumerate(ratios):
        level = rng.uniform(0.6, 1.0) / (1 + 0.8 * i)
        decay = np.exp(-time_s * (1 + 0.5 * i) / decay_s)
        sound += level * decay * np.sin(2 * np.pi * base_hz * ratio * sweep + rng.uniform(0, 0.5))
    burst = rng.standard_normal(n, dtype=np.float32) * np.exp(-time_s / 0.006)
    return (sound + noise * burst) * {"tak": 0.7, "deok": 0.55, "kung": 0.8}[name] * np.clip(time_s / 0.0008, 0, 1)


# --- parts


def _fine(x: np.ndarray, rate_hz: int, n: int) -> np.ndarray:
    """From CONTROL_HZ to the audio's rate, float32 [n]."""
    return np.interp(np.arange(n) * (CONTROL_HZ / rate_hz), np.arange(len(x)) + 0.5, x).astype(np.float32)


def _phase(hz: np.ndarray, rate_hz: int, n: int) -> np.ndarray:
    """Phase [n] in radians, modulo 4 pi so that float32 holds it and half of it is still continuous."""
    turns = np.cumsum(_fine(hz, rate_hz, n), dtype=np.float64) / rate_hz
    return (2 * np.pi * np.mod(turns, 2.0)).astype(np.float32)


def _harmonics(phase: np.ndarray, r: np.ndarray | np.floating) -> np.ndarray:
    """Sum of r^k cos(k phase) for k >= 1, in closed form."""
    cosine = r * np.cos(phase)
    return (cosine - r * r) / (1 - 2 * cosine + r * r)


def _slow_noise(n: int, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Noise at CONTROL_HZ that changes within some 20 ms, of about `depth` standard deviation."""
    return depth * np.convolve(rng.standard_normal(n + 4), np.full(5, 5**-0.5), mode="valid")


def _vowel_frames(line: Contour, singer: Singer, rate_hz: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """The filter's gain for every frame and bin, [F, bins]: vowels blend into one another at syllables."""
    spectra = np.log(np.stack([_resonances(f, singer.tract, rate_hz) for f in _VOWELS.values()]))
    hop = _FILTER_WINDOW // 2
    n_frames = n // hop + 2
    index = np.clip((np.arange(n_frames) * hop * CONTROL_HZ) // rate_hz, 0, len(line.loudness) - 1)
    moves = np.abs(np.diff(line.midi, prepend=line.midi[:1])) > 0.15  # a new tone is often a new syllable
    syllable = np.cumsum(np.diff(moves.astype(int), prepend=0) > 0)[index]
    order = rng.choice(len(spectra), size=syllable.max() + 1, p=[0.28, 0.18, 0.18, 0.1, 0.06, 0.1, 0.1])
    weight = np.eye(len(spectra))[order[syllable]]
    weight = (np.roll(weight, 1, 0) + 2 * weight + np.roll(weight, -1, 0)) / 4
    return np.exp(weight @ spectra).astype(np.float32)


def _resonances(formants_hz: tuple[int, ...], tract: float, rate_hz: int) -> np.ndarray:
    """Magnitude [bins] of two-pole resonances one after another, scaled to a mean power of 1 below 4 kHz."""
    f = np.arange(_FILTER_WINDOW // 2 + 1) * rate_hz / _FILTER_WINDOW
    gain = np.ones_like(f)
    for centre, width in zip((*formants_hz, *_UPPER_FORMANTS), _BANDWIDTHS, strict=True):
        centre = centre * tract
        gain *= centre**2 / np.sqrt((centre**2 - f**2) ** 2 + (f * width) ** 2)
    gain *= 1 / (1 + (f / 5000) ** 2)
    return np.clip(gain / np.sqrt(np.mean(gain[f < 4000] ** 2)), 1e-4, None)


def _filtered(x: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """x [n] through a filter that changes every half window: overlapping windows, each by its frame of `gains`."""
    n, hop = len(x), _FILTER_WINDOW // 2
    n_frames = n // hop + 1
    padded = np.pad(x, (hop, 2 * hop)).astype(np.float32)
    window = np.sqrt(np.hanning(_FILTER_WINDOW + 1)[:-1]).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FILTER_WINDOW)[::hop][:n_frames] * window
    spectrum = np.fft.rfft(frames, axis=1) * gains[:n_frames]
    frames = np.fft.irfft(spectrum, axis=1).astype(np.float32) * window
    out = np.zeros((n_frames + 1) * hop, np.float32)
    out[: n_frames * hop] += frames[:, :hop].ravel()
    out[hop:] += frames[:, hop:].ravel()
    return out[hop : hop + n]
