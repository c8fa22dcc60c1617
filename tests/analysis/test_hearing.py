"""What is heard of pieces whose tempo, meter, key and chords are known, and what is said where there is nothing to hear."""

import io
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.analysis.hearing import hear, hearing_picture, midi_bytes
from comfyui_musicgen.musicgen.analysis.hearing.bars import follow_bars
from comfyui_musicgen.musicgen.analysis.hearing.beats import Onsets
from comfyui_musicgen.musicgen.analysis.hearing.chords import bar_text, hear_chords
from comfyui_musicgen.musicgen.analysis.hearing.evidence import Clues, evidence_of, names
from comfyui_musicgen.musicgen.analysis.hearing.notes import Note
from comfyui_musicgen.musicgen.analysis.hearing.sections import find_sections
from comfyui_musicgen.musicgen.analysis.hearing.spectrum import N_PITCHES, Pitches
from comfyui_musicgen.musicgen.analysis.hearing.weights import WEIGHTS
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.errors import CheckpointError, DependencyError, InputError
from comfyui_musicgen.tests.songs import RATE_HZ, song
from comfyui_musicgen.tests.songs.marks import BEAT_S, f_measure, overlap, shuffled, tempo_ratio

FEW, MANY = range(4), range(100)  # seeds; the engine was tuned on 1000 and up


def sound(samples, rate_hz=RATE_HZ):
    return Audio(torch.as_tensor(np.asarray(samples, dtype=np.float32))[None, None], rate_hz)


def spans(chords):
    return [(chord.start_s, chord.end_s, chord.label) for chord in chords]


@pytest.fixture(scope="module")
def few():
    """(score, what is heard) of four pieces."""
    return [(score, hear(sound(samples))) for score, samples in map(song, FEW)]


def marks(pieces):
    """Means over pieces: tempo, downbeats, key, chords, and chords in another order."""
    return np.mean(
        [
            (
                tempo_ratio(heard.bpm, score.bpm) == "right",
                f_measure(heard.downbeats_s, score.downbeats_s, BEAT_S),
                heard.key == score.key,
                overlap(spans(heard.chords), spans(score.chords)),
                overlap(shuffled(spans(heard.chords), 0), spans(score.chords)),
            )
            for score, heard in pieces
        ],
        axis=0,
    )


def test_four_pieces_are_heard(few):
    tempo, downbeats, key, chords, by_chance = marks(few)
    assert tempo >= 0.75 and downbeats >= 0.8 and key >= 0.75
    assert chords >= 0.8 and chords - by_chance >= 0.3


@pytest.mark.slow
def test_a_hundred_pieces_are_heard():
    tempo, downbeats, key, chords, by_chance = marks(
        [(score, hear(sound(samples))) for score, samples in map(song, MANY)]
    )
    assert tempo >= 0.9 and downbeats >= 0.8 and key >= 0.8
    assert chords >= 0.8 and chords - by_chance >= 0.3


def test_the_report_is_json_and_its_parts_fit_together(few):
    for _, heard in few:
        report = json.loads(heard.as_json())
        assert report["meter"] == heard.meter_text and set(heard.downbeats_s) <= set(heard.beats_s)
        assert len(heard.chord_text.split(" ")) == len(heard.downbeats_s)
        for earlier, later in zip(heard.chords, heard.chords[1:]):
            assert earlier.end_s == later.start_s and earlier.label != later.label
        assert heard.sections[0].start_s == heard.downbeats_s[0] and heard.sections[0].label == "A"
        confidences = [value for name, value in report.items() if name.endswith("_confidence")]
        assert len(confidences) == 6 and all(0 <= value <= 1 for value in confidences)


def test_the_picture_is_one_image(few):
    picture = hearing_picture(few[0][1])
    assert picture.shape[0] == 1 and picture.shape[3] == 3 and picture.dtype == torch.float32
    assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.05


