"""Lengths, tempos and meters as musicians write them."""

import pytest
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.units import Length, Meter, told


@pytest.mark.parametrize(
    ("text", "seconds", "bpm", "meter"),
    [
        ("8 bars @ 92 in 4/4", 8 * 4 * 60 / 92, 92, "4/4"),
        ("8 bars @ 92", 8 * 4 * 60 / 92, 92, "4/4"),
        ("12 Bars at 140.5 bpm in 3/4", 12 * 3 * 60 / 140.5, 140.5, "3/4"),
        ("4 bars in 6/8 @ 120", 4 * 3.0, 120, "6/8"),  # a bar of 6/8 at 120 lasts 3 s, as for the chords
        ("1 bar@60", 4.0, 60, "4/4"),
        ("2.5 bars @ 60", 10.0, 60, "4/4"),
        ("32 beats @ 120", 16.0, 120, "4/4"),
        ("8마디 @ 120", 16.0, 120, "4/4"),
        ("8 小節 @ 120 in 3/4", 12.0, 120, "3/4"),
        ("1:30", 90.0, None, None),
        ("0:07,5", 7.5, None, None),
        ("1:00:00", 3600.0, None, None),
        ("12.5 s", 12.5, None, None),
        (" 12 seconds ", 12.0, None, None),
        ("8", 8.0, None, None),
    ],
)
def test_lengths_are_read(text, seconds, bpm, meter):
    length = Length.parse(text)
    assert length.duration_s == pytest.approx(seconds, abs=1e-9)
    assert (length.bpm, length.meter and str(length.meter)) == (bpm, meter)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "8 bars @ 92"),
        ("soon", "'soon'"),
        ("8 bars", "names no tempo"),
        ("8 bars @ 0", "'bpm' must be a number from 20"),
        ("8 bars @ 999", "to 400"),
        ("8 bars @ 92 in 7/0", "'meter'"),
        ("8 bars @ 92 in 4/3", "'meter'"),
        ("8 bars @ 92 in C major", "'in C major'"),
        ("8 bars @ 92 @ 93", "'@ 93'"),
        ("0 bars @ 92", "0.1 to 3600"),
        ("9999 bars @ 20", "0.1 to 3600"),
        ("1:75", "59 seconds"),
        ("1:60:00", "59 seconds or minutes"),
        ("-3 s", "'-3 s'"),
        ("nan", "'nan'"),
        ("9" * 5000, "must be a length"),
        ("8 bars " * 20_000, "must be a length"),
        ("1e3", "'1e3'"),
        ("\ud800", "must be a length"),
        (8, "must be a length"),
    ],
)
def test_what_is_no_length_is_refused_by_name(text, words):
    with pytest.raises(InputError) as error:
        Length.parse(text, "--duration")
    assert words in str(error.value) and len(str(error.value)) < 400


def test_tempo_and_meter_are_told_as_the_chord_models_were_taught():
    """The examples of musicgen-chord's own code."""
    four, three = Meter(4), Meter(3)
    assert told("pop", None, four) == "pop, 4/4"
    assert told("pop", 92.5, three) == "pop, 3/4, bpm : 92.5"
    assert told("", 120, four) == "4/4, bpm : 120.0"
    assert told("", 120) == "120.0"
    assert told("pop", 120) == "pop, bpm : 120.0"
    assert told("pop") == "pop" and told("") == ""
