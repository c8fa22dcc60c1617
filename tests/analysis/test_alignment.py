"""Music on the beats of other music: which beats are paired, how far they are moved, and what is said where nothing is."""

import json

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.analysis.alignment import Beats, align, find_alignment
from comfyui_musicgen.musicgen.analysis.hearing import hear
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.tests.songs import RATE_HZ, song


def grid(bpm, n, start_s=0.0, meter=4, jitter_s=0.0, seed=0):
    times = start_s + 60 / bpm * np.arange(n) + jitter_s * np.random.default_rng(seed).standard_normal(n)
    times = np.sort(np.maximum(times, 0))
    return Beats(tuple(map(float, times)), tuple(map(float, times[::meter])))


def map_of(source, target, length_s=30.0, duration_s=30.0, threshold_beats=0.5, max_stretch=1.25):
    alignment, notices = find_alignment(source, target, length_s, duration_s, threshold_beats, max_stretch)
    if alignment:
        speeds = np.diff(alignment.source_s) / np.diff(alignment.target_s)
        assert (np.diff(alignment.source_s) > 0).all() and (np.diff(alignment.target_s) > 0).all()
        assert speeds.min() >= 1 / max_stretch - 1e-6 and speeds.max() <= max_stretch + 1e-6
    return alignment, notices


def off_s(alignment, source, target):
    """Distance of each target beat from the nearest moved source beat."""
    moved = np.array(alignment.moved(source.beats_s))
    return np.abs(np.array(target.beats_s)[:, None] - moved[None, :]).min(axis=1)


@pytest.mark.parametrize("bpm", [97.0, 120.0, 143.0])
@pytest.mark.parametrize("ratio", [0.94, 1.0, 1.07])
def test_another_tempo_and_start_are_brought_onto_the_beats(bpm, ratio):
    target = grid(bpm, int(30 * bpm / 60), 0.21)
    source = grid(bpm * ratio, int(33 * bpm * ratio / 60), 0.43, jitter_s=0.012)
    alignment, notices = map_of(source, target, 33.0)
    assert (off_s(alignment, source, target) < 0.05).mean() > 0.95 and not notices
    assert alignment.speed == pytest.approx(1 / ratio, rel=0.02)
    # Downbeats on downbeats, for the line that is nearest to where the music lay.
    moved = np.array(alignment.moved(source.downbeats_s))
    downs = np.array(target.downbeats_s)[1:-1]
    assert (np.abs(downs[:, None] - moved[None, :]).min(axis=1) < 0.05).mean() > 0.9


def test_missing_and_false_beats_are_left_out():
    target, full = grid(100, 48, 0.3), grid(104, 52, 0.1, jitter_s=0.008)
    rng = np.random.default_rng(3)
    kept = [time_s for number, time_s in enumerate(full.beats_s) if number % 9 != 4]
    false = tuple(sorted([*kept, *rng.uniform(2, 26, 6)]))
    alignment, _ = map_of(Beats(false, full.downbeats_s), target)
    assert (off_s(alignment, full, target)[:44] < 0.05).mean() > 0.8


def test_doubles_disorder_and_two_zeros_are_harmless():
    """The original's anchors are not checked: a doubled or unordered one stops it with an error."""
    text = "0, 0, 0.5, 1.0, 1.0, 2.0, 1.5, 2.5, 3.0, 3.5"
    assert Beats.parse(text).beats_s == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
    alignment, _ = map_of(Beats.parse(text), Beats.parse(text), 4.0, 4.0)
    assert alignment.moved([0.0, 1.7, 4.0]) == pytest.approx([0.0, 1.7, 4.0], abs=1e-6)


