"""ABC notation: keys, accidentals, lengths, tuplets, ties, repeats, voices, tunes."""

import random
import resource
import time
from fractions import Fraction
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen.conditioning.lead_sheet import chord_text
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.score import melody_of, read_abc, read_score

CLIPS = Path(__file__).resolve().parents[2] / "clips"
MAX_S = 20.0
MAX_BYTES = 300 * 2**20


def tune(body, head="M:4/4\nL:1/4\n", key="C"):
    return read_abc(f"X:1\nT:Test\n{head}K:{key}\n{body}\n")


def pitches(body, **options):
    return [note.pitch for note in tune(body, **options).parts[0].notes]


def notes(body, **options):
    return [(float(note.start), float(note.length), note.pitch) for note in tune(body, **options).parts[0].notes]


@pytest.fixture
def bounded():
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < MAX_S
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_BYTES


def test_octaves_and_lengths():
    assert notes("C c c' C, | z2 D/ E3/2") == [
        (0, 1, 60), (1, 1, 72), (2, 1, 84), (3, 1, 48), (6, 0.5, 62), (6.5, 1.5, 64)
    ]  # fmt: skip


def test_the_unit_note_follows_the_meter_unless_it_is_given():
    assert notes("C", head="M:4/4\n")[0][1] == 0.5 and notes("C", head="M:2/4\n")[0][1] == 0.25
    assert notes("C", head="M:3/4\n")[0][1] == 0.5 and notes("C", head="M:none\n")[0][1] == 0.5


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("G", "6"), ("D", "61"), ("F", "T"), ("Am", ""), ("Em", "6"), ("Bb", "T3"), ("Ddor", ""), ("GMix", ""), ("F#m", "681"), ("HP", "61"),
        ("C exp ^f _B", "6T"), ("Abmaj", "T381"), ("Eb clef=bass", "T38"), ("none", ""), ("D minor", "T"),
    ],
)  # fmt: skip
def test_keys(key, expected):
    changed = {
        f"{pitch % 12:d}".replace("10", "T") for pitch in pitches("CDEFGAB", key=key) if pitch % 12 in (1, 3, 6, 8, 10)
    }
    assert changed == set(expected)


def test_accidentals_hold_to_the_bar_line_in_every_octave():
    assert pitches("^F F f =F | F _B B", key="C") == [66, 66, 78, 65, 65, 70, 70]
    assert pitches("=F F | F", key="G") == [65, 65, 66]
    assert pitches("^^C __D") == [62, 60]


def test_ties_join_and_carry_their_accidental():
    assert notes("C2-C2 | ^F4- | F2 F2") == [(0, 4, 60), (4, 6, 66), (10, 2, 65)] or notes("C2-C2 | ^F4- | F2 z2") == [
        (0, 4, 60), (4, 6, 66)
    ]  # fmt: skip
    assert notes("[CE]2-[CE]2") == [(0, 4, 60), (0, 4, 64)]


def test_tuplets_and_broken_rhythm():
    assert [float(note.length) for note in tune("(3CDE F").parts[0].notes] == pytest.approx([2 / 3] * 3 + [1])
    assert [note.length for note in tune("(2CDE", head="M:6/8\nL:1/8\n").parts[0].notes] == [Fraction(3, 4)] * 2 + [
        Fraction(1, 2)
    ]
    assert [note.length for note in tune("(5:4:5CDEFG").parts[0].notes] == [Fraction(4, 5)] * 5
    assert notes("C>D E<F G>>A") == [
        (0, 1.5, 60), (1.5, 0.5, 62), (2, 0.5, 64), (2.5, 1.5, 65), (4, 1.75, 67), (5.75, 0.25, 69)
    ]  # fmt: skip


def letters(body):
    return "".join("CDEFGAB"[(60, 62, 64, 65, 67, 69, 71).index(pitch)] for pitch in pitches(body))


@pytest.mark.parametrize(
    ("body", "played"),
    [
        ("C4 | D4 :| E4 |", "CDCDE"), ("C4 |: D4 :| E4 |", "CDDE"), ("|: C4 :: D4 :|", "CCDD"), ("|: C4 :|: D4 :|", "CCDD"),
        ("|: C4 | D4 |1 E4 :|2 F4 || G4 |", "CDECDFG"), ("|: C4 [1 D4 :| [2 E4 | F4 |]", "CDCEF"), ("|: C4 ::| D4 |", "CCCD"),
        ("|: C4 |1,2 D4 :|3 E4 || F4", "CDCDCEF"), ("|: C4 |1 D4 | E4 :|2 F4 | G4 || |: A4 :|", "CDECFGAA"),
        ("C4 | D4 |: E4 :| F4 :|", "CDEEFF"),
    ],
)  # fmt: skip
def test_repeats_are_played_out(body, played):
    assert letters(body) == played


def test_a_repeat_sign_behind_a_bar_line_ends_the_bar_before():
    assert letters("C4 | D4 |\n:| E4 |") == "CDCDE"