def test_midi_holds_melody_chords_and_drums_at_their_times(few):
    mido = pytest.importorskip("mido")
    heard = few[0][1]
    file = mido.MidiFile(file=io.BytesIO(midi_bytes(heard)))
    assert [track.name for track in file.tracks[1:]] == ["Melody", "Chords", "Drums"]
    now_s, starts_s = 0.0, []
    for message in mido.merge_tracks(file.tracks):
        now_s += mido.tick2second(message.time, file.ticks_per_beat, mido.bpm2tempo(heard.bpm))
        if message.type == "note_on" and message.channel == 0:
            starts_s.append(now_s)
    assert np.allclose(starts_s, [note.start_s for note in heard.melody], atol=0.002)


def clicks(bpm, seconds=10.0, meter=4):
    """Short noises at each beat, the first of a bar lower and louder; no pitch."""
    rng = np.random.default_rng(0)
    samples = 1e-4 * rng.standard_normal(int(seconds * RATE_HZ))
    times_s = np.arange(0.5, seconds - 0.2, 60 / bpm)
    for number, time_s in enumerate(times_s):
        n = int(0.05 * RATE_HZ)
        burst = rng.standard_normal(n) * np.exp(-np.arange(n) / 200)
        if number % meter == 0:
            burst += 3 * np.sin(2 * np.pi * 70 * np.arange(n) / RATE_HZ)
        samples[int(time_s * RATE_HZ) :][:n] += 0.2 * burst
    return sound(samples), times_s


@pytest.mark.parametrize("meter", [3, 4])
def test_clicks_have_beats_on_time_and_no_key(meter):
    audio, times_s = clicks(100, meter=meter)
    heard = hear(audio)
    assert heard.bpm == pytest.approx(100, rel=0.01) and heard.meter == meter
    assert f_measure(heard.beats_s, times_s, 0.03) > 0.95
    assert heard.key == "" and any("key" in notice for notice in heard.notices)


def test_a_tempo_and_a_meter_that_are_given_are_kept():
    audio, _ = clicks(100)
    heard = hear(audio, bpm=52, meter=2)
    assert heard.bpm == pytest.approx(50, rel=0.02) and heard.meter == 2 and heard.meter_confidence == 1


def test_no_pulse_is_said_and_chords_are_heard_still(caplog):
    t = np.arange(10 * RATE_HZ) / RATE_HZ
    chord = sum(np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t) for pitch in (60, 64, 67))
    swell = np.minimum(1, np.minimum(t, 10 - t) / 2)
    heard = hear(sound(0.1 * chord * swell))
    assert heard.bpm == 0 and heard.meter_text == "" and not heard.downbeats_s
    assert "C" in heard.chord_text.split(" ") and overlap(spans(heard.chords), [(1.0, 9.0, "C")]) > 0.9
    assert any("No pulse" in notice for notice in heard.notices) and "No pulse" in caplog.text


def test_noise_has_no_key():
    heard = hear(sound(0.1 * np.random.default_rng(0).standard_normal(8 * RATE_HZ)))
    assert heard.key == "" and heard.notices


@pytest.mark.parametrize(
    ("audio", "options", "message"),
    [
        (sound(np.zeros(5 * RATE_HZ)), {}, "silent"),
        (sound(np.ones(RATE_HZ)), {}, r"1\.00 s long.*2 s to 20 min"),
        (Audio(torch.ones(2, 1, 5 * RATE_HZ), RATE_HZ), {}, "2 clips"),
        (sound(np.ones(5 * RATE_HZ)), {"bpm": 5}, "'bpm' must be from 30 to 300"),
        (sound(np.ones(5 * RATE_HZ)), {"meter": 1}, "'meter' must be from 2 to 12"),
        (sound(np.ones(5 * RATE_HZ)), {"vocabulary": "jazz"}, "'vocabulary' must be one of triads, sevenths"),
    ],
)
def test_what_cannot_be_heard_is_refused(audio, options, message):
    with pytest.raises(InputError, match=message):
        hear(audio, **options)


