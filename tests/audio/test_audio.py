"""Audio in memory and on disk: what is refused, what is converted, and that files appear whole or not at all."""

import itertools
import json
import math
import os
import resource
import wave

import av
import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.audio import FORMATS, Audio, convert, read, resampling, trim, write, writing
from comfyui_musicgen.musicgen.errors import InputError

RATE_HZ = 32000


def tone(duration_s=0.5, channels=1, rate_hz=RATE_HZ, level=0.5, batch=1):
    """Sines, another frequency in each channel."""
    t = torch.arange(int(duration_s * rate_hz), dtype=torch.float64) / rate_hz
    rows = [torch.sin(2 * math.pi * 220 * (n + 1) * t) * level for n in range(channels)]
    return Audio(torch.stack(rows).float().expand(batch, -1, -1).clone(), rate_hz)


# --- the type ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point_becomes_float32(dtype):
    audio = Audio(torch.tensor([[[0.5, -0.25]]], dtype=dtype), np.int64(44100))
    assert audio.samples.dtype == torch.float32 and audio.samples.tolist() == [[[0.5, -0.25]]]
    assert (audio.n_channels, audio.n_samples, type(audio.rate_hz)) == (1, 2, int)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "message"),
    [
        (torch.zeros(1, 1, 0), 32000, "empty"),
        (torch.zeros(0, 1, 5), 32000, "empty"),
        (torch.zeros(2, 5), 32000, "shape"),
        (torch.zeros(1, 9, 5), 32000, "9 channels, at most 8"),
        (torch.zeros(1, 1, 5, dtype=torch.int16), 32000, "int16.*32768"),
        (torch.tensor([[[0.0, math.nan, math.inf]]]), 32000, r"2 samples.*\[0, 0, 1\]"),
        (torch.tensor([[[1e300]]], dtype=torch.float64), 32000, "1 samples"),
        ([0.0], 32000, "tensor"),
        (torch.zeros(1, 1, 5), 0, "sample rate"),
        (torch.zeros(1, 1, 5), 44100.5, "sample rate"),
        (torch.zeros(1, 1, 5), None, "sample rate"),
        (torch.zeros(1, 1, 5), math.nan, "sample rate"),
    ],
)
def test_unusable_audio_is_refused(samples, rate_hz, message):
    with pytest.raises(InputError, match=message):
        Audio(samples, rate_hz)


# --- conversion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("rate_hz", [8000, 22050, 32000, 44100, 48000])
def test_convert_equals_audiocraft(audiocraft, rate_hz, channels):
    from audiocraft.data.audio_utils import convert_audio

    audio = Audio(torch.randn(2, channels, 5001), rate_hz)
    for wanted in {1, min(channels, 2), 2 if channels != 3 else 1}:
        expected = convert_audio(audio.samples, rate_hz, RATE_HZ, wanted)
        assert torch.equal(convert(audio, RATE_HZ, wanted).samples, expected)


def test_convert_leaves_its_input_alone():
    audio = tone(channels=2)
    before = audio.samples.clone()
    convert(audio, 44100, 1).samples.zero_()
    convert(Audio(audio.samples[:, :1], RATE_HZ), RATE_HZ, 2).samples.zero_()
    assert torch.equal(audio.samples, before)


@pytest.mark.parametrize(("rate_hz", "wanted_hz"), [(44100, 32000), (32000, 44100), (8000, 32000)])
def test_a_long_clip_converted_in_pieces_is_the_same(rate_hz, wanted_hz):
    """Two pieces and a bit, one channel of two: as julius makes it of the whole."""
    import julius

    audio = Audio(torch.rand(1, 2, 2_200_001, generator=torch.Generator().manual_seed(0)) - 0.5, rate_hz)
    expected = julius.resample_frac(audio.samples, rate_hz, wanted_hz).mean(dim=1, keepdim=True)
    result = convert(audio, wanted_hz, 1).samples
    assert result.shape[-1] == audio.n_samples * wanted_hz // rate_hz
    n = min(result.shape[-1], expected.shape[-1])  # julius rounds the length of a long clip in float32
    torch.testing.assert_close(result[..., :n], expected[..., :n], atol=2e-6, rtol=0)


def test_several_channels_never_become_more():
    with pytest.raises(InputError, match=r"2 channels.*3"):
        convert(tone(channels=2), RATE_HZ, 3)


def test_audio_that_resampling_leaves_nothing_of_is_refused():
    with pytest.raises(InputError, match="1 samples"):
        convert(Audio(torch.ones(1, 1, 1), 48000), 32000, 1)


@pytest.mark.parametrize(("old", "new"), [(441, 320), (320, 441), (7, 3), (3, 7)])
def test_direct_resampling_equals_julius(monkeypatch, old, new):
    """To what julius' own filters, made in float32, are worth."""
    audio = Audio(torch.randn(2, 2, 3000, generator=torch.Generator().manual_seed(0)), old * 1000)
    expected = convert(audio, new * 1000, 2).samples
    monkeypatch.setattr(resampling, "_MAX_FILTER_TAPS", 0)
    torch.testing.assert_close(convert(audio, new * 1000, 2).samples, expected, atol=1e-4, rtol=1e-4)


