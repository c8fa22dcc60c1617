"""Chords that are heard in a recording, by the contract of musicgen-chord."""

import logging

import pytest
import torch
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.analysis.progression import hear_progression
from comfyui_musicgen.musicgen.conditioning.chord_times import TimedChords
from comfyui_musicgen.musicgen.conditioning.chords import row_of
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.replicate.predict import predict
from comfyui_musicgen.tests.songs import RATE_HZ, song


def test_rows_of_a_recording_lie_on_the_published_grid(recording):
    """235 rows in 30 s; a recording of 8 s has 63 rows, of 10 s 78, and is followed around."""
    spans = TimedChords.parse("0 2.05 C\n2.05 8 A:min").spans
    rows = TimedChords(spans, 8.0).rows(0.0, 235, 235 / 30)
    edge = round(2.05 / (30 / 235))
    assert torch.equal(rows[:edge], row_of("C").expand(edge, -1))
    assert torch.equal(rows[edge:63], row_of("A:min").expand(63 - edge, -1))
    assert torch.equal(rows[63:126], rows[:63]) and torch.equal(rows[126:189], rows[:63])
    later = TimedChords(spans, 8.0).rows(18.0, 235, 235 / 30)  # of the window that begins there
    assert torch.equal(later[: 235 - 141], rows[141:])
    ten = TimedChords.parse("0 10 G").spans
    assert not torch.equal(
        TimedChords((*ten[:0], *TimedChords.parse("0 9 G\n9 10 C").spans), 10.0).rows(0, 78, 235 / 30)[77], row_of("G")
    )
    heard = hear_progression(audio.read(recording))
    assert heard.period_s == 8.0 and heard.spans[0].start_s == 0 and heard.spans[-1].end_s == 8.0
    assert all(a.end_s == b.start_s for a, b in zip(heard.spans, heard.spans[1:], strict=False))


def test_the_chords_of_a_recording_are_heard():
    """Chance: one label in 25. Ceiling: 1. Measured on pieces that no part of the engine writes."""
    right = n = 0
    for seed in (3, 5):
        score, samples = song(seed)
        sound = audio.Audio(torch.from_numpy(samples[: 16 * RATE_HZ])[None, None], RATE_HZ)
        rows = hear_progression(sound).rows(0.0, 125, 235 / 30)
        for i in range(125):
            time_s = (i + 0.5) * 30 / 235
            played = next((c.label for c in score.chords if c.start_s <= time_s < c.end_s), "N")
            right, n = right + bool(torch.equal(rows[i], row_of(played))), n + 1
    assert right / n > 0.6, f"{right / n:.2f}"


def test_the_coefficient_holds_for_chords_of_a_recording_too(make_chords, recording):
    """The original scaled written chords alone."""
    plain, _ = make_chords(audio_chords=str(recording))
    strong, _ = make_chords(audio_chords=str(recording), chroma_coefficient=2.5)
    assert not torch.equal(plain.samples, strong.samples)


def write_wave(samples, path):
    return str(audio.write(audio.Audio(samples[None, None].float(), 32000), path))


def test_silence_and_moments_are_refused_before_a_model_is_loaded(tmp_path):
    common = {"version": "chord", "prompt": "x", "model": "no/such", "out": tmp_path / "a.wav"}
    silent = write_wave(torch.zeros(96000), tmp_path / "silent.wav")
    with pytest.raises(InputError, match="'audio_chords' cannot be heard: .*silent.*Give audible music"):
        predict(audio_chords=silent, **common)
    short = write_wave(torch.rand(32000) - 0.5, tmp_path / "short.wav")
    with pytest.raises(InputError, match="'audio_chords' cannot be heard: .*1.00 s long"):
        predict(audio_chords=short, **common)


def test_a_recording_without_beats_is_followed_and_the_log_says_how(make_chords, tmp_path, caplog):
    t = torch.arange(4 * 32000) / 32000
    organ = sum(torch.sin(2 * torch.pi * 261.63 * 2 ** (k / 12) * t) for k in (0, 4, 7)) / 6 * (t / 2).clamp(max=1)
    with caplog.at_level(logging.WARNING):
        made, _ = make_chords(audio_chords=write_wave(organ, tmp_path / "organ.wav"))
    assert made.duration_s == 1 and "No pulse is heard" in caplog.text and "each half second" in caplog.text


def test_noise_without_chords_is_told_as_none_and_the_log_says_so(make_chords, tmp_path, caplog):
    noise = torch.randn(4 * 32000, generator=torch.Generator().manual_seed(0)) * 0.1
    clip = write_wave(noise, tmp_path / "noise.wav")
    with caplog.at_level(logging.WARNING):
        heard = hear_progression(audio.read(clip))
        make_chords(audio_chords=clip)
    if not any(row_of(span.label).any() for span in heard.spans):
        assert "no chord is heard" in caplog.text
    else:
        assert "Hardly any chord" in caplog.text or "No pulse" in caplog.text
