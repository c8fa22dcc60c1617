"""Drift of long pieces: what the distances tell apart, and figures between chance and ceiling."""

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.training.evaluate import drift
from comfyui_musicgen.training.evaluate.drift import distance, heard


def tone(frequency_hz, level=0.1, seconds=2.0, overtones=1):
    time = torch.arange(round(seconds * drift.HEARING_HZ)) / drift.HEARING_HZ
    return level * sum((2 * torch.pi * frequency_hz * k * time).sin() / k for k in range(1, overtones + 1))


def test_distances_are_of_what_changed():
    a = heard(tone(440.0))
    same, louder = distance(a, heard(tone(440.0))), distance(a, heard(tone(440.0, level=0.2)))
    assert (same.loudness_db, same.brightness, same.timbre_db) == (0, 0, 0) and same.within
    assert louder.loudness_db == pytest.approx(6.02, abs=0.05) and louder.brightness < 0.01 and louder.tones < 0.01
    assert louder.timbre_db < 0.5 and not louder.within
    other = distance(a, heard(tone(622.25)))  # a tritone higher
    assert other.tones > 0.8 and other.brightness == pytest.approx(0.41, abs=0.02)
    bright = distance(a, heard(tone(440.0, overtones=12)))
    assert bright.timbre_db > drift.TIMBRE_DB and bright.brightness > drift.BRIGHTNESS and not bright.within


def test_steady_pieces_of_two_kinds_are_told_from_chance():
    """Halves of the first minute, then three minutes, of two pieces; the second goes a semitone up in its last minute."""
    steady = [heard(tone(440.0, seconds=1.0))] * 5
    moved = [*[heard(tone(880.0, overtones=8))] * 4, heard(tone(932.33, overtones=8))]
    findings = {finding.name: finding for finding in drift._compared([steady, moved], "x")}
    timbre = findings["x, minute 2 from the first: timbre, dB"]
    assert timbre.value == 0 and timbre.ceiling == 0 and timbre.chance > 3
    assert findings["x, minute 3 from the first: chroma, 1 - cosine"].value > 0.3
    within = findings["x: minutes within 2 dB, 15 %, 3 dB of timbre"]
    assert within.value >= 0.75 and within.chance == 0.0 and within.ceiling == 1.0


def test_pieces_are_made_with_and_without_an_anchor(toys, monkeypatch):
    model = loading.load(toys(segment_s=0.5), "float32")
    monkeypatch.setattr(drift, "MINUTE_S", 0.8)
    asked, original = [], type(model.model).generate

    def generate(self, conditioning, params, *rest):
        asked.append((params.anchor_s, params.duration_s, conditioning.n_rows))
        return original(self, conditioning, params, *rest)

    monkeypatch.setattr(type(model.model), "generate", generate)
    findings = drift.drift_findings(model, 2, 2, 3.0, 0.05)
    assert asked == [(0.0, 1.6, 2), (0.05, 1.6, 2)]
    assert [finding.name.partition(",")[0].partition(":")[0] for finding in findings] == ["no anchor"] * 5 + [
        "anchor 0.05 s"
    ] * 5
    assert all(finding.chance is not None and finding.ceiling is not None for finding in findings)
