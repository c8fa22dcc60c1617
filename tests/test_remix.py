"""The whole remix. Stems are the known ones of synthesized songs, for no weights of Demucs can be had where tests run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen import remix as engine
from comfyui_musicgen.musicgen.audio import Audio, convert, measure_lufs
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.conditioning.chords import row_of
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import CheckpointError, DependencyError, InputError
from comfyui_musicgen.musicgen.remix import demucs_of, remix, voice_of
from comfyui_musicgen.tests.songs import RATE_HZ, song
from comfyui_musicgen.tests.songs.voiced import SONG_RATE_HZ, voiced_song

CPU = torch.device("cpu")
SECONDS = 16.0


@pytest.fixture(scope="module")
def loaded(toys):
    return loading.load(toys(chords=True, n_filters=2, latent_dim=16), "float32")


@pytest.fixture(scope="module")
def voiced():
    return voiced_song(1, SECONDS)


def played_off(monkeypatch, score, bpm_ratio):
    """In place of the model's sound: the beats of a song as clicks over its bass, at another tempo and start, as a model plays that was told
    the tempo. What it was told is kept: (text, chords, duration)."""
    told = []

    def render(loaded, request, params, device, on_progress, diffusion=None):
        told.append((request.text, request.chords, params.duration_s, request.chord_strength))
        other = clicked(score, bpm_ratio, params.duration_s)
        return other, Codes(torch.zeros(1, 4, 10, dtype=torch.long), 50.0, loaded.codec.config.identity)

    monkeypatch.setattr(engine, "render", render)
    return told


def clicked(score, ratio, seconds, rate_hz=32000):
    """Drums and a bass on the score's beats at `ratio` of its tempo, 0.17 s late, in stereo."""
    generator, n = torch.Generator().manual_seed(8), round(seconds * rate_hz)
    samples = 0.003 * torch.randn(2, n, generator=generator)
    t = torch.arange(round(0.3 * rate_hz)) / rate_hz
    beat_s = 60 / score.bpm / ratio
    start_s = float(score.beats_s[0]) / ratio + 0.17
    for number in range(int((seconds - start_s) / beat_s)):
        down = number % score.meter == 0
        hit = torch.exp(-t / 0.05) * torch.sin(2 * torch.pi * (60 if down else 190) * t) * (0.8 if down else 0.4)
        hit = hit + (0.1 if down else 0.25) * torch.exp(-t / 0.02) * torch.randn(len(t), generator=generator)
        tone = 0.2 * torch.exp(-t / 0.2) * torch.sin(2 * torch.pi * (110 if number // score.meter % 2 else 82.4) * t)
        first = round((start_s + number * beat_s) * rate_hz)
        part = samples[:, first : first + len(t)]
        part += torch.stack([hit + tone, 0.7 * hit + tone])[:, : part.shape[1]]
    return Audio(samples[None], rate_hz)


def near(times_s, found_s, within_s=0.05):
    """Share of times that have a found one near."""
    return float((np.abs(np.array(times_s)[:, None] - np.array(found_s)[None, :]).min(axis=1) < within_s).mean())


@pytest.mark.parametrize(("seed", "ratio"), [(1, 0.96), (4, 1.05), (6, 1.0)])
def test_beats_of_the_remix_are_the_songs(monkeypatch, loaded, seed, ratio):
    """Three songs with a voice on top. Beats of the synchronised music heard anew, against those the song was composed with."""
    from comfyui_musicgen.musicgen.analysis.hearing import hear

    voiced = voiced_song(seed, 24.0)
    told = played_off(monkeypatch, voiced.score, ratio)
    made = remix(voiced.song, "a band", loaded, device=CPU, separate=voice_of(voiced.voice))
    beats = [time_s for time_s in voiced.score.beats_s if 0.2 < time_s < 23.0]

    def share(sound):
        return near(beats, hear(sound, voiced.score.bpm, voiced.score.meter).beats_s)

    before, after = share(made.background), share(made.background_synced)
    print(
        f"seed {seed}: beats within 50 ms {after:.2f}, not aligned {before:.2f}, song heard {near(beats, made.analysis.beats_s):.2f}"
    )
    assert after >= 0.8 > before
    assert told[0][0] == f"a band, bpm : {round(made.analysis.bpm)}"
    assert made.mix.duration_s == pytest.approx(24.0, abs=0.001)


def test_the_voice_is_untouched_but_for_its_level_and_stays_stereo(monkeypatch, loaded, voiced):
    played_off(monkeypatch, voiced.score, 1.02)
    made = remix(voiced.song, "", loaded, device=CPU, separate=voice_of(voiced.voice), vocals_db=-2.0)
    assert made.vocals.rate_hz == made.mix.rate_hz == SONG_RATE_HZ
    assert torch.equal(made.vocals.samples, voiced.voice.samples)
    music = convert(made.background_synced, SONG_RATE_HZ, 2).samples
    parts = torch.stack([music.flatten(), made.vocals.samples.flatten()], dim=1).double()
    gains = torch.linalg.lstsq(parts, made.mix.samples.flatten().double()[:, None]).solution[:, 0]
    rebuilt = (parts @ gains).view_as(made.mix.samples).float()
    torch.testing.assert_close(rebuilt, made.mix.samples, atol=2e-5, rtol=0)
    level = [measure_lufs((gain * part).float().view(2, -1), SONG_RATE_HZ) for gain, part in zip(gains, parts.T)]
    assert level[1] - level[0] == pytest.approx(-2.0, abs=0.2)


def test_the_chords_of_the_song_are_told_at_their_times(monkeypatch, loaded, voiced):
    told = played_off(monkeypatch, voiced.score, 1.0)
    made = remix(
        voiced.song,
        "x",
        loaded,
        device=CPU,
        separate=voice_of(voiced.voice),
        large_chord_voca=False,
        chroma_coefficient=1.5,
    )
    (_, chords, duration_s, strength), *_ = told
    assert strength == 1.5 and duration_s > voiced.song.duration_s
    rate_hz, n_rows = 7.8125, int(15 * 7.8125)
    rows = chords.rows(0.0, n_rows, rate_hz)
    truth = torch.zeros(n_rows, 12)
    for chord in voiced.score.chords:
        truth[round(chord.start_s * rate_hz) : round(chord.end_s * rate_hz)] = row_of(chord.label)
    right = float((rows == truth).all(dim=1).float().mean())
    chance = float((rows == truth.roll(n_rows // 3, 0)).all(dim=1).float().mean())
    assert right > 0.7 > chance + 0.15
    assert made.chords is chords and all(":7" not in chord.label for chord in chords.chords())


def test_dials_reach_the_model(loaded, voiced):
    """The original's chroma coefficient has no effect."""
    short = Audio(voiced.song.samples[..., : 4 * SONG_RATE_HZ], SONG_RATE_HZ)
    voice = Audio(voiced.voice.samples[..., : 4 * SONG_RATE_HZ], SONG_RATE_HZ)
    params = GenerationParams(seed=3, top_k=20)

    def codes(**options):
        return remix(short, "calm", loaded, device=CPU, separate=voice_of(voice), params=params, **options).codes.codes

    plain = codes()
    assert torch.equal(plain, codes())
    assert not torch.equal(plain, codes(chroma_coefficient=2.0))
    assert torch.equal(plain, codes(vocals_db=-9.0)), "the mix's dial makes no other music"


def test_a_silent_voice_is_told_and_the_mix_is_the_music(monkeypatch, loaded, voiced, caplog):
    """The original's 0/0 makes the whole remix silent."""
    played_off(monkeypatch, voiced.score, 1.0)
    silence = Audio(torch.zeros_like(voiced.song.samples), SONG_RATE_HZ)
    made = remix(voiced.music, "x", loaded, device=CPU, separate=voice_of(silence))
    assert any("No voice" in notice for notice in made.notices) and "No voice" in caplog.text
    assert made.mix.samples.isfinite().all() and made.mix.samples.abs().max() > 0.1


def test_a_song_without_beats_is_told_and_not_aligned(monkeypatch, loaded, voiced, caplog):
    told = played_off(monkeypatch, voiced.score, 1.0)
    t = torch.arange(6 * 32000) / 32000
    swell = (
        0.2
        * sum(torch.sin(2 * torch.pi * hz * t) for hz in (261.6, 329.6, 392.0))
        * (0.6 + 0.4 * torch.sin(2 * torch.pi * t / 6))
    )
    pad = Audio(swell.expand(1, 2, -1).contiguous(), 32000)
    silence = Audio(torch.zeros_like(pad.samples), 32000)
    made = remix(pad, "x", loaded, device=CPU, separate=voice_of(silence))
    assert made.alignment is None and made.analysis.bpm == 0 and told[0][0] == "x"
    assert "no pulse" in caplog.text and any("no pulse" in notice for notice in made.notices)
    assert made.mix.duration_s == pytest.approx(6.0, abs=0.001)


def test_music_without_beats_is_told_and_not_aligned(loaded, voiced, caplog):
    """A toy's music is noise."""
    made = remix(voiced.song, "x", loaded, device=CPU, separate=voice_of(voiced.voice), params=GenerationParams(seed=1))
    if made.background_analysis is None or not made.background_analysis.bpm:
        assert made.alignment is None and made.notices and made.notices[0] in caplog.text
    assert made.background_synced.duration_s == pytest.approx(SECONDS, abs=0.001)
    assert made.background.duration_s > SECONDS


def test_it_is_cancelled_at_every_stage(monkeypatch, loaded, voiced):
    stages = []
    played_off(monkeypatch, voiced.score, 1.0)
    remix(
        voiced.song,
        "x",
        loaded,
        device=CPU,
        separate=voice_of(voiced.voice),
        on_progress=lambda *step: stages.append(step[0]),
    )
    names = list(dict.fromkeys(stages))
    assert names == ["hearing the song", "hearing the music", "aligning", "mixing"]
    for name in names:

        def cancel(stage, done, total, name=name):
            if stage == name:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            remix(voiced.song, "x", loaded, device=CPU, separate=voice_of(voiced.voice), on_progress=cancel)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chroma_coefficient": 3}, "'chroma_coefficient'"), ({"vocals_db": 90}, "'vocals_db'"), ({"beat_sync_threshold": "x"}, "'beat_sync_threshold'"),
        ({"beat_sync_threshold": -0.5}, "'beat_sync_threshold'"), ({"bpm": 1}, "'bpm'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_before_anything_is_made(loaded, voiced, options, words):
    def never(song, on_step):
        raise AssertionError("separated in vain")

    with pytest.raises(InputError, match=words):
        remix(voiced.song, "x", loaded, device=CPU, separate=never, **options)


def test_a_model_without_chords_and_demucs_without_weights_are_told(toys, loaded, voiced, tmp_path, monkeypatch):
    plain = replace(loaded, config=replace(loaded.config, melody=None))
    with pytest.raises(InputError, match="neither chords nor melodies"):
        remix(voiced.song, "x", plain, device=CPU, separate=voice_of(voiced.voice))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises((CheckpointError, DependencyError), match="demucs"):
        remix(voiced.song, "x", loaded, device=CPU, stem_dirs=[tmp_path])
    with pytest.raises((CheckpointError, DependencyError)):
        demucs_of([tmp_path], CPU)
    samples = torch.from_numpy(song(0)[1])[None, None, :RATE_HZ]
    with pytest.raises(InputError, match="2 s"):
        remix(Audio(samples, RATE_HZ), "x", loaded, device=CPU, separate=voice_of(Audio(samples, RATE_HZ)))
