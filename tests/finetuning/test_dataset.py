"""Folders and archives as people have them: what is good is taken, the rest is listed with its reason."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen import audio, loading
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.config import MelodyConfig
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.finetuning import dataset as module
from comfyui_musicgen.musicgen.finetuning.archive import unpack
from comfyui_musicgen.musicgen.finetuning.batches import split_tracks
from comfyui_musicgen.musicgen.finetuning.dataset import read_dataset
from comfyui_musicgen.musicgen.finetuning.encoding import Cache, Encoded, encode_codes, encode_texts, variants_for


def tone(seconds=3.0, rate_hz=16000, channels=1, level=0.3, hz=330.0):
    t = torch.arange(int(seconds * rate_hz)) / rate_hz
    wave = level * torch.sin(2 * torch.pi * hz * t) * (0.6 + 0.4 * torch.sin(2 * torch.pi * 2 * t))
    return Audio(wave.expand(1, channels, -1).contiguous(), rate_hz)


def put(folder: Path, name: str, sound: Audio | None = None) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(sound or tone(), path)
    return path


def test_what_is_good_is_taken_and_the_rest_listed(tmp_path, monkeypatch):
    put(tmp_path, "three seconds.wav")
    put(tmp_path, "8 kHz.wav", tone(rate_hz=8000))
    put(tmp_path, "mono.wav")
    put(tmp_path, "stereo.flac", tone(channels=2))
    put(tmp_path, "six channels.wav", tone(channels=6))
    put(tmp_path, "long.wav", tone(9.0, 8000))
    put(tmp_path, "short.wav", tone(0.5))
    put(tmp_path, "silent.wav", tone(level=0.0))
    (tmp_path / "broken.mp3").write_bytes(b"no music" * 500)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "unreadable.wav").mkdir()
    cut = put(tmp_path, "cut.wav")
    cut.write_bytes(cut.read_bytes()[: -len(cut.read_bytes()) // 4])
    (tmp_path / "notes.txt").write_text("nothing to hear")
    (tmp_path / "__MACOSX").mkdir()
    put(tmp_path, "__MACOSX/._mono.wav")
    monkeypatch.setattr(module, "LONGEST_S", 5.0)  # stands for the 20 minutes of a file of 90
    data = read_dataset(tmp_path, auto_labeling=False)
    taken = {clip.name: clip for clip in data.clips}
    assert set(taken) == {
        "three seconds.wav", "8 kHz.wav", "mono.wav", "stereo.flac", "six channels.wav", "long.wav", "cut.wav",
    }  # fmt: skip
    assert taken["long.wav"].duration_s == pytest.approx(5.0) and "first" in taken["long.wav"].notice
    assert "4 kHz" in taken["8 kHz.wav"].notice and "mixed down" in taken["six channels.wav"].notice
    reasons = {problem.name: problem.reason for problem in data.problems}
    assert set(reasons) == {"short.wav", "silent.wav", "broken.mp3", "empty.wav"}
    assert "0.50 s" in reasons["short.wav"] and "silent" in reasons["silent.wav"]
    for line in ("Not used, 4:", "broken.mp3", "silent.wav: it is silent"):
        assert line in data.report


def test_a_file_that_may_not_be_read_is_listed(tmp_path, monkeypatch):
    put(tmp_path, "good.wav")
    put(tmp_path, "mine.wav")

    def refuse(path):
        if path.name == "mine.wav":
            raise PermissionError(13, "Permission denied")
        return "0" * 64

    monkeypatch.setattr(module, "digest_of", refuse)
    data = read_dataset(tmp_path, caption="x")
    assert [clip.name for clip in data.clips] == ["good.wav"]
    assert [(problem.name, "Permission denied" in problem.reason) for problem in data.problems] == [("mine.wav", True)]


def test_a_folder_without_music_is_refused_with_the_reasons(tmp_path):
    put(tmp_path, "silent.wav", tone(level=0.0))
    with pytest.raises(InputError, match=r"no music to train on[\s\S]*silent\.wav: it is silent"):
        read_dataset(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")


def test_texts_from_every_place_in_their_order(tmp_path):
    for name in ("a.wav", "b.wav", "c_chunk30.wav", "d.wav", "e.wav", "deep/f.wav"):
        put(tmp_path, name)
    (tmp_path / "a.txt").write_text("first line\nsecond line\n", encoding="utf-8-sig")
    table = {"description": "", "key": "A minor", "bpm": 92.4, "genre": ["blues"], "instrument": "piano"}
    (tmp_path / "b.json").write_text(json.dumps(table))
    (tmp_path / "c.txt").write_text("of the whole song")
    (tmp_path / "metadata.csv").write_text('file_name,text\nd.wav,"from, the table"\n')
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "deep/f.wav", "text": "from below"}\n')
    texts = {clip.name: clip.text for clip in read_dataset(tmp_path, caption="the default").clips}
    assert texts == {
        "a.wav": "first line second line", "b.wav": "blues, piano, A minor, 92 bpm", "c_chunk30.wav": "of the whole song",
        "d.wav": "from, the table", "e.wav": "the default", "deep/f.wav": "from below",
    }  # fmt: skip
    assert {clip.text for clip in read_dataset(tmp_path, one_same_description="one").clips} == {"one"}


def test_a_damaged_text_is_a_reason(tmp_path):
    put(tmp_path, "a.wav")
    put(tmp_path, "b.wav")
    (tmp_path / "a.json").write_text("{broken")
    data = read_dataset(tmp_path, auto_labeling=False)
    assert [clip.name for clip in data.clips] == ["b.wav"] and "a.json" in data.problems[0].reason


def test_tempo_and_key_are_written_where_they_are_heard(tmp_path):
    rate_hz, beat = 16000, 0.5
    t = torch.arange(16 * rate_hz) / rate_hz
    chords = [(261.6, 329.6, 392.0), (349.2, 440.0, 523.3), (392.0, 493.9, 587.3), (261.6, 329.6, 392.0)]
    wave = sum(torch.sin(2 * torch.pi * torch.tensor(chords)[(t / 2).long() % 4, i] * t) for i in range(3))
    wave = 0.2 * wave * torch.exp(-6 * (t % beat))
    audio.write(Audio(wave[None, None], rate_hz), tmp_path / "pulse.wav")
    audio.write(
        Audio(0.1 * torch.randn(1, 1, 8 * rate_hz, generator=torch.Generator().manual_seed(0)), rate_hz),
        tmp_path / "noise.wav",
    )
    texts = {clip.name: clip.text for clip in read_dataset(tmp_path).clips}
    assert "120 bpm" in texts["pulse.wav"] or "60 bpm" in texts["pulse.wav"]
    assert texts["noise.wav"] == ""


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        link = zipfile.ZipInfo("link.wav")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return path


def test_an_archive_is_unpacked_without_trust(tmp_path):
    sound = put(tmp_path, "good.wav").read_bytes()
    members = {
        "music/a.wav": sound, "music/a.txt": b"a song", "../out.wav": sound, "/abs.wav": sound, "c:\\d.wav": sound, "run.sh": b"rm -rf",
    }  # fmt: skip
    archive = zipped(tmp_path / "set.zip", members)
    data = read_dataset(archive, unpack_below=tmp_path / "below")
    assert [(clip.name, clip.text) for clip in data.clips] == [("music/a.wav", "a song")]
    assert {problem.name for problem in data.problems} == {"../out.wav", "/abs.wav", "c:\\d.wav", "link.wav"}
    assert not (tmp_path / "out.wav").exists() and not list((tmp_path / "below").rglob("*.sh"))
    again = read_dataset(archive, unpack_below=tmp_path / "below")
    assert again.clips == data.clips


def test_tar_archives_and_single_files(tmp_path):
    sound = put(tmp_path, "good.wav").read_bytes()
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("song.wav")
        info.size = len(sound)
        archive.addfile(info, io.BytesIO(sound))
        device = tarfile.TarInfo("dev.wav")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    data = read_dataset(tmp_path / "set.tar.gz", unpack_below=tmp_path / "below")
    assert [clip.name for clip in data.clips] == ["song.wav"] and data.problems[0].name == "dev.wav"
    assert [clip.name for clip in read_dataset(tmp_path / "good.wav").clips] == ["good.wav"]


def test_a_bomb_and_rubbish_are_refused(tmp_path, monkeypatch):
    from comfyui_musicgen.musicgen.finetuning import archive as archives

    monkeypatch.setattr(archives, "MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(1_000_000))
    with pytest.raises(InputError, match="at most"):
        unpack(tmp_path / "bomb.zip", tmp_path / "below", (".wav",))
    (tmp_path / "rubbish.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "rubbish.zip", tmp_path / "below", (".wav",))


@pytest.fixture(scope="module")
def small(toys):
    return loading.load(toys(n_filters=2, latent_dim=16), "float32")


def test_codes_and_states_are_computed_once(small, tmp_path, monkeypatch):
    put(tmp_path / "set", "a.wav")
    data = read_dataset(tmp_path / "set", caption="a tone")
    cache = Cache(tmp_path / "cache")
    melody = MelodyConfig(n_frames=20)
    first = encode_codes(data, small.codec, melody, cache, variants=2)
    states = encode_texts(["a tone", ""], small.conditioner, cache)
    assert [variant for _, variant, *_ in first] == [0, 1] and first[0][2].shape[0] == 4
    assert not torch.equal(first[0][2][:, :100], first[1][2][:, :100])
    assert states[""].shape == (0, small.config.text.dim) and len(states["a tone"]) > 1
    assert not states["a tone"].is_inference(), "a graph must be able to hold it"

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(small.codec, "encode", refuse)
    monkeypatch.setattr(type(small.conditioner.text_encoder), "forward", refuse)
    again = encode_codes(data, small.codec, melody, cache, variants=2)
    assert all(torch.equal(a[2], b[2]) and torch.equal(a[3], b[3]) for a, b in zip(first, again, strict=True))
    assert torch.equal(encode_texts(["a tone"], small.conditioner, cache)["a tone"], states["a tone"])


def test_voices_are_taken_out_where_they_are_dropped(small, tmp_path):
    put(tmp_path, "a.wav")
    data = read_dataset(tmp_path, caption="a tone", drop_vocals=True)
    silent = encode_codes(data, small.codec, None, Cache(None), separate=lambda song: song)[0][2]
    plain = encode_codes(
        data, small.codec, None, Cache(None), separate=lambda song: Audio(0 * song.samples, song.rate_hz)
    )[0][2]
    silence = small.codec.encode(Audio(torch.zeros(1, 1, 3 * 32000), 32000)).codes[0]
    assert torch.equal(silent.long(), silence) and not torch.equal(plain.long(), silence)


def test_variants_make_ten_minutes():
    assert [variants_for(seconds) for seconds in (20, 120, 300, 3600)] == [8, 5, 2, 1]


@pytest.mark.parametrize("n_clips", [1, 3, 4, 10, 40])
def test_nothing_that_is_held_out_is_learned(n_clips):
    codes = {name: torch.from_numpy(np.full((4, 100), name)) * 100 + torch.arange(100) for name in range(n_clips)}
    tracks = [
        Encoded(str(name), codes[name], torch.zeros(0, 8), "", variant=v) for name in range(n_clips) for v in range(2)
    ]
    split = split_tracks(tracks, 3)
    learned = {int(code) for track in split.learned for code in track.codes[0]}
    held_out = {int(code) for track in split.held_out for code in track.codes[0]}
    assert learned and held_out and not learned & held_out
    assert all(track.variant == 0 for track in split.held_out)
    assert split.by_track == (n_clips >= 4)
