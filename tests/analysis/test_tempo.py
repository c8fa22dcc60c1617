"""The tempo that a text names, and the one that is heard."""

import pytest
import torch
from comfyui_musicgen.musicgen.analysis import asked_bpm, measure_bpm
from comfyui_musicgen.musicgen.audio import Audio


def clicks(bpm, seconds=8.0, rate_hz=22050, jitter_s=0.0):
    """Short bursts at each beat, every fourth louder."""
    generator = torch.Generator().manual_seed(0)
    samples = 1e-3 * torch.randn(int(seconds * rate_hz), generator=generator)
    burst = torch.randn(800, generator=generator) * torch.exp(-torch.arange(800) / 150)
    beat = 0
    while (beat * 60 / bpm + 0.1) * rate_hz < len(samples):
        start = int((beat * 60 / bpm + 0.1 + jitter_s * float(torch.randn(1, generator=generator))) * rate_hz)
        part = samples[start : start + 800]
        part += (0.5 if beat % 4 == 0 else 0.3) * burst[: len(part)]
        beat += 1
    return Audio(samples[None, None], rate_hz)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("slow blues, 92 bpm", 92.0), ("at 128BPM", 128.0), ("92.5 bpm", 92.5), ("110-bpm house", 110.0),
     ("60 beats per minute", 60.0), ("pop, bpm : 92", 92.0), ("tempo 120", 120.0), ("템포: 80", 80.0), ("tempo 1200", None), ("", None), (None, None), ("1200 bpm", None), ("10 bpm", None)],
)  # fmt: skip
def test_a_text_names_a_tempo(text, expected):
    assert asked_bpm(text) == expected


@pytest.mark.parametrize("bpm", [47.0, 61.3, 92.0, 127.7, 180.0, 233.0])
def test_a_tempo_that_is_expected_is_measured_within_a_percent(bpm):
    assert measure_bpm(clicks(bpm), near=1.1 * bpm) == pytest.approx(bpm, rel=0.01)
    assert measure_bpm(clicks(bpm, jitter_s=0.01), near=0.9 * bpm) == pytest.approx(bpm, rel=0.015)


@pytest.mark.parametrize("bpm", [75.0, 100.0, 140.0])
def test_an_unknown_tempo_is_measured(bpm):
    assert measure_bpm(clicks(bpm)) == pytest.approx(bpm, rel=0.01)


def test_librosa_agrees():
    librosa = pytest.importorskip("librosa")
    audio = clicks(100.0)
    theirs = float(librosa.feature.tempo(y=audio.samples[0, 0].numpy(), sr=audio.rate_hz)[0])
    assert measure_bpm(audio) == pytest.approx(theirs, rel=0.04), "librosa's lags are 3 % apart"


def test_no_pulse_no_tempo():
    hum = 0.3 * torch.sin(torch.arange(8 * 16000) * 0.1)
    assert measure_bpm(Audio(hum[None, None], 16000)) is None
    assert measure_bpm(Audio(torch.zeros(1, 1, 16000), 16000)) is None
    assert measure_bpm(clicks(40.0, seconds=2.0), near=40.0) is None, "two beats are no pulse"
