"""Sound that every player plays is read, and what of it was skipped or is missing is said in the log.

The files in tests/data/reports/audio are those of public reports on other packs; the others are made here.
"""

import logging
import random
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.audio import Audio, read, write
from comfyui_musicgen.musicgen.errors import InputError

RATE_HZ = 32000
REPORTS = Path(__file__).resolve().parents[1] / "data" / "reports" / "audio"


def noise(duration_s):
    return Audio(
        torch.randn(1, 1, round(duration_s * RATE_HZ), generator=torch.Generator().manual_seed(1)) * 0.1, RATE_HZ
    )


def encoded(path, codec, duration_s=3.0, rate_hz=48000, **options):
    """A file of noise in a container that the pack does not write."""
    samples = (np.random.default_rng(1).standard_normal((1, round(duration_s * rate_hz))) * 0.1).astype(np.float32)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate_hz)
        stream.layout, stream.format = "mono", "fltp" if codec != "libopus" else "flt"
        frame = av.AudioFrame.from_ndarray(samples, format=stream.format.name, layout="mono")
        frame.sample_rate = rate_hz
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("name", "duration_s", "said"),
    [
        ("ok.mp3", 1.0, None),
        ("zero1.mp3", 1.0, r"1 bytes"),
        ("text.mp3", 1.0, r"24 bytes"),
        ("lyrics3.mp3", 1.0, r"177 bytes"),
        ("zeros.mp3", 1.01, r"5000 bytes"),
        ("concat.mp3", 2.05, r"333 bytes"),
        ("cut.aac", 0.704, r"142 bytes"),
        ("cut_faststart.m4a", 0.64, r"only 0\.640 s of its 1\.000 s"),
    ],
)
def test_what_players_play_is_read_and_what_was_skipped_is_said(caplog, name, duration_s, said):
    audio = read(REPORTS / name)
    assert abs(audio.duration_s - duration_s) < 0.01
    assert audio.samples.abs().max() > 0.01
    text = "\n".join(warnings(caplog))
    assert re.search(said, text) and name in text if said else not text


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.webm", "libopus", {}),
        ("a.mkv", "libopus", {}),
        ("a.mka", "aac", {}),
        ("a.m4a", "aac", {"movflags": "faststart"}),
        ("a.opus", "libopus", {}),
        ("a.ogg", "libopus", {}),
        ("a.wav", "pcm_f32le", {}),
    ],
)
def test_a_missing_end_is_said(tmp_path, caplog, name, codec, options):
    path = encoded(tmp_path / name, codec, **options) if name != "a.wav" else write(noise(3.0), tmp_path / name)
    assert abs(read(path).duration_s - 3.0) < 0.1
    assert not warnings(caplog), "a whole file is nothing to warn of"
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * 0.6)])
    audio = read(path)
    assert 0.5 < audio.duration_s < 2.2
    assert any(name in text and ("cut" in text or "end is missing" in text) for text in warnings(caplog))


def test_a_hole_in_an_opus_file_is_said(tmp_path, caplog):
    path = encoded(tmp_path / "a.opus", "libopus", duration_s=5.0, page_duration="200000")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20] = bytes(20)  # its page fails the checksum, and is dropped
    path.write_bytes(data)
    read(path)
    assert any("missing" in text for text in warnings(caplog))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:40000] + data[42000:]])
def test_damage_that_decoders_skip_is_reported(tmp_path, caplog, damage):
    path = write(noise(3.0), tmp_path / "a.flac")
    path.write_bytes(damage(path.read_bytes()))
    audio = read(path)
    assert any(f"only {audio.duration_s:.3f} s of its 3.000 s" in text for text in warnings(caplog))


def test_what_is_mostly_not_audio_is_refused(tmp_path):
    """A cut or trailing part is skipped; a file with hardly a frame of sound in it is no audio file."""
    sound = write(noise(1.0), tmp_path / "a.mp3").read_bytes()
    path = tmp_path / "b.mp3"
    for seed in range(20):
        rng = random.Random(seed)
        path.write_bytes(bytes(rng.randrange(256) if i % 4 == 3 else 0 for i in range(2000)) + sound[:200])
        with pytest.raises(InputError, match=r"b\.mp3"):
            read(path)


@pytest.mark.parametrize("name", ["12:30.wav", "file:x.wav", "pipe:0", "concat:a|b.flac"])
def test_a_colon_in_a_relative_name_is_not_a_protocol(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(noise(0.2), name, format="wav")
    assert read(name).n_samples == read(tmp_path / name).n_samples == 6400


def test_an_end_past_the_end_is_the_end_where_it_may_be(tmp_path):
    path = write(noise(1.0), tmp_path / "a.wav")
    assert read(path, 0.25, 7.0, end_may_exceed=True).n_samples == 24000
    assert read(path, 0.25, 0.5, end_may_exceed=True).n_samples == 8000


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("suffix", ["mp3", "flac", "opus", "wav"])
def test_flipped_and_lost_bytes_end_in_sound_or_in_an_error_of_ours(tmp_path, seed, suffix):
    rng = random.Random(seed)
    data = bytearray(write(noise(0.5), tmp_path / f"a.{suffix}").read_bytes())
    for _ in range(rng.randint(1, 30)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if seed % 3 == 0:
        del data[rng.randrange(len(data)) :]
    path = tmp_path / f"b.{suffix}"
    path.write_bytes(data)
    try:
        assert read(path).samples.isfinite().all()
    except InputError as error:
        assert path.name in str(error)
