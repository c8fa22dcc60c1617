"""Mixes: loudness matched, stereo kept, silence harmless, peaks safe, each sound changed by one factor."""

import pytest
import torch
from comfyui_musicgen.musicgen.audio import Audio, convert, measure_lufs
from comfyui_musicgen.musicgen.audio.mixing import is_audible, mix
from comfyui_musicgen.musicgen.errors import InputError


def noise(level, seconds=3.0, channels=2, rate_hz=32000, seed=0):
    samples = torch.randn(1, channels, round(seconds * rate_hz), generator=torch.Generator().manual_seed(seed))
    return Audio(level * samples, rate_hz)


def test_a_gain_is_against_the_same_loudness():
    loud, soft = noise(0.1), noise(0.01, seed=1)
    mixed = mix([loud, soft], [0.0, -3.0])
    second = mixed.audio.samples - loud.samples
    assert measure_lufs(second[0], 32000) == pytest.approx(measure_lufs(loud.samples[0], 32000) - 3, abs=0.05)
    torch.testing.assert_close(second, soft.samples * 10 ** (mixed.gains_db[1] / 20), atol=1e-6, rtol=0)
    assert mixed.gains_db == pytest.approx((0, 17), abs=0.2) and "LUFS" in mixed.report
    plain = mix([loud, soft], [0.0, -6.0], matched=False)
    torch.testing.assert_close(plain.audio.samples, loud.samples + soft.samples * 10**-0.3, atol=1e-6, rtol=0)


@pytest.mark.parametrize("silent", [0.0, 1e-6])
def test_silence_is_not_raised_and_ruins_nothing(silent):
    """The original divides by the voice's peak: the whole remix of a silent voice is silence."""
    music, nothing = noise(0.1), noise(silent, seed=3)
    mixed = mix([music, nothing], [0.0, -2.0])
    torch.testing.assert_close(mixed.audio.samples, music.samples, atol=1e-5, rtol=0)
    assert "keeps its level" in mixed.report and not is_audible(nothing, music)
    only = mix([noise(0.0), noise(0.0)], [0.0, 0.0])
    assert not only.audio.samples.any() and only.audio.samples.isfinite().all()
    assert is_audible(noise(0.03, seed=3), music) and not is_audible(noise(0.001, seed=3), music)


def test_stereo_is_kept_lengths_are_padded_and_rates_converted():
    stereo, mono = noise(0.05, 2.0), noise(0.05, 3.0, 1, 44100)
    mixed = mix([stereo, mono], [0.0, 0.0], matched=False)
    assert mixed.audio.rate_hz == 44100 and mixed.audio.samples.shape == (1, 2, 3 * 44100)
    wide = convert(stereo, 44100, 2).samples
    torch.testing.assert_close(
        mixed.audio.samples[..., : wide.shape[-1]], wide + mono.samples[..., : wide.shape[-1]], atol=1e-6, rtol=0
    )
    assert torch.equal(mixed.audio.samples[0, 1, 2 * 44100 :], mono.samples[0, 0, 2 * 44100 :])
    batch = mix([Audio(noise(0.05).samples.expand(3, -1, -1), 32000), noise(0.05, seed=5)], [0.0, 0.0])
    assert len(batch.audio.samples) == 3


def test_peaks_stay_below_full_scale_by_one_factor():
    first, second = noise(0.4), noise(0.4, seed=1)
    mixed = mix([first, second], [6.0, 6.0], peak_headroom_db=1.0)
    peak = mixed.audio.samples.abs().max()
    assert peak == pytest.approx(10 ** (-1 / 20), abs=1e-4) and "quieter" in mixed.report
    plain = sum(sound.samples * 10 ** (db / 20) for sound, db in zip((first, second), mixed.gains_db))
    torch.testing.assert_close(mixed.audio.samples, plain, atol=1e-5, rtol=0)


def test_what_does_not_fit_is_refused():
    two = Audio(noise(0.1).samples.expand(2, -1, -1), 32000)
    three = Audio(noise(0.1).samples.expand(3, -1, -1), 32000)
    with pytest.raises(InputError, match="2 and of 3 clips"):
        mix([two, three], [0, 0])
    with pytest.raises(InputError, match="2 and 4 channels"):
        mix([noise(0.1), noise(0.1, channels=4)], [0, 0])
    for gain_db in (25, float("nan"), True):
        with pytest.raises(InputError, match="gain 1"):
            mix([noise(0.1)], [gain_db])


def test_it_is_cancelled():
    def cancel():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mix([noise(0.1)], [0.0], check=cancel)
