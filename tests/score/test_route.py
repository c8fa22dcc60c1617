"""D.C., D.S., Fine and Coda: bars in the order in which a player takes them, and what is said where the way is lost."""

import random
import time

import pytest
from comfyui_musicgen.musicgen.conditioning.lead_sheet import chord_text
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.score import read_abc, read_musicxml

LETTERS = {0: "C", 2: "D", 4: "E", 5: "F", 7: "G", 9: "A", 11: "B"}
MAX_S = 20.0


def played(score):
    """Letters of its notes; a note as long as a bar is one."""
    return "".join(LETTERS[note.pitch % 12] for note in score.parts[0].notes)


def abc(body):
    return read_abc(f"X:1\nM:4/4\nL:1/4\nK:C\n{body}\n")


def xml(*measures, parts=1):
    attributes = (
        "<attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
    )
    inside = "".join(
        f"<measure number='{n}'>{attributes if n == 1 else ''}{m}</measure>" for n, m in enumerate(measures, 1)
    )
    listed = "".join(f"<score-part id='P{n}'><part-name>P{n}</part-name></score-part>" for n in range(1, parts + 1))
    whole = "".join(f"<part id='P{n}'>{inside}</part>" for n in range(1, parts + 1))
    return read_musicxml(f"<score-partwise><part-list>{listed}</part-list>{whole}</score-partwise>".encode())


def note(step, duration=4, tie=""):
    return f"<note><pitch><step>{step}</step><octave>4</octave></pitch><duration>{duration}</duration>{tie}</note>"


def sound(attributes, words=""):
    words = f"<direction-type><words>{words}</words></direction-type>" if words else ""
    return f"<direction>{words}<sound {attributes}/></direction>"


def said(words):
    return f"<direction><direction-type><words>{words}</words></direction-type></direction>"


SEGNO, CODA = (f"<direction><direction-type><{sign}/></direction-type></direction>" for sign in ("segno", "coda"))
FORWARD, REPEAT = '<barline location="left"><repeat direction="forward"/></barline>', '<barline location="right"><repeat direction="backward"/></barline>'  # fmt: skip


@pytest.mark.parametrize(
    ("body", "order"),
    [
        ("C4 | D4 !fine!| E4 !D.C.!|", "CDECD"),
        ("C4 | D4 !fine!| E4 !D.C.alfine!|]", "CDECD"),
        ("C4 | D4 !fine!| E4 !D.C. al Fine!|]", "CDECD"),
        ('C4 | !fine!D4 | "^D.C. al Fine"E4 |]', "CDECD"),  # over a note: when that is over
        ("C4 | D4 +fine+| E4 | !D.C.!\n", "CDECD"),  # behind the last bar line
        ("C4 | D4 !fine!| E4 | !dacapo!\nF4 |]", "CDECD"),
        ("C4 | !segno!D4 | E4 !fine!| F4 !D.S.!|", "CDEFDE"),
        ("C4 | SD4 | E4 !fine!| F4 !D.S.alfine!|", "CDEFDE"),
        ("C4 | D4 !dacoda!| E4 !D.C.alcoda!| !coda!F4 |", "CDECDF"),
        ("C4 | D4 !coda!| E4 !D.C.alcoda!| !coda!F4 | G4 |", "CDECDFG"),
        ("C4 | !segno!D4 !dacoda!| E4 !D.S.alcoda!| !coda!F4 |", "CDEDF"),
        ("|: C4 :| D4 !fine!| |: E4 :| !D.C.!", "CCDEECD"),  # repeats are not played once more
        ("|: C4 |1 D4 :|2 E4 !fine!|| F4 !D.C.!|", "CDCEFCE"),  # the last ending
        ("C4 | !segno!D4 !dacoda!| E4 !D.S.!| !coda!|: F4 :| G4 |", "CDEDFFG"),  # the coda is new: with its repeats
        ("|: C4 | D4 !D.C.!:| ", "CDCDCD"),  # behind the last pass
        ("C4 | D4 !D.C.!|", "CDCD"),
        ("C4 | D4 !D.C.!| E4 |", "CDCDE"),
        ("C2 !fine!D2 | E4 !D.C.!|", "CDECD"),
        ("!fine!C2 D2 | E4 !D.C.!|", "CDECD"),  # over a bar's beginning: its end
        ("C2 !segno!D2 | E4 !fine!| F4 !D.S.!|", "CDEFDE"),  # within a bar
        ("D4 | C !fine!E2 F | G4 !D.C.!|", "DCEFGDCE"),
        ("V:1\nC4 | D4 !fine!| E4 !D.C.!|\nV:2\nG4 | A4 !fine!| B4 !D.C.!|", "CDECD"),
    ],
)
def test_a_tune_in_abc_is_played_as_its_jumps_say(body, order):
    score = abc(body)
    assert played(score) == order and not score.notices