def test_cancel_is_looked_for_often_and_ends_the_work():
    audio, _ = clicks(100)
    steps = []
    hear(audio, on_step=lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps) and steps[-1] == (100, 100) and len(set(steps)) > 10

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        if done > 20:
            raise Cancelled

    with pytest.raises(Cancelled):
        hear(audio, on_step=cancel)


def test_a_checkpoint_that_is_not_there_is_not_downloaded(tmp_path):
    with pytest.raises(InputError, match="brings no weights"):
        hear(clicks(100)[0], beat_model=tmp_path / "final0")


@pytest.mark.parametrize(
    ("labels", "text"),
    [("CCCC", "C"), ("CCGG", "C,G"), ("CCCG", "C,C,C,G"), ("CGG", "C,G,G"), ("CGCG", "C,G,C,G"), ("C", "C")],
)
def test_a_bar_is_written_in_equal_parts(labels, text):
    assert bar_text(list(labels)) == text


def test_bars_follow_accents_over_a_beat_too_many():
    accents = np.array([1, 0, 0, 0] * 6 + [0] + [1, 0, 0, 0] * 6, dtype=float)
    gain = np.zeros((len(accents), 4))
    gain[:, 0] = (accents - accents.mean()) / accents.std()
    assert np.array_equal(follow_bars(gain) == 0, accents == 1)


SIXES = range(3)  # seeds of pieces in 6/8; the engine was tuned on 1000 and up


def test_six_eight_is_heard_in_eighths():
    pieces = [(score, hear(sound(samples))) for score, samples in (song(seed, True) for seed in SIXES)]
    right = [
        heard.meter_text == "6/8" and heard.unit == 8 and tempo_ratio(heard.bpm, score.bpm) == "right"
        for score, heard in pieces
    ]
    assert sum(right) >= 2
    score, heard = pieces[right.index(True)]
    assert json.loads(heard.as_json())["meter"] == "6/8"
    assert f_measure(heard.downbeats_s, score.downbeats_s, BEAT_S) > 0.8
    assert np.diff(heard.beats_s).mean() == pytest.approx(60 / heard.bpm, rel=0.02)


def test_midi_of_six_eight_counts_eighths():
    mido = pytest.importorskip("mido")
    score, samples = song(SIXES[0], True)
    heard = replace(hear(sound(samples), bpm=score.bpm, meter=6), melody=(Note(1.0, 2.0, 60),))
    file = mido.MidiFile(file=io.BytesIO(midi_bytes(heard)))
    meters = [(m.numerator, m.denominator) for track in file.tracks for m in track if m.type == "time_signature"]
    tempos = [mido.tempo2bpm(m.tempo) for track in file.tracks for m in track if m.type == "set_tempo"]
    assert heard.unit == 8 and meters[0] == (6, 8) and tempos[0] == pytest.approx(heard.bpm / 2, rel=1e-3)


def plan(bpm, meter):
    """Onsets and pitches of a piece without sound: chords at downbeats, onsets at beats and, weaker, halfway."""
    rng = np.random.default_rng(0)
    frame_s, n = 0.01, 3000
    curve, levels = 0.3 * rng.random(n), np.zeros((int(30 / (1024 / 22050)), N_PITCHES), dtype=np.float32)
    for number in range(int(29 * bpm / 60)):
        curve[round((0.5 + number * 60 / bpm) / frame_s)] = 8.0
        curve[round((0.5 + (number + 0.5) * 60 / bpm) / frame_s)] = 4.0
        first = round((0.5 + number * 60 / bpm) / (1024 / 22050))
        root = (0, 5, 7, 9)[number // meter % 4]
        levels[first:] = 0
        for step in (0, 4, 7):
            levels[first:, 20 + root + step] = 1.0
    onsets = Onsets(curve, curve, np.repeat(curve[:, None], 32, axis=1), frame_s)
    return Clues(onsets, Pitches(levels, 0.0))


@pytest.mark.parametrize("meter", [3, 4])
def test_the_hypothesis_with_its_bars_at_the_chords_has_the_best_score(meter):
    clues, beats_s = plan(100, meter), 0.5 + 0.6 * np.arange(46)
    chords = hear_chords(clues.pitches.between(np.append(beats_s, 0.5 + 0.6 * 46)))
    evidence = evidence_of(clues, beats_s, 100.0, chords, True)
    assert evidence.features.shape == (len(evidence.groups), len(names())) and set(WEIGHTS) == set(names())
    assert evidence.groups[int(evidence.scores.argmax())] == (meter, 0)


def test_sections_are_found_and_named_alike():
    features = np.repeat(np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]]), 6, axis=0)
    sections = find_sections(features, np.arange(19.0))
    assert [(section.start_s, section.label) for section in sections] == [(0, "A"), (6, "B"), (12, "A")]


