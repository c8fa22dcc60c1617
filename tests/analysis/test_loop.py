"""Loops: as long as the music's own bars, joined where nothing jumps, and clear words where there is none."""

import pytest
import torch
from comfyui_musicgen.musicgen.analysis import make_loop
from comfyui_musicgen.musicgen.analysis.seam import crossfaded, jump_at
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.errors import InputError

RATE = 16000


def bar(bpm, seed=0):
    """Four beats: decaying tones of several pitches over a drone, the same in each bar."""
    n = round(4 * 60 / bpm * RATE)
    generator, samples = torch.Generator().manual_seed(seed), torch.zeros(n)
    for eighth in range(8):
        start = eighth * n // 8
        time = torch.arange(n - start) / RATE
        hz = 150 * 2 ** (float(torch.randint(0, 24, (1,), generator=generator)) / 12)
        samples[start:] += (0.3 if eighth % 2 == 0 else 0.1) * torch.sin(6.2832 * hz * time) * torch.exp(-9 * time)
    return samples


def piece(bpm=120.0, bars=5, seed=0):
    """Bars that repeat, under noise that does not."""
    samples = bar(bpm, seed).repeat(bars)
    samples = samples + 0.003 * torch.randn(len(samples), generator=torch.Generator().manual_seed(seed))
    return Audio(samples[None, None], RATE)


@pytest.mark.parametrize(("asked", "played"), [(120.0, 120.0), (118.0, 120.0), (90.0, 96.5), (0.0, 120.0)])
def test_a_loop_is_as_long_as_the_music_s_own_bars(asked, played):
    loop = make_loop(piece(played), 2, 4, asked)
    assert loop.audio.n_samples == pytest.approx(2 * 4 * 60 / played * RATE, abs=RATE * 0.002)
    assert loop.bpm == pytest.approx(played, rel=0.002) and loop.heard_bpm == pytest.approx(played, rel=0.01)
    assert loop.bpm == pytest.approx(60 * 8 * RATE / loop.audio.n_samples), "exactly two bars at the tempo given"


def test_the_join_jumps_less_than_a_random_cut():
    searched, random = [], []
    for seed in range(4):
        audio = piece(seed=seed)
        join = make_loop(audio, 2, 4, 120).join
        searched.append(max(join.level_percentile, join.spectrum_percentile))
        for start in torch.randint(0, RATE, (6,), generator=torch.Generator().manual_seed(seed)).tolist():
            # Two bars and a bit, as one who does not know the tempo would cut.
            cut = audio.samples[0, 0, start : start + round(4.23 * RATE)]
            jump = jump_at(cut, RATE, 0, 1)
            random.append(max(jump.level_percentile, jump.spectrum_percentile))
    assert max(searched) < 50, "below ordinary places"
    assert sum(random) / len(random) > 2 * sum(searched) / len(searched)


def test_a_jump_is_found_where_it_is():
    tone = 0.3 * torch.sin(torch.arange(RATE) * 0.2)
    tone[RATE // 2 :] *= 0.1
    at, elsewhere = jump_at(tone, RATE, RATE // 2, 1), jump_at(tone, RATE, RATE // 4, 1)
    assert at.level_db == pytest.approx(20, abs=1.5) and at.level_percentile > 95
    assert elsewhere.level_db < 1


@pytest.mark.parametrize("alike", [True, False])
def test_the_crossfade_keeps_the_power(alike):
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(4000, generator=generator) for _ in range(2))
    samples = torch.cat([one, one if alike else other])[None]
    loop = crossfaded(samples, 0, 4000, 4000)
    assert float(loop.square().mean()) == pytest.approx(1, abs=0.06)
    assert torch.allclose(crossfaded(samples, 0, 4000, 0), samples[:, :4000])


def test_the_end_runs_into_the_beginning():
    ramp = torch.arange(3000).float()[None] / 3000
    loop = crossfaded(ramp, 500, 2000, 100)
    assert loop.shape == (1, 2000)
    assert float(loop[0, 0]) == pytest.approx(float(ramp[0, 2500]), abs=0.03), "what followed the end begins the loop"
    assert torch.equal(loop[:, 100:], ramp[:, 600:2500])


def test_codes_that_agree_are_preferred():
    audio = piece()
    codes = Codes(torch.randint(0, 1000, (1, 4, 500)), 50.0, "x")
    loop = make_loop(audio, 2, 4, 120, codes=codes)
    assert loop.bpm == pytest.approx(120, rel=0.002)
    with pytest.raises(InputError, match=r"'codes' are 4.00 s long, but 'audio' is 10.00 s"):
        make_loop(audio, 2, 4, 120, codes=Codes(codes.codes[..., :200], 50.0, "x"))


def test_what_cannot_be_looped_is_told():
    with pytest.raises(InputError, match=r"8 bars of 4 beats at 120.* take 16.0. s.*'audio' is 10.00 s long"):
        make_loop(piece(), 8, 4, 120)
    with pytest.raises(InputError, match="no pulse is heard"):
        make_loop(Audio(torch.zeros(1, 1, 4 * RATE), RATE), 1)
    with pytest.raises(InputError, match="'audio' holds 2 clips"):
        make_loop(Audio(torch.zeros(2, 1, RATE), RATE), 1)


def test_without_a_pulse_the_tempo_asked_for_is_taken():
    hum = 0.3 * torch.sin(torch.arange(10 * RATE) * 0.1)
    loop = make_loop(Audio(hum[None, None], RATE), 2, 4, 120)
    assert loop.heard_bpm is None and loop.bpm == pytest.approx(120, rel=0.02)


def test_both_channels_are_cut_alike():
    audio = piece()
    stereo = Audio(torch.cat([audio.samples, 0.5 * audio.samples], dim=1), RATE)
    samples = make_loop(stereo, 2, 4, 120).audio.samples
    assert torch.allclose(samples[:, 0] * 0.5, samples[:, 1], atol=1e-6)