@pytest.mark.parametrize(
    ("measures", "order"),
    [
        ([note("C"), note("D") + sound('fine="yes"'), note("E") + sound('dacapo="yes"')], "CDECD"),
        ([note("C"), said("Fine") + note("D"), note("E") + said("D.C. al Fine")], "CDECD"),
        ([note("C"), sound('segno="a"') + note("D"), note("E") + sound('fine="yes"'), note("F") + sound('dalsegno="a"')], "CDEFDE"),
        (
            [sound('segno="a"') + note("C"), sound('segno="b"') + note("D"), note("E") + sound('fine="yes"'), note("F") + sound('dalsegno="a"', "D.S. al Fine")],
            "CDEFCDE",
        ),
        ([note("C"), note("D") + sound('tocoda="c"', "To Coda"), note("E") + sound('dacapo="yes"', "D.C. al Coda"), sound('coda="c"') + note("F")], "CDECDF"),
        ([note("C"), SEGNO + note("D") + CODA, note("E") + said("D.S. al Coda"), CODA + note("F")], "CDEDF"),
        ([FORWARD + note("C") + REPEAT, note("D") + said("Fine"), note("E") + said("Da Capo al Fine")], "CCDECD"),
        ([note("C", 2) + said("fine") + note("D", 2) + note("E", 0), note("F") + said("D.C.")], "CDFCD"),
    ],
)  # fmt: skip
def test_a_score_in_musicxml_is_played_as_its_jumps_say(measures, order):
    for parts in (1, 2):
        score = xml(*measures, parts=parts)
        assert played(score) == order and not score.notices


@pytest.mark.parametrize(
    ("body", "order", "words"),
    [
        ("C4 | D4 !D.S.!| E4 |", "CDE", ["Bar 2", "'D.S.'", "no segno", "in their order"]),
        ("C4 | D4 !dacoda!| E4 !D.C.alcoda!| F4 |", "CDECDEF", ["Bar 2", "'To Coda' has no coda"]),
        ("C4 | D4 | E4 !D.C.alcoda!| !coda!F4 |", "CDECDEF", ["Bar 3", "'D.C. al Coda'", "no To Coda"]),
        ("C4 | D4 | E4 !D.C.alfine!|", "CDECDE", ["Bar 3", "'D.C. al Fine'", "no Fine", "to its end"]),
        ("C4 !fine!| D4 | E4 |", "CDE", ["Bar 1", "'Fine'", "no D.C. or D.S."]),
        ("C4 !dacoda!| D4 | !coda!E4 |", "CDE", ["Bar 1", "'To Coda'", "no D.C. or D.S."]),
        ("C4 !fine!| D4 !D.C.!| E4 !D.C.!|", "CDC", ["Bar 3", "'D.C.' is not reached"]),
    ],
)
def test_a_way_that_is_lost_is_said_with_its_bar(body, order, words):
    score = abc(body)
    assert played(score) == order
    assert len(score.notices) == 1 and all(word in score.notices[0] for word in words), score.notices


def test_chords_tempo_and_meter_are_those_of_the_place_that_is_jumped_to():
    score = abc('"C"C4 | !segno!D4 | "F"E4 !fine!| [M:3/4][Q:1/4=60] "G"F3 !D.S.!|')
    assert played(score) == "CDEFDE" and chord_text(score)[0].split()[:3] == ["C", "C", "F"]
    assert [(float(symbol.start), symbol.label) for symbol in score.symbols] == [
        (0, "C"),
        (8, "F"),
        (12, "G"),
        (15, "C"),
        (19, "F"),
    ]
    assert [(float(change.start), str(change.meter)) for change in score.meters] == [
        (0, "4/4"),
        (12, "3/4"),
        (15, "4/4"),
    ]


def test_a_note_that_a_mark_cuts_is_one_note_where_nothing_is_jumped():
    cut = xml(note("C", 1) + SEGNO + note("D", 3), note("E") + said("Fine"), note("F") + said("D.S."))
    assert played(cut) == "CDEFDE"
    held = note("C", 4) + "<backup><duration>2</duration></backup>" + SEGNO
    score = xml(held, note("E") + said("Fine"), note("F") + said("D.S. al Fine"))
    lengths = [(LETTERS[each.pitch % 12], float(each.start), float(each.length)) for each in score.parts[0].notes]
    assert lengths == [("C", 0, 4), ("E", 4, 4), ("F", 8, 4), ("C", 12, 2), ("E", 14, 4)]


@pytest.mark.parametrize(
    "bar",
    ["C !D.C.!|", "!segno!C !D.S.!|", "C !D.S.!|", "[1 C !D.C.!|", "!segno!C !dacoda! !D.S.alcoda!|", "!coda!C !dacoda! !D.C.!|"],
)  # fmt: skip
def test_jumps_without_end_are_bounded(bar):
    started = time.process_time()
    for repeat in ("", ":|"):
        try:
            assert len(abc((bar + "\n") * 8_000 + repeat).notices) < 10
        except InputError as error:
            assert "20000 bars" in str(error)
    assert time.process_time() - started < MAX_S


def test_marks_at_random_end_in_a_score_or_an_error():
    rng = random.Random(3)
    words = ["C4", "D2", "|", "|", "|:", ":|", "[1 ", "[2 ", "!D.C.!", "!D.S.alcoda!", "!D.C.alfine!", "!fine!", "!segno!", "!coda!", "!dacoda!", "\n"]  # fmt: skip
    n_played = 0
    for _ in range(1500):
        try:
            n_played += bool(abc("C4 | " + " ".join(rng.choice(words) for _ in range(rng.randint(1, 40)))).parts)
        except InputError:
            continue
    assert n_played > 1000
