"""Chords at their own times: rows at the nearest row, slices of windows, and what is wrong named by its line."""

import json

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.conditioning import Progression, chord_list, encode_chords
from comfyui_musicgen.musicgen.conditioning.chord_times import TimedChords
from comfyui_musicgen.musicgen.conditioning.chords import row_of
from comfyui_musicgen.musicgen.errors import InputError

RATE_HZ = 7.8125
LIST = "0.50\t2.60\tC\n2.60\t3.95\tA:min\n5.00\t6.00\tG:7\n"


def expected(spans, n_rows, first=0):
    rows = torch.zeros(first + n_rows, 12)
    for start_s, end_s, label in spans:
        rows[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)] = row_of(label)
    return rows[first : first + n_rows]


def test_rows_are_the_chords_at_their_times_with_none_between_and_behind():
    chords = TimedChords.parse(LIST)
    spans = [(0.5, 2.6, "C"), (2.6, 3.95, "A:min"), (5.0, 6.0, "G:7")]
    assert torch.equal(chords.rows(0.0, 235, RATE_HZ), expected(spans, 235))
    assert chords.rows(0.0, 235, RATE_HZ)[60:].sum() == 0, "they are not begun anew"
    for start_s in (0.0, 1.7, 2.6, 4.4, 5.99, 18.0):
        window = chords.rows(start_s, 30, RATE_HZ)
        assert torch.equal(window, expected(spans, 30, round(start_s * RATE_HZ))), start_s


def test_windows_of_a_long_song_are_slices_of_it():
    chords = TimedChords.parse("\n".join(f"{k * 1.31:.2f} {(k + 1) * 1.31:.2f} {'CDEFGA'[k % 6]}" for k in range(60)))
    whole = chords.rows(0.0, 600, RATE_HZ)
    for k in range(3):
        first = round(18 * k * RATE_HZ)
        assert torch.equal(chords.rows(18.0 * k, 235, RATE_HZ), whole[first : first + 235])


def test_the_list_of_a_progression_is_read_back():
    progression = Progression.parse("C G,G:7 A:min F", 100.0)
    timed = TimedChords.parse(chord_list(progression.chords()))
    n_rows = int(progression.duration_s * RATE_HZ)
    ours, theirs = timed.rows(0, n_rows, RATE_HZ), progression.rows(0, n_rows, RATE_HZ)
    assert (ours != theirs).any(dim=1).sum() <= 2  # times of the list have three digits


def test_a_report_of_hearing_is_read():
    report = {"bpm": 120, "chords": [{"start_s": 0.2, "end_s": 1.2, "label": "C", "confidence": 0.9}, {"start_s": 1.2, "end_s": 2, "label": "N", "confidence": 1}]}  # fmt: skip
    chords = TimedChords.parse(json.dumps(report))
    assert [chord.label for chord in chords.chords()] == ["C", "N"] and chords.duration_s == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 1 C\n1 x G", "line 2.*'1 x G'"), ("0 1", "line 1"), ("", "holds no chord"), ("0 2 C\n1 3 G", "chord 2.*before the one ahead ends"),
        ("1 1 C", "chord 1.*later one"), ("0 1 H", "chord 1, 'H'.*'B'"), ("0 inf C", "chord 1"), ('{"chords": 4}', "report"), ("{}", "report"),
        ("-1 1 C", "chord 1"), ("nan 1 C", "chord 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text, words):
    with pytest.raises(InputError, match=f"'chord_list'.*{words}"):
        TimedChords.parse(text)


def test_the_model_is_told_them(toys):
    loaded = loading.load(toys(chords=True), "float32")
    plain = loaded.conditioner.encode_text(["a flute"])
    told = encode_chords(loaded.conditioner, plain, TimedChords.parse(LIST), 2.0)
    weight, bias = loaded.conditioner.melody_projection.parameters()
    rows = TimedChords.parse(LIST).rows(0.0, told.melody.n_frames, told.melody.rate_hz)
    torch.testing.assert_close(told.melody.embed(), torch.nn.functional.linear(2 * rows, weight, bias).detach())