def test_decorations_grace_notes_words_and_comments_are_left_out():
    body = '!trill!C {gf}D .E ~F "^slow"G (A B) | % a comment\nw: la la la\nuc vd'
    assert pitches(body) == [60, 62, 64, 65, 67, 69, 71, 72, 74]


def test_chord_symbols_tempo_and_title():
    score = tune('"Am7"C4 | "F"C2 "G/B"D2 | "@2,3 note"E4 "N.C."z4 | "Fine"C4', head="M:4/4\nL:1/4\nQ:1/4=92\n")
    assert (score.bpm, score.title) == (92, "Test")
    text, notices = chord_text(score)
    assert text == "Am7 F,G/B G/B N.C. N.C." and "'Fine'" in notices[0]


def test_a_tempo_of_another_beat_and_changes_within_the_tune():
    assert tune("C", head="M:6/8\nL:1/8\nQ:3/8=60\n").tempos[0].bpm == 90
    score = tune("C4 | [Q:1/4=60] D4 | [K:D] F4 | [M:3/4] C3")
    assert [(tempo.start, tempo.bpm) for tempo in score.tempos] == [(0, 120), (4, 60)]
    assert [note.pitch for note in score.parts[0].notes] == [60, 62, 66, 61] and len(score.meters) == 2


def test_voices_are_parts_and_tunes_are_chosen():
    score = tune("V:1\nC4 | D4 |\nV:bass\nC,4 | G,,4 |")
    assert [(part.name, part.notes[1].pitch) for part in score.parts] == [("1", 62), ("bass", 43)]
    assert [note.pitch for note in melody_of(score)] == [60, 62]
    text = "X:1\nK:C\nC\n\nX:7\nK:C\nD\n"
    first, seventh = read_abc(text), read_abc(text, 7)
    assert (
        first.parts[0].notes[0].pitch == 60 and "2 tunes" in first.notices[0] and seventh.parts[0].notes[0].pitch == 62
    )
    with pytest.raises(InputError, match="'tune' is 3, and the file has the tunes 1, 7"):
        read_abc(text, 3)


def test_rests_of_bars_and_transposition():
    assert notes("Z2 | C4") == [(8, 4, 60)]
    assert pitches("C", key="C transpose=-2") == [58] and pitches("C", key="C octave=-1") == [48]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no tune"), ("hello", "no tune"), ("X:1\nK:C\n", "no notes"), ("X:1\nK:Q\nC", "line 2: K:Q is no key"),
        ("X:1\nM:7/9\nK:C\nC", "line 2: M:7/9"), ("X:1\nL:x\nK:C\nC", "L:x"), ("X:1\nQ:fast=1\nK:C\nC", "Q:fast"),
        ("X:1\nK:C\nC }", "line 3: '}' is no ABC"), ("X:1\nK:C\nC & D", "line 3: '&'"), ("X:1\nK:C\nC0", "length of 0"),
        ("X:1\nK:C\nC''''''", "MIDI's range"), ("X:1\nK:C\nC99999", "longer than"), ("X:1\nK:C\nC1/0", "divided by 0"),
        ("X:1\nK:C\n" + "[V:%d]C" * 70 % tuple(range(70)), "more than 64 voices"), ("X:1\nL:1/1\nK:C\n|:" + ("C|" * 2000 + "\n") * 11, "more than 20000 bars"),
        ("X:1\nK:C\n" + "C9999 " * 200, "quarter notes"), ("X:1\nK:C\n" + ("C" * 9000 + "\n") * 50, "more than 100000 notes"), ("X:1\nK:C\n" + "[A::" * 200_000, "800000 characters"),
        ("X:1\nK:C\n" + ("[A::" * 2400 + "\n") * 50, "MIDI|bars|notes|ABC"),
        ("K:C\n" + "(" * 2**20, "1048580 characters"), ("X:1\nK:C\nZ99999", "a rest has 99999 bars"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_is_named_within_bounds(bounded, text, words):
    with pytest.raises(InputError, match=words):
        read_abc(text)


def test_nested_repeats_end(bounded):
    assert len(tune("|: C4 :|" * 500).parts[0].notes) == 1000
    with pytest.raises(InputError, match="20000 bars"):
        tune(("C4|" * 2000 + " ::::::::::::::::::::::|\n") * 2)


def test_random_texts_are_an_error_or_a_score(bounded):
    rng = random.Random(1)
    alphabet = "ABCDEFGabcdefgz|:[]12(3-<>^_=',/\"!{}&Z %VKM\n"
    n_errors = 0
    for _ in range(3000):
        try:
            tune("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 80))))
        except InputError:
            n_errors += 1
    assert 300 < n_errors < 3000


def test_the_example_is_arirang():
    score = read_score(CLIPS / "Arirang.abc")
    assert (score.title, str(score.meter), score.bpm, score.duration_s) == ("Arirang", "3/4", 96, 30.0)
    assert [note.pitch % 12 for note in melody_of(score)[:5]] == [2, 4, 2, 4, 7]
    assert chord_text(score) == ("G G E:min D G E:min G G G E:min G D G E:min G G".replace("E:min", "Em"), ())