def test_rates_without_a_common_divisor_need_no_gigabytes():
    audio = tone(1.0, rate_hz=44101)
    assert resampling._MAX_FILTER_TAPS < 32000 * 44101
    result = convert(audio, 32000, 1)
    torch.testing.assert_close(result.samples[..., 500:-500], tone(1.0).samples[..., 500:-500], atol=1e-3, rtol=0)


# --- trimming ---------------------------------------------------------------------------------------------------


def test_trim_takes_the_stretch_and_keeps_no_hold_on_the_rest():
    audio = tone(2.0, channels=2)
    part = trim(audio, 0.5, 1.25)
    assert torch.equal(part.samples, audio.samples[..., 16000:40000])
    assert part.samples.untyped_storage().nbytes() == part.samples.numel() * 4


@pytest.mark.parametrize("end_s", [None, -1, -0.5, 2.0, 2.005])
def test_trim_to_the_end(end_s):
    assert trim(tone(2.0), 1.0, end_s).n_samples == RATE_HZ


@pytest.mark.parametrize(
    ("start_s", "end_s", "message"),
    [
        (-1, None, "'start_s'.*-1"),
        (math.nan, None, "'start_s'.*nan"),
        (1.0, 1.0, "'end_s'.*1"),
        (1.0, 0.5, "'end_s'.*1 s.*0.5"),
        (0.0, math.nan, "'end_s'.*nan"),
        (2.0, None, "2 s.*2.000 s long"),
        (0.5, 2.5, "0.5 s to 2.5 s.*2.000 s long"),
        (1.0, 1.00001, "nothing lies between"),
    ],
)
def test_impossible_stretches_are_refused(start_s, end_s, message):
    with pytest.raises(InputError, match=message):
        trim(tone(2.0), start_s, end_s)


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("format", "sample_format", "error"),
    [
        ("wav", "s16", 2**-16),
        ("wav", "s24", 2**-24),
        ("wav", "f32", 0),
        ("flac", "s16", 2**-16),
        ("flac", "s24", 2**-24),
    ],
)
def test_lossless_files_give_back_what_was_written(tmp_path, format, sample_format, error, channels):
    audio = tone(1.3, channels=channels, rate_hz=22050)
    path = write(audio, tmp_path / f"a.{format}", sample_format=sample_format)
    back = read(path)
    assert back.rate_hz == 22050 and back.samples.shape == audio.samples.shape
    assert (back.samples - audio.samples).abs().max() <= error
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_whole_numbers_are_rounded_and_clipped_as_ffmpeg_does(tmp_path):
    samples = torch.tensor([[[0.0, 1.0, -1.0, 3.0, -3.0, 1.4 / 32768, 1.6 / 32768, -1.6 / 32768]]])
    back = read(write(Audio(samples, RATE_HZ), tmp_path / "a.wav"))
    assert (back.samples[0, 0] * 32768).tolist() == [0, 32767, -32768, 32767, -32768, 1, 2, -2]


def test_floating_point_files_keep_what_is_beyond_full_scale(tmp_path):
    loud = tone(level=3.0)
    assert torch.equal(read(write(loud, tmp_path / "a.wav", sample_format="f32")).samples, loud.samples)


@pytest.mark.parametrize(("format", "rate_hz", "saved_hz"), [("mp3", 32000, 32000), ("mp3", 30000, 32000)])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_holds_the_audio(tmp_path, format, rate_hz, saved_hz, channels):
    back = read(write(tone(1.0, channels, rate_hz), tmp_path / "a.mp3"))
    assert back.rate_hz == saved_hz and abs(back.duration_s - 1) < 0.1
    torch.testing.assert_close(
        back.samples[..., 2000:30000], tone(1.0, channels, saved_hz).samples[..., 2000:30000], atol=0.02, rtol=0
    )


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_opus_holds_the_audio_at_48_khz(tmp_path, channels):
    back = read(write(tone(1.0, channels), tmp_path / "a.opus"))
    assert back.rate_hz == 48000 and back.n_channels == channels and abs(back.duration_s - 1) < 0.01
    expected = tone(1.0, channels, 48000).samples[..., 6000:40000]
    assert (back.samples[..., 6000:40000] - expected).pow(2).mean().sqrt() < 0.1  # lossy, but no other signal


@pytest.mark.parametrize(("format", "bitrate"), [("mp3", 320_000), ("opus", 160_000)])
def test_lossy_files_have_their_bitrate(tmp_path, format, bitrate):
    audio = Audio(torch.randn(1, 2, 5 * RATE_HZ) * 0.1, RATE_HZ)
    assert write(audio, tmp_path / f"a.{format}").stat().st_size == pytest.approx(5 * bitrate / 8, rel=0.3)


