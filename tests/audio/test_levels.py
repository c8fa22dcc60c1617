"""Levels: equal to audiocraft's where it works, mended where it does not, with and without torchaudio."""

import math
import sys

import pytest
import torch
from comfyui_musicgen.musicgen.audio import (
    LEVELLINGS,
    STRATEGIES,
    Audio,
    convert,
    loudness,
    measure_lufs,
    normalize,
    read,
    write,
)
from comfyui_musicgen.musicgen.errors import DependencyError, InputError

RATE_HZ = 32000


@pytest.fixture
def without_torchaudio(monkeypatch):
    loudness._torchaudio.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    yield
    loudness._torchaudio.cache_clear()


def signals():
    """Name -> [C, L]: noise, tones, bursts in near silence, a rumble, loud and clipped ones; mono to five channels."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(5, 2 * RATE_HZ, generator=generator)
    t = torch.arange(2 * RATE_HZ) / RATE_HZ
    bursts = noise[:2] * 0.3 * (torch.sin(2 * math.pi * 0.7 * t) > 0.6) + 1e-4 * noise[2:4]
    return {
        "mono noise": noise[:1] * 0.1,
        "stereo noise": noise[:2] * torch.tensor([[0.05], [0.2]]),
        "surround noise": noise * 0.1,
        "tone": 0.4 * torch.sin(2 * math.pi * 1000 * t)[None],
        "rumble": 0.6 * torch.sin(2 * math.pi * 40 * t)[None],
        "high tone": 0.9 * torch.sin(2 * math.pi * 5000 * t)[None],
        "bursts": bursts,
        "clipped": (noise[:2] * 2).clamp(-1, 1),
        "beyond full scale": noise[:1] * 3,
        "below the energy floor": noise[:2] * 1e-3,
        "uneven length": noise[:2, :27123] * 0.2,
    }


def rms(samples):
    return samples.square().mean().sqrt().item()


@pytest.mark.parametrize("name", signals())
@pytest.mark.parametrize("compressor", [False, True])
@pytest.mark.parametrize("strategy", ["audiocraft", "clip", "peak", "rms"])
def test_normalize_equals_audiocraft(audiocraft, strategy, compressor, name):
    """Its way to a loudness cuts peaks, and is behind its name."""
    from audiocraft.data.audio_utils import normalize_audio

    samples = signals()[name]
    expected = normalize_audio(
        samples.clone(), strategy="loudness" if strategy == "audiocraft" else strategy, sample_rate=RATE_HZ, loudness_compressor=compressor,
        peak_clip_headroom_db=2, rms_headroom_db=15, loudness_headroom_db=16,
    )  # fmt: skip
    audio = Audio(samples[None], RATE_HZ)
    result = normalize(
        audio, strategy, compressor=compressor, peak_headroom_db=2, rms_headroom_db=15, loudness_lufs=-16
    )
    torch.testing.assert_close(result.samples[0], expected, atol=1e-5, rtol=0)
    assert torch.equal(audio.samples[0], samples)  # the input is not altered


@pytest.mark.parametrize("rate_hz", [11025, 32000, 48000])
@pytest.mark.parametrize("filters", ["torchaudio", "pyloudnorm"])
def test_loudness_is_what_torchaudio_measures(request, filters, rate_hz):
    torchaudio = pytest.importorskip("torchaudio")
    clips = {
        name: convert(Audio(samples[None], RATE_HZ), rate_hz, samples.shape[0]).samples[0]
        for name, samples in signals().items()
    }
    expected = {name: torchaudio.transforms.Loudness(rate_hz)(samples).item() for name, samples in clips.items()}
    if filters == "pyloudnorm":
        request.getfixturevalue("without_torchaudio")
    for name, samples in clips.items():
        assert abs(measure_lufs(samples, rate_hz) - expected[name]) < 0.001, name


def test_long_clips_are_measured_in_stretches_as_if_at_once():
    torchaudio = pytest.importorskip("torchaudio")
    long = torch.cat([samples[:2].expand(2, -1) for samples in signals().values()] * 2, dim=1)
    expected = torchaudio.transforms.Loudness(RATE_HZ)(long).item()
    for stretch in (2**13, 2**17):
        assert abs(measure_lufs(long, RATE_HZ, stretch=stretch) - expected) < 0.001


def test_each_clip_of_a_batch_is_levelled_by_itself():
    batch = Audio(torch.stack([signals()["stereo noise"], signals()["clipped"] * 0.3, torch.zeros(2, 64000)]), RATE_HZ)
    for strategy in STRATEGIES:
        result = normalize(batch, strategy).samples
        for clip, levelled in zip(batch.samples, result):
            assert torch.equal(normalize(Audio(clip[None], RATE_HZ), strategy).samples[0], levelled)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("value", [0.0, 1e-42])
def test_silence_stays_silence(strategy, value):
    silence = Audio(torch.full((1, 2, RATE_HZ), value), RATE_HZ)
    assert torch.equal(normalize(silence, strategy).samples, silence.samples)


def test_a_constant_offset_has_no_loudness_and_keeps_its_level():
    offset = Audio(torch.full((1, 1, RATE_HZ), 2.1e-3), RATE_HZ)  # above the energy floor
    assert measure_lufs(offset.samples[0], RATE_HZ) == -math.inf
    assert torch.equal(normalize(offset).samples, offset.samples)


def test_channels_that_cancel_are_levelled_by_what_is_heard():
    left = signals()["mono noise"]
    result = normalize(Audio(torch.cat([left, -left])[None], RATE_HZ), "rms").samples
    assert abs(20 * math.log10(rms(result)) + 18) < 0.01


@pytest.mark.parametrize("n_samples", [1, 100, 5000, 12799])
def test_audio_shorter_than_a_measuring_block_is_levelled(n_samples):
    short = signals()["tone"][None, :, 8 : 8 + n_samples]
    result = normalize(Audio(short, RATE_HZ)).samples
    assert result.shape == short.shape and result.isfinite().all()
    if n_samples > 4000:
        longer = normalize(Audio(short.repeat(1, 1, 20), RATE_HZ)).samples
        assert abs(20 * math.log10(rms(result) / rms(longer))) < 0.5


def test_more_than_five_channels_are_measured_on_their_mean():
    mono = signals()["mono noise"]
    assert measure_lufs(mono.expand(7, -1), RATE_HZ) == pytest.approx(measure_lufs(mono, RATE_HZ), abs=1e-3)
    assert normalize(Audio(mono.expand(8, -1)[None], RATE_HZ)).n_channels == 8


def crest_db(samples):
    return 20 * math.log10(samples.abs().max() / samples.square().mean().sqrt())


@pytest.mark.parametrize("compressor", [False, True])
@pytest.mark.parametrize("name", signals())
def test_loudness_cuts_nothing_and_never_exceeds_the_peak_limit(name, compressor):
    """A clip above full scale ended at -6.4 LUFS, 99.9 % of it cut; drums lost 6 dB of their crest."""
    for headroom_db in (0.0, 1.0, 6.0):
        samples = signals()[name]
        result = normalize(Audio(samples[None], RATE_HZ), peak_headroom_db=headroom_db, compressor=compressor).samples[
            0
        ]
        limit = 10 ** (-headroom_db / 20)
        assert result.abs().max() <= limit * (1 + 1e-6)
        if not compressor:
            torch.testing.assert_close(result / result.abs().max(), samples / samples.abs().max(), atol=1e-5, rtol=0)
            loud_enough = abs(measure_lufs(result, RATE_HZ) + 14) < 0.1
            assert loud_enough or result.abs().max() > 0.999 * limit or name == "below the energy floor"


def test_beyond_full_scale_is_measured_for_what_it_is():
    """The filters of the measurement cut at full scale, and then the target was missed by as much."""
    noise = signals()["stereo noise"]
    for level in (0.1, 3.0, 100.0):
        result = normalize(Audio(noise[None] * level, RATE_HZ), loudness_lufs=-23.0).samples[0]
        assert abs(measure_lufs(result, RATE_HZ) + 23) < 0.02


def test_transients_stay(caplog):
    """Drum strokes: a crest of 19 dB went to 12.7."""
    t = torch.arange(RATE_HZ // 2) / RATE_HZ
    stroke = torch.exp(-t / 0.01) * torch.randn(len(t), generator=torch.Generator().manual_seed(3))
    drums = stroke.repeat(6)[None] * 0.4
    caplog.set_level("INFO")
    result = normalize(Audio(drums[None], RATE_HZ)).samples[0]
    assert crest_db(result) == pytest.approx(crest_db(drums), abs=1e-3)
    assert "instead of -14.0" in caplog.text
    cut = normalize(Audio(drums[None], RATE_HZ), "audiocraft").samples[0]
    assert crest_db(cut) < crest_db(drums) - 2
    bent = normalize(Audio(drums[None], RATE_HZ), compressor=True).samples[0]
    assert measure_lufs(bent, RATE_HZ) > measure_lufs(result, RATE_HZ) + 1


@pytest.mark.parametrize("strategy", LEVELLINGS)
def test_cancel_is_looked_for_often_and_ends_the_work(strategy):
    """240 s of stereo took 1.3 s, at the end of which Cancel was looked for."""
    audio = Audio(torch.rand(1, 2, 120 * RATE_HZ) - 0.5, RATE_HZ)
    calls = []

    class Interrupted(BaseException):
        pass

    def check():
        calls.append(1)
        if len(calls) == 4:
            raise Interrupted

    if strategy in ("loudness", "audiocraft"):
        with pytest.raises(Interrupted):
            normalize(audio, strategy, check=check)
    else:  # one pass over the samples: milliseconds
        normalize(audio, strategy, check=check)


def test_loudness_hits_its_target():
    for name in ("mono noise", "stereo noise", "tone"):
        result = normalize(Audio(signals()[name][None], RATE_HZ), loudness_lufs=-23)
        assert abs(measure_lufs(result.samples[0], RATE_HZ) + 23) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "none"}, "loudness, clip, peak, rms.*'none'"),
        ({"loudness_lufs": 3}, "'loudness_lufs'.*-70 to 0.*3"),
        ({"peak_headroom_db": -1}, "'peak_headroom_db'.*0 to 60.*-1"),
        ({"rms_headroom_db": math.nan}, "'rms_headroom_db'.*nan"),
        ({"rms_headroom_db": "18"}, "'rms_headroom_db'"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        normalize(Audio(torch.ones(1, 1, 5), RATE_HZ), **options)


def test_without_torchaudio_everything_works(without_torchaudio, tmp_path):
    audio = read(write(Audio(signals()["stereo noise"][None], RATE_HZ), tmp_path / "a.wav"))
    audio = convert(audio, 44100, 2)
    for strategy in STRATEGIES:
        assert normalize(audio, strategy).samples.isfinite().all()
    assert abs(measure_lufs(normalize(audio).samples[0], 44100) + 14) < 0.1
    for n_channels, n_samples in ((1, 1), (2, 5000), (7, 40000)):
        noise = torch.randn(1, n_channels, n_samples) * 0.1
        assert normalize(Audio(noise, 11026)).samples.isfinite().all()


def test_only_loudness_asks_for_pyloudnorm(without_torchaudio, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyloudnorm", None)
    audio = Audio(signals()["tone"][None], RATE_HZ)
    for strategy in ("clip", "peak", "rms"):
        normalize(audio, strategy)
    with pytest.raises(DependencyError, match="pip install pyloudnorm"):
        normalize(audio, "loudness")
