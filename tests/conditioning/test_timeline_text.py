"""The grammar of a timeline: what is read, and errors that name the entry and the word."""

import pytest
from comfyui_musicgen.musicgen.conditioning.timeline_text import MAX_ENTRIES, Line, parse_timeline
from comfyui_musicgen.musicgen.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st


def test_the_example_of_the_issue():
    assert parse_timeline("0: calm flute | 20: drums enter | 55: ending") == [
        Line(0.0, "calm flute"), Line(20.0, "drums enter"), Line(55.0, "ending"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [Line(0.0, "")]),
        ("  \n | \n", [Line(0.0, "")]),
        ("calm flute", [Line(0.0, "calm flute")]),
        ("calm flute | 20: drums", [Line(0.0, "calm flute"), Line(20.0, "drums")]),
        ("0: a\n\n12.5: b\r\n20s: c", [Line(0.0, "a"), Line(12.5, "b"), Line(20.0, "c")]),
        ("1:05: drums @ 0.7", [Line(65.0, "drums", 0.7)]),
        ("1:05.5: drums@2", [Line(65.5, "drums", 2.0)]),
        ("0:20:drums", [Line(20.0, "drums")]),
        ("1: 30 strings", [Line(1.0, "30 strings")]),
        ("80s synth pop, 4/4: fast", [Line(0.0, "80s synth pop, 4/4: fast")]),
        ("mood: calm", [Line(0.0, "mood: calm")]),
        ("0: a | -8: end | -0:20: before", [Line(0.0, "a"), Line(8.0, "end", 1.0, True), Line(20.0, "before", 1.0, True)]),
        ("0：느린 대금｜20：북 ＠0.5", [Line(0.0, "느린 대금"), Line(20.0, "북", 0.5)]),
        ("20: b | 0: a", [Line(20.0, "b"), Line(0.0, "a")]),
        ("0: a | 9:", [Line(0.0, "a"), Line(9.0, "")]),
        ("60:00: a", [Line(3600.0, "a")]),
    ],
)  # fmt: skip
def test_what_is_read(text, lines):
    assert parse_timeline(text) == lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0: a | drums enter", ["entry 2", "'drums enter'", "no time", "40: drums enter"]),
        ("0: a | 20 drums", ["entry 2", "colon", "'20'", "20: drums"]),
        ("0: a | 1:30 drums", ["entry 2", "'1:30'", "1:30: drums", "1: 30 drums"]),
        ("1:30 drums", ["entry 1", "1:30: drums"]),
        ("0: a | 1:5: b", ["entry 2", "'1:5'", "1:05"]),
        ("0: a | 1:75: b", ["entry 2", "'1:75'", "59"]),
        ("0: a | 1:30:00: b", ["entry 2", "'1:30:00'", "too many colons"]),
        ("0: a | 3601: b", ["entry 2", "'3601'", "3600"]),
        ("0: a | " + "9" * 400 + ": b", ["entry 2", "3600"]),
        ("0: a | 20: b | 0:20: c", ["entry 3", "entry 2", "time"]),
        ("0: a | 20: b @ loud", ["entry 2", "'loud'", "from 0", "to 2"]),
        ("0: a @ 2.1", ["entry 1", "'2.1'"]),
        ("0: a @ -1", ["entry 1", "'-1'"]),
        ("0: a @ nan", ["entry 1", "'nan'"]),
        ("0: a @", ["entry 1", "''"]),
        ("0: a @ 1 @ 1", ["entry 1", "more than one '@'"]),
        ("0: a | -0: b", ["entry 2", "'-0'", "before"]),
        ("0: \ud800", ["lines", "U+D800"]),
        ("a|" * 2 + "|".join(f"{i}: x" for i in range(MAX_ENTRIES)), ["entries", str(MAX_ENTRIES)]),
        ("x" * 100_000, ["100000 characters"]),
    ],
)
def test_errors_point_at_the_entry_and_the_word(text, words):
    with pytest.raises(InputError) as error:
        parse_timeline(text)
    for word in words:
        assert word in str(error.value)
    assert len(str(error.value)) < 600


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("0123456789:|@-. \nabs：＠｜−٢²\ud800é"), max_size=60))
def test_hostile_texts_are_read_or_refused(text):
    """Nothing but InputError, and what is read is in range."""
    try:
        lines = parse_timeline(text)
    except InputError as error:
        assert str(error)
        return
    assert lines
    for line in lines:
        assert 0 <= line.start_s <= 3600 and 0 <= line.strength <= 2
        assert not set(line.text) & set("|｜@＠\n") and line.text == line.text.strip()
        assert not line.before_end or line.start_s > 0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3600), st.text(st.characters(codec="utf-8", exclude_characters="|｜@＠\r\n"), max_size=20),
            st.sampled_from([0.0, 0.25, 1.0, 2.0]),
        ),
        min_size=1, max_size=8, unique_by=lambda entry: entry[0],
    )
)  # fmt: skip
def test_what_is_written_by_the_grammar_is_read_back(entries):
    written = "|".join(f"{start}: {text} @ {strength}" for start, text, strength in entries)
    assert parse_timeline(written) == [Line(float(start), text.strip(), strength) for start, text, strength in entries]