@pytest.mark.parametrize("format", ["flac", "mp3", "opus"])
def test_metadata_goes_into_the_file_under_its_own_keys(tmp_path, format):
    metadata = {"prompt": json.dumps({"1": {"text": "판소리" * 1000}}), "workflow": '{"nodes": []}'}
    path = write(tone(), tmp_path / f"a.{format}", metadata=metadata)
    with av.open(str(path)) as container:
        found = {**container.metadata, **container.streams[0].metadata}
    assert {key: found[key] for key in metadata} == metadata
    assert len(list(tmp_path.iterdir())) == 1


def test_metadata_of_wav_is_written_beside_it(tmp_path):
    path = write(tone(), tmp_path / "a.wav", metadata={"prompt": '{"1": [2]}', "note": "not JSON"})
    assert json.loads((tmp_path / "a.wav.json").read_text()) == {"prompt": {"1": [2]}, "note": "not JSON"}
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "a.wav.json"]


def test_a_file_of_the_same_name_is_replaced(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"old")
    assert read(write(tone(), tmp_path / "a.wav")).n_samples == RATE_HZ // 2


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    assert write(tone(), tmp_path / "a.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("channels", "name", "options", "message"),
    [
        (1, "a.ogg", {}, r"a\.ogg.*wav, flac, mp3, opus"),
        (1, "a", {}, "formats are"),
        (1, "a.wav", {"format": "aiff"}, "'aiff'.*wav, flac, mp3, opus"),
        (3, "a.mp3", {}, "at most 2 channels.*3"),
        (1, "a.mp3", {"sample_format": "s24"}, "'sample_format' of mp3.*s16"),
        (1, "a.flac", {"sample_format": "f32"}, "s16, s24"),
        (1, "a.flac", {"metadata": {"prompt": {}}}, "metadata"),
        (1, "nowhere/a.wav", {}, "nowhere does not exist"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, channels, name, options, message):
    with pytest.raises(InputError, match=message):
        write(tone(channels=channels), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_is_not_one_file(tmp_path):
    with pytest.raises(InputError, match="batch of 2"):
        write(tone(batch=2), tmp_path / "a.wav")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("limit", [20, 3000])
def test_a_write_that_fails_leaves_nothing_and_says_why(tmp_path, format, limit):
    """The system refuses to write past a size limit as it does on a full disk, be it early or in the last buffer."""
    audio = Audio(torch.randn(1, 1, RATE_HZ) * 0.1, RATE_HZ)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with pytest.raises(InputError, match=r"Cannot write .*a\..*bytes are free"):
            write(audio, tmp_path / f"a.{format}", metadata={"prompt": "{}"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    seconds = itertools.count()
    encode = writing._for_encoder

    def interrupted(*args):
        if next(seconds) == 2:
            raise KeyboardInterrupt
        return encode(*args)

    monkeypatch.setattr(writing, "_for_encoder", interrupted)
    (tmp_path / "a.wav").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write(tone(5.0), tmp_path / "a.wav", metadata={"prompt": "{}"})
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_whole_numbers_of_every_width_are_scaled(tmp_path):
    expected = tone(0.1, channels=2)
    for width, error in ((1, 2**-7), (2, 2**-15), (3, 2**-22), (4, 2**-22)):
        path = tmp_path / f"{width}.wav"
        full = 2 ** (8 * width - 1)
        values = (expected.samples[0].T.double() * (full - 1)).round().long().numpy().ravel()
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(width)
            file.setframerate(RATE_HZ)
            if width == 1:
                values = values + 128  # WAV's only unsigned width
            file.writeframes(b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in values))
        torch.testing.assert_close(read(path).samples, expected.samples, atol=error, rtol=0)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_a_stretch_equals_the_same_of_the_whole(tmp_path, name):
    path = write(tone(2.0, channels=2), tmp_path / name)
    for start_s, end_s in ((0.0, 0.5), (0.7, 1.3), (1.1, None), (1.1, -1)):
        assert torch.equal(read(path, start_s, end_s).samples, trim(read(path), start_s, end_s).samples)


def test_stretches_beyond_the_file_are_refused(tmp_path):
    path = write(tone(1.0), tmp_path / "a.wav")
    for start_s, end_s in ((1.0, None), (3.0, 4.0), (0.5, 1.5)):
        with pytest.raises(InputError, match=r"a\.wav.*1.000 s long"):
            read(path, start_s, end_s)


def test_unreadable_files_are_named(tmp_path):
    noise = tmp_path / "noise.mp3"
    noise.write_bytes(os.urandom(5000))
    empty = tmp_path / "empty.wav"
    empty.touch()
    headless = tmp_path / "headless.flac"
    headless.write_bytes(b"RIFF" + write(tone(), tmp_path / "a.flac").read_bytes()[100:])
    silent = tmp_path / "video.mp4"
    with av.open(str(silent), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    bodiless = tmp_path / "bodiless.wav"
    bodiless.write_bytes(write(tone(), tmp_path / "a.wav").read_bytes()[:44])
    for path in (noise, empty, headless, silent, bodiless, tmp_path, tmp_path / "missing.wav"):
        with pytest.raises(InputError, match=path.name):
            read(path)


def test_not_a_number_in_a_file_is_reported_with_its_name(tmp_path):
    path = write(tone(), tmp_path / "a.wav", sample_format="f32")
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.wav.*NaN"):
        read(path)