def test_one_beat_far_off_is_dropped_not_pinned():
    """The original keeps it as an identity anchor, beside which the speed jumps."""
    target = grid(120, 40)
    off = list(target.beats_s)
    off[20] += 0.24
    alignment, _ = map_of(Beats(tuple(off)), target, threshold_beats=0.4)
    assert alignment.n_pairs == 39
    tight, _ = map_of(grid(120, 40, jitter_s=0.04), target, threshold_beats=0.05)
    assert tight.n_pairs < 30, "the threshold counts"


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_half_and_double_tempo_are_aligned(factor):
    target, source = grid(100, 48, 0.2), grid(100 * factor * 1.04, int(48 * factor), 0.5)
    alignment, _ = map_of(source, target)
    assert alignment.speed == pytest.approx(1 / 1.04, rel=0.01)


def test_what_cannot_be_aligned_is_said_and_the_music_stays():
    audio = Audio(torch.randn(1, 2, 64000) * 0.1, 16000)
    beats = grid(120, 8)
    for source, target, words in (
        (Beats(()), beats, "No beats of the music"), (beats, Beats((1.0,)), "1 beats of the other"), (grid(120, 8), grid(90, 6), "differ by more"),
    ):  # fmt: skip
        aligned = align(audio, source, target, duration_s=5.0)
        assert aligned.alignment is None and words in aligned.report
        assert torch.allclose(aligned.audio.samples[..., :64000], audio.samples, atol=1e-6)
        assert aligned.audio.n_samples == 80000 and not aligned.audio.samples[..., 64000:].any()


def test_a_late_start_begins_with_silence_and_a_short_music_is_told():
    target, source = grid(120, 56, 1.6), grid(120, 30, 0.1)
    alignment, notices = map_of(source, target, 15.0)
    assert "early" in notices[0]
    assert alignment.source_s[0] < 0 or alignment.source_s[0] == pytest.approx(0, abs=0.5)


def test_music_at_its_times_is_not_moved_by_a_bar():
    beats = grid(110, 50, 0.4)
    alignment, _ = map_of(beats, beats)
    assert alignment.moved([10.0]) == pytest.approx([10.0], abs=0.01) and alignment.n_pairs == 50


@pytest.mark.parametrize(
    ("text", "words"), [("0.5, x", "'x'"), ("-1", "'-1'"), ("nan", "'nan'"), ("{", "report"), ('{"beats_s": 3}', "times"), ("{}", "report")]
)  # fmt: skip
def test_what_is_no_time_is_refused(text, words):
    with pytest.raises(InputError, match=f"'beats'.*{words}"):
        Beats.parse(text)


def test_a_report_of_hearing_is_read():
    report = json.dumps({"beats_s": [0.5, 1.0], "downbeats_s": [0.5], "bpm": 120})
    assert Beats.parse(report) == Beats((0.5, 1.0), (0.5,)) and Beats.parse(" ") == Beats(())


@pytest.mark.parametrize("value", [0.0, 2.1, float("nan"), True])
def test_limits_are_checked(value):
    with pytest.raises(InputError, match="threshold_beats"):
        map_of(grid(120, 9), grid(120, 9), threshold_beats=value)


@pytest.mark.parametrize("seed", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_one_heard_song_is_laid_on_the_beats_of_another(seed):
    """Both heard; beats of the result heard anew. Chance: the same without alignment."""
    target, _ = song(seed)
    other = next(n for n in range(40, 90) if abs(song(n)[0].bpm / target.bpm - 1) < 0.12 and song(n)[0].groove != "none" and song(n)[0].meter == target.meter)  # fmt: skip
    audio = Audio(torch.from_numpy(song(other)[1])[None, None], RATE_HZ)
    heard = hear(audio, target.bpm, target.meter)
    truth = Beats(tuple(target.beats_s), tuple(target.downbeats_s))
    duration_s = min(target.end_s, audio.duration_s) - 1.0
    aligned = align(audio, Beats(heard.beats_s, heard.downbeats_s), truth, duration_s=duration_s)
    beats = np.array([time_s for time_s in target.beats_s if time_s < duration_s - 1.0])

    def share(sound):
        found = np.array(hear(sound, target.bpm, target.meter).beats_s)
        return (np.abs(beats[:, None] - found[None, :]).min(axis=1) < 0.05).mean()

    assert share(aligned.audio) >= 0.8 > share(audio)
