"""Music brought to a tempo: pitch kept, bars on the grid, and what cannot be done said."""

import pytest
import torch
from comfyui_musicgen.musicgen.analysis.fit import fit_tempo
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.audio.stretch import stretch
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.units import Meter
from comfyui_musicgen.tests.songs import RATE_HZ, song

RATES = (16000, 32000, 44100)


def clicks(rate_hz, gap_s=0.5, seconds=10):
    """Bursts of 5 ms, the first at gap / 2."""
    samples = torch.zeros(round(seconds * rate_hz))
    burst = torch.randn(rate_hz // 200, generator=torch.Generator().manual_seed(0)) * 0.3
    for start in range(round(gap_s / 2 * rate_hz), len(samples) - len(burst), round(gap_s * rate_hz)):
        samples[start : start + len(burst)] = burst
    return samples


def begins_s(samples, rate_hz):
    """Times at which bursts begin."""
    loud = (samples.abs() > 0.1).nonzero()[:, 0]
    return loud[torch.cat([torch.tensor([True]), loud.diff() > rate_hz // 10])] / rate_hz


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("speed", [0.9, 0.97, 1.06])
def test_a_stretched_piece_has_its_events_at_their_times(rate_hz, speed):
    plain = clicks(rate_hz)
    made = stretch(Audio(plain.expand(1, 2, -1), rate_hz), speed)
    assert made.n_samples == round(len(plain) / speed) and torch.equal(made.samples[0, 0], made.samples[0, 1])
    expected = begins_s(plain, rate_hz) / speed
    found = begins_s(made.samples[0, 0], rate_hz)
    assert len(found) == len(expected) and (found - expected).abs().max() < 0.025
    assert (found - expected).mean().abs() < 0.008


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_pitch_and_channels_are_kept(channels):
    t = torch.arange(3 * 32000) / 32000
    tones = torch.stack([0.3 * torch.sin(2 * torch.pi * (300 + 100 * c) * t) for c in range(channels)])
    made = stretch(Audio(tones.expand(2, -1, -1).contiguous(), 32000), 1.1)
    assert made.samples.shape == (2, channels, round(3 * 32000 / 1.1))
    peaks_hz = (
        torch.fft.rfft(made.samples[1] * torch.hann_window(made.n_samples)).abs().argmax(-1) * 32000 / made.n_samples
    )
    assert (peaks_hz - torch.tensor([300.0 + 100 * c for c in range(channels)])).abs().max() < 5


def test_speed_1_is_the_audio_itself_and_others_have_bounds():
    audio = Audio(torch.randn(1, 1, 1000), 32000)
    assert stretch(audio, 1.0) is audio
    for speed in (0.0, 0.49, 2.1, float("nan")):
        with pytest.raises(InputError, match=r"0\.5 to 2"):
            stretch(audio, speed)


def test_stretching_is_cancelled():
    def cancel():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stretch(Audio(torch.randn(1, 1, 320_000), 32000), 0.9, cancel)


@pytest.fixture(scope="module", params=[0, 2], ids=["4/4", "3/4"])
def piece(request):
    score, samples = song(request.param)
    return score, Audio(torch.from_numpy(samples)[None, None, : 14 * RATE_HZ], RATE_HZ)


def test_bars_land_on_the_grid(piece):
    score, audio = piece
    asked, meter = score.bpm * 1.08, Meter(score.meter)
    measured = fit_tempo(audio, asked, meter, "measure")
    assert measured.audio is audio and measured.heard_bpm == pytest.approx(score.bpm, rel=0.005)
    fit = fit_tempo(audio, asked, meter, "stretch and align")
    assert fit.bpm == pytest.approx(asked, rel=0.003) and fit.speed == pytest.approx(1.08, rel=0.005)
    assert fit.off_ms < 25 < measured.off_ms
    # Heard anew, in the aligned piece itself.
    again = fit_tempo(fit.audio, asked, meter, "measure")
    assert again.off_ms < 25 and f"{asked:g} beats a minute were asked for" in again.report


def test_what_cannot_be_done_is_said_and_the_sound_stays(piece):
    _, audio = piece
    noise = Audio(torch.randn(1, 1, 4 * 32000, generator=torch.Generator().manual_seed(1)) * 0.1, 32000)
    silence, short = Audio(torch.zeros(1, 1, 96000), 32000), Audio(torch.randn(1, 1, 9000), 32000)
    for sound, words in ((noise, "No pulse"), (silence, "silent"), (short, "2 s")):
        fit = fit_tempo(sound, 100.0, Meter(4), "stretch and align")
        assert fit.audio is sound and fit.bpm == 0 and words in fit.report
    two = Audio(audio.samples.expand(2, -1, -1), audio.rate_hz)
    with pytest.raises(InputError, match="2 clips"):
        fit_tempo(two, 100.0, Meter(4), "measure")
    with pytest.raises(InputError, match="13 beats"):
        fit_tempo(audio, 100.0, Meter(13), "measure")
    with pytest.raises(InputError, match="'bpm'"):
        fit_tempo(audio, 0.0, Meter(4), "measure")
