"""The synthesizer plays what its labels say."""

import itertools

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.conditioning.chroma import chroma
from comfyui_musicgen.musicgen.config import MelodyConfig
from comfyui_musicgen.training.data import pieces, words
from comfyui_musicgen.training.data.jangdan import JANGDAN
from comfyui_musicgen.training.data.modes import MODES, SCALES
from comfyui_musicgen.training.data.pieces import Label, clip, draw_label, play

RATE_HZ = 32000
ENVELOPE_HZ = 200


def rng(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def piece(instrument, buk, jangdan="jungjungmori", mode="pyeongjo", bpm=None, tonic=2, duration_s=8.0, seed=0):
    bpm = bpm or float(np.mean(JANGDAN[jangdan].tempo_bpm))
    alone = instrument == "none"
    label = Label(instrument, buk, jangdan, bpm, None if alone else mode, None if alone else tonic, "high")
    return play(label, duration_s, RATE_HZ, rng(seed))


def onsets(samples: np.ndarray) -> np.ndarray:
    """How much louder each 5 ms are than those before."""
    blocks = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    level = np.log(np.sqrt(np.mean(blocks**2, axis=1)) + 1e-3)
    return np.clip(np.diff(level, prepend=level[:1]), 0, None)


def period_s(samples: np.ndarray, low_s: float, high_s: float) -> float:
    """The lag between low_s and high_s at which the onsets fit themselves best."""
    strength = np.convolve(onsets(samples), np.hanning(9), mode="same")
    strength = strength - strength.mean()
    lags = np.arange(int(low_s * ENVELOPE_HZ), int(high_s * ENVELOPE_HZ))
    fit = [np.mean(strength[lag:] * strength[:-lag]) for lag in lags]
    return lags[int(np.argmax(fit))] / ENVELOPE_HZ


@pytest.mark.parametrize("name", JANGDAN)
def test_the_cycle_of_the_jangdan_is_in_the_audio(name):
    jangdan = JANGDAN[name]
    bpm = jangdan.tempo_bpm[0] + 0.7 * (jangdan.tempo_bpm[1] - jangdan.tempo_bpm[0])
    cycle_s = jangdan.cycle_s(bpm)
    made = piece("none", True, name, bpm=bpm, duration_s=max(12.0, 5 * cycle_s))
    assert period_s(made.samples, 0.6 * cycle_s, 1.4 * cycle_s) == pytest.approx(cycle_s, rel=0.02)


@pytest.mark.parametrize("name", JANGDAN)
def test_strokes_sound_when_they_are_said_to(name):
    made = piece("none", True, name)
    strength = onsets(made.samples)
    for hit in made.hits:
        near = int(hit.time_s * ENVELOPE_HZ)
        assert strength[max(0, near - 3) : near + 4].max() > 3 * np.median(strength)


def test_tempo_ranges_do_not_overlap():
    ranges = sorted(jangdan.tempo_bpm for jangdan in JANGDAN.values())
    assert all(slower[1] < quicker[0] for slower, quicker in itertools.pairwise(ranges))
    for jangdan in JANGDAN.values():  # nothing between two tempos is far from both
        assert all(quicker / slower < 1.17 for slower, quicker in itertools.pairwise(jangdan.tempos_bpm))


def test_most_clips_begin_with_a_cycle_and_some_within():
    firsts = [first for label, first in (pieces.start("train", number) for number in range(600)) if label.jangdan]
    assert 0.75 < np.mean([first == 0 for first in firsts]) < 0.9
    within = [first for first in firsts if first]
    assert min(within) > 0 and np.mean([first % 1 for first in within]) > 0.3


@pytest.mark.parametrize("mode", MODES)
def test_a_flute_plays_the_tones_of_its_mode(mode):
    made = piece("daegeum", False, mode=mode, tonic=4, duration_s=16.0)
    frames = chroma(torch.from_numpy(made.samples), RATE_HZ, MelodyConfig()).argmax(dim=1).numpy()
    allowed = [(4 + tone) % 12 for tone in MODES[mode].tones]
    assert np.isin(frames, allowed).mean() > 0.85


@pytest.mark.parametrize("instrument", ["voice", "daegeum", "gayageum"])
def test_the_melody_line_is_the_pitch_that_sounds(instrument):
    made = piece(instrument, False, duration_s=10.0)
    right = total = 0
    for frame in range(10, len(made.line_hz) - 10, 7):
        hz = made.line_hz[frame - 1 : frame + 2]
        if np.isnan(hz).any() or np.ptp(hz) > 0.03 * hz[0]:
            continue
        middle = int((frame + 0.5) * pieces.LINE_FRAME_S * RATE_HZ)
        part = made.samples[middle - 1024 : middle + 1024] * np.hanning(2048)
        power = np.abs(np.fft.rfft(part, 8192)) ** 2
        multiples = np.round(hz[1] * np.arange(1, 9) * 8192 / RATE_HZ).astype(int)
        near = sum(power[m - 5 : m + 6].sum() for m in multiples)
        total += 1
        right += near > 0.5 * power[: multiples[-1] + 8].sum()
    assert total > 30
    assert right > 0.8 * total


def test_the_voice_breaks_and_trembles_in_gyemyeonjo():
    hz = np.concatenate([piece("voice", False, "jungmori", "gyemyeonjo", tonic=0, seed=s).line_hz for s in range(6)])
    semitones = 12 * np.log2(hz / 261.6256) % 12
    tone = np.round(semitones) % 12
    trembling = np.abs(np.diff(semitones[(semitones > 5.5) & (semitones < 8.5)])).mean()
    plain = np.abs(np.diff(semitones[(semitones < 0.5) | (semitones > 11.5)] % 11.5)).mean()
    falls = ((tone[:-6] == 3) & (tone[6:] == 2)).sum()
    rises = ((tone[:-6] == 2) & (tone[6:] == 3)).sum()
    assert falls > 2 * rises
    assert trembling > 0.1 and plain < 1.0


def test_the_buk_alone_has_neither_melody_nor_sustained_tones():
    def sustained(samples):
        part = np.abs(np.fft.rfft(samples[: len(samples) // 1024 * 1024].reshape(-1, 1024) * np.hanning(1024), axis=1))
        band = 20 * np.log10(part[:, 16:100].max(axis=1) + 1e-6)  # 500 to 3100 Hz
        return (band > band.max() - 30).mean()

    buk, voice = piece("none", True), piece("voice", False)
    assert buk.melodic is None and np.isnan(buk.line_hz).all()
    assert sustained(buk.samples) < 0.35 and sustained(voice.samples) > 0.5


def test_without_the_buk_there_are_no_strokes():
    made = piece("daegeum", False)
    assert made.hits == () and np.array_equal(made.samples, made.melodic)
    both = piece("daegeum", True)
    assert len(both.hits) > 10 and not np.array_equal(both.samples, both.melodic)


def test_a_clip_follows_from_its_number_alone():
    first = clip("train", 7, 2.0, RATE_HZ)
    clip("train", 8, 2.0, RATE_HZ)
    again, other = clip("train", 7, 2.0, RATE_HZ), clip("held-out", 7, 2.0, RATE_HZ)
    assert first.label == again.label and np.array_equal(first.samples, again.samples)
    assert not np.array_equal(first.samples, other.samples)


def test_clips_are_neither_silent_nor_clipped():
    for number in range(40):
        made = clip("train", number, 6.0, RATE_HZ)
        assert made.samples.dtype == np.float32 and made.samples.shape == (6 * RATE_HZ,)
        assert np.isfinite(made.samples).all() and np.abs(made.samples).max() <= 0.901
        assert 20 * np.log10(np.sqrt(np.mean(made.samples**2))) > -36
        assert abs(made.samples.mean()) < 0.01


def test_every_kind_of_clip_is_drawn():
    generator = rng()
    labels = [draw_label(generator) for _ in range(2000)]
    assert {label.jangdan for label in labels} == {None, *JANGDAN}
    assert {label.mode for label in labels} == {None, *MODES, *SCALES}
    assert {(label.instrument, label.buk, label.jangdan is None) for label in labels} == set(pieces.KINDS)


def jangdan_meant(text: str) -> set[str]:
    """Which jangdan a text can mean: names, hangul, beats and paces, the longest phrases first."""
    phrases = [(name, name) for name in JANGDAN] + [(jangdan.hangul, name) for name, jangdan in JANGDAN.items()]
    phrases += [(phrase, name) for table in (words.PACES, words.METERS) for name in table for phrase in table[name]]
    text, meant = text.lower(), set()
    for phrase, name in sorted(phrases, key=lambda pair: -len(pair[0])):
        if phrase in text:
            meant.add(name)
            text = text.replace(phrase, "|")
    return meant


def test_a_description_fits_its_own_jangdan_only():
    generator = rng(1)
    for _ in range(2000):
        label = draw_label(generator)
        text = words.describe(label, generator)
        assert jangdan_meant(text) == ({label.jangdan} if label.jangdan else set()), text
        assert ("buk" in text.lower() or "drum" in text.lower()) or not label.buk
        said = {name for name, phrases in words.INSTRUMENTS.items() if any(p in text.lower() for p in phrases)}
        assert said == (set() if label.instrument == "none" else {label.instrument}), text
        if "bpm" in text:
            assert f"{label.bpm:.0f} bpm" in text


def test_descriptions_are_varied():
    label = Label("voice", True, "jungmori", 90.0, "ujo", 3, "deep")
    generator = rng(2)
    assert len({words.describe(label, generator) for _ in range(300)}) > 200
