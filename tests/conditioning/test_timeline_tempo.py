"""The tempo of a timeline's texts, where a model begins anew with each: it is kept until another is named."""

from types import SimpleNamespace

import pytest
from comfyui_musicgen.musicgen.conditioning import encode_timeline, told_lines
from comfyui_musicgen.musicgen.conditioning.timeline import tempo_remarks
from comfyui_musicgen.musicgen.conditioning.vocabulary import Vocabulary


def model(begins_anew=True, **options):
    paces = ("slow", "very slow", "느린", "jungmori")
    words = Vocabulary(
        frozenset(), {"slowly": "slow"}, {}, "pop", "pop", paces=paces, begins_anew=begins_anew, **options
    )
    return SimpleNamespace(vocabulary=words)


def told(lines, ending="none", conditioner=None):
    return [line.text for line in told_lines(conditioner or model(), lines, ending)]


@pytest.mark.parametrize(
    ("text", "tempo"),
    [
        ("rock, 110 bpm", "110 bpm"),
        ("rock at 92.5BPM with drums", "at 92.5BPM"),
        ("bpm: 100, rock", "bpm: 100"),
        ("tempo 88", "tempo 88"),
        ("피아노, 템포 120", "템포 120"),
        ("slow piano", ""),
        ("piano, played slowly", ""),
        ("느린 피아노", ""),
        ("Jungmori", ""),
        ("slowdown", None),
        ("piano in 3/4", None),
        ("8 bpm of 1999 records", None),
        ("", None),
    ],
)
def test_the_tempo_that_a_text_names(text, tempo):
    assert model().vocabulary.tempo(text) == tempo


def test_a_tempo_is_kept_until_another_is_named():
    assert told("solo piano, 110 bpm | 10: rock | 20: jazz at 90 bpm | 30: waltz | 40: slow flute | 50: polka") == [
        "solo piano, 110 bpm", "rock, 110 bpm", "jazz at 90 bpm", "waltz, at 90 bpm", "slow flute", "polka",
    ]  # fmt: skip


def test_entries_count_in_the_order_of_their_times():
    assert told("30: rock | 0: piano, 110 bpm | -5: harp | -9: organ, tempo 70") == [
        "rock, 110 bpm", "piano, 110 bpm", "harp, tempo 70", "organ, tempo 70",
    ]  # fmt: skip
    assert told("piano | 9: rock, 110 bpm") == ["piano", "rock, 110 bpm"], "what comes later says nothing of before"


def test_an_empty_text_stays_empty():
    """It stands for the model's own."""
    assert told("piano, 110 bpm | 5: | 9: rock") == ["piano, 110 bpm", "", "rock, 110 bpm"]


def test_an_ending_keeps_the_tempo_of_its_text():
    own = model(endings=("with an ending",))
    assert told("piano, 110 bpm | 9: rock", "cadence", own) == [
        "piano, 110 bpm", "rock, 110 bpm", "rock, with an ending, 110 bpm",
    ]  # fmt: skip
    first, last = told("9: rock, 110 bpm", "cadence", own)
    assert own.vocabulary.before_end(last) == first, "the same music, which only ends"


@pytest.mark.parametrize("conditioner", [model(begins_anew=False), SimpleNamespace(vocabulary=None), object()])
def test_what_hears_the_music_before_is_told_what_is_written(conditioner):
    assert told("piano, 110 bpm | 9: rock", conditioner=conditioner) == ["piano, 110 bpm", "rock"]
    assert tempo_remarks(conditioner, told_lines(conditioner, "piano | 9: rock")) == []


def test_the_text_that_is_encoded_is_the_one_with_its_tempo(toys):
    from comfyui_musicgen.musicgen import loading

    conditioner = loading.load(toys(), "float32").conditioner
    conditioner.vocabulary = model().vocabulary
    timeline = encode_timeline(conditioner, "piano, 110 bpm | 9: rock")
    assert [leaf.words for leaf in timeline.leaves()] == [("piano, 110 bpm",), ("rock, 110 bpm",)]


def test_what_a_user_is_told():
    own = model(endings=("with an ending",))

    def remarks(lines, ending="none"):
        return tempo_remarks(own, told_lines(own, lines, ending))

    assert remarks("piano, 110 bpm | 9: rock") == ["Kept from the text before: rock, 110 bpm."]
    (hint,) = remarks("piano | 9: rock")
    assert "each begins with its own" in hint
    assert remarks("piano", "cadence") == [], "one music, which ends"
    assert remarks("slow piano | 9: slow rock") == remarks("piano, 90 bpm | 9: rock, 90 bpm") == []
