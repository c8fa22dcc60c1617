"""Time maps: events at their times, pitch and stereo kept, silence outside, bad maps refused."""

import pytest
import torch
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.audio.warp import warp
from comfyui_musicgen.musicgen.errors import InputError


def clicks(times_s, rate_hz, seconds, channels=2):
    """Bursts of 5 ms over a soft tone."""
    t = torch.arange(round(seconds * rate_hz)) / rate_hz
    samples = 0.02 * torch.sin(2 * torch.pi * 220 * t)
    burst = 0.6 * torch.randn(rate_hz // 200, generator=torch.Generator().manual_seed(0))
    for time_s in times_s:
        first = round(float(time_s) * rate_hz)
        samples[first : first + len(burst)] += burst
    return Audio(samples.expand(1, channels, -1).contiguous(), rate_hz)


def begins_s(audio):
    loud = (audio.samples[0, 0].abs() > 0.25).nonzero()[:, 0]
    return loud[torch.cat([torch.tensor([True]), loud.diff() > audio.rate_hz // 10])] / audio.rate_hz


@pytest.mark.parametrize("rate_hz", [16000, 32000, 44100])
def test_events_fall_on_their_times(rate_hz):
    source = torch.arange(0.3, 9.5, 0.5) + 0.06 * torch.sin(torch.arange(19))
    target = torch.arange(19) * 0.52 + 0.5
    made = warp(clicks(source, rate_hz, 10), source.tolist(), target.tolist(), 11.0)
    assert made.n_samples == 11 * rate_hz and torch.equal(made.samples[0, 0], made.samples[0, 1])
    found = begins_s(made)
    distance = (found[:, None] - target[None, :]).abs()
    assert distance.min(dim=0).values.max() < 0.02, "each event is there"
    assert distance.min(dim=0).values.mean() < 0.008


@pytest.mark.parametrize("offset_s", [0.0, 0.25, -0.3])
def test_at_speed_1_the_samples_are_the_very_samples(offset_s):
    audio = Audio(torch.randn(2, 2, 32000, generator=torch.Generator().manual_seed(1)) * 0.1, 16000)
    made = warp(audio, [0.5 + offset_s, 1.5 + offset_s], [0.5, 1.5], 2.0)
    moved = round(offset_s * 16000)
    assert made.samples.shape == audio.samples.shape
    ours = made.samples[..., max(0, -moved) : 32000 - max(0, moved)]
    theirs = audio.samples[..., max(0, moved) : 32000 + min(0, moved)]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    silent = made.samples[..., 32000 - moved :] if moved > 0 else made.samples[..., : -moved or 0]
    assert not silent.any()


def test_pitch_and_the_difference_of_channels_are_kept():
    rate_hz, t = 32000, torch.arange(4 * 32000) / 32000
    left = 0.3 * torch.sin(2 * torch.pi * 440 * t)
    made = warp(Audio(torch.stack([left, -0.5 * left])[None], rate_hz), [0.0, 4.0], [0.0, 4.6], 4.6)
    spectrum = torch.fft.rfft(made.samples[0, 0] * torch.hann_window(made.n_samples)).abs()
    assert abs(int(spectrum.argmax()) * rate_hz / made.n_samples - 440) < 2
    torch.testing.assert_close(
        made.samples[0, 1], -0.5 * made.samples[0, 0], atol=1e-6, rtol=0
    )  # the original searches each alone
    level = made.samples[0, 0, 3200:-3200].unfold(0, 800, 800).abs().max(dim=1).values
    assert level.min() > 0.27 and level.max() < 0.33, "windows join without beating"


def test_channels_that_cancel_and_silence_do_no_harm():
    noise = torch.randn(1, 1, 48000, generator=torch.Generator().manual_seed(2)) * 0.1
    for samples in (torch.cat([noise, -noise], dim=1), torch.zeros(1, 2, 48000)):
        made = warp(Audio(samples, 32000), [0.0, 1.5], [0.0, 1.7], 1.7)
        assert made.samples.isfinite().all() and bool(made.samples.any()) == bool(samples.any())


@pytest.mark.parametrize(
    ("source", "target"),
    [([0.0, 0.0], [0.0, 1.0]), ([0.0, 1.0], [1.0, 1.0]), ([1.0, 0.5], [0.0, 1.0]), ([], []), ([0.0], [0.0, 1.0]), ([float("nan")], [0.0])],
)  # fmt: skip
def test_maps_that_do_not_increase_are_refused(source, target):
    with pytest.raises(InputError, match="time map"):
        warp(Audio(torch.rand(1, 1, 8000), 8000), source, target, 1.0)


def test_it_is_cancelled_and_leaves_its_input():
    def cancel(done, total):
        if done:
            raise KeyboardInterrupt

    audio = Audio(torch.randn(1, 1, 160_000), 16000)
    kept = audio.samples.clone()
    with pytest.raises(KeyboardInterrupt):
        warp(audio, [0.0, 10.0], [0.0, 11.0], 11.0, cancel)
    warp(audio, [0.0, 10.0], [0.0, 11.0], 11.0)
    assert torch.equal(audio.samples, kept)