class Tracker:
    """Stands in for beat_this.inference.Audio2Beats: beats of 100 bpm in bars of three, the first on the second beat."""

    model = torch.nn.Identity()

    def __init__(self, checkpoint_path, device, dbn):
        assert (device, dbn) == ("cpu", False)
        if Path(checkpoint_path).read_text() != "weights":
            raise KeyError("hyper_parameters")

    def __call__(self, signal, rate_hz):
        self.model(torch.from_numpy(signal))
        beats_s = np.arange(0.5, 9.8, 0.6)
        return beats_s, beats_s[1::3]


@pytest.fixture
def beat_this(monkeypatch):
    monkeypatch.setitem(sys.modules, "beat_this", types.ModuleType("beat_this"))
    module = types.ModuleType("beat_this.inference")
    module.__dict__["Audio2Beats"] = Tracker
    monkeypatch.setitem(sys.modules, "beat_this.inference", module)


def test_beats_and_bars_of_a_checkpoint_are_kept(beat_this, tmp_path):
    file = tmp_path / "small0.ckpt"
    file.write_text("weights")
    heard = hear(clicks(100, meter=4)[0], beat_model=file)
    assert heard.meter == 3 and heard.downbeats_s == pytest.approx(np.arange(1.1, 9.8, 1.8))
    assert heard.bpm == pytest.approx(100) and len(heard.beats_s) == 16
    file.write_text("another kind")
    with pytest.raises(CheckpointError, match=r"small0\.ckpt is no checkpoint of beat-this"):
        hear(clicks(100)[0], beat_model=file)


def test_a_checkpoint_without_the_package_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "beat_this", None)
    file = tmp_path / "small0.ckpt"
    file.write_text("weights")
    with pytest.raises(DependencyError, match="python -m pip install beat-this"):
        hear(clicks(100)[0], beat_model=file)


def test_sevenths_are_heard_where_they_are_asked_for():
    t = np.arange(RATE_HZ) / RATE_HZ

    def chord(pitches):
        return sum(np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t) for pitch in pitches) * np.exp(-2 * t)

    bars = [
        chord((48, 60, 64, 67)),
        chord((43, 59, 62, 65, 67)),
        chord((45, 60, 64, 67, 69)),
        chord((41, 60, 64, 65, 69)),
    ] * 4
    heard = hear(sound(0.1 * np.concatenate(bars)), vocabulary="sevenths")
    assert {span.label for span in heard.chords} == {"C", "G:7", "A:min7", "F:maj7"}
    assert heard.key == "C major"


def test_chords_of_each_beat_are_heard_where_the_piece_has_them():
    roots, levels = [0, 5, 7, 9, 2, 4] * 8, np.zeros((48, N_PITCHES))
    for beat, root in enumerate(roots):
        for step in (0, 4, 7):
            levels[beat, 20 + root + step] += 0.6
            levels[min(beat + 1, 47), 20 + root + step] += 0.4  # rings on
    true = [f"{('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')[root]}" for root in roots]
    right = [
        np.mean([a == b for a, b in zip(hear_chords(levels, adapts=adapts).labels, true)]) for adapts in (False, True)
    ]
    assert right[1] > 0.95 and right[1] > right[0] + 0.1
    held = hear_chords(np.repeat(levels[::8], 8, axis=0), adapts=True)
    assert np.mean(np.array(held.labels[1:]) != held.labels[:-1]) < 0.15
