"""Typed notes, the melody of a score, and its chords."""

from fractions import Fraction

import pytest
from comfyui_musicgen.musicgen.conditioning.chords import Progression
from comfyui_musicgen.musicgen.conditioning.lead_sheet import chord_text
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.score import (
    Note,
    Part,
    Score,
    Symbol,
    melody_of,
    melody_part,
    prepared,
    read_notes,
    score_picture,
    upper_line,
    with_heard_chords,
    written,
)
from comfyui_musicgen.musicgen.units import Meter


def pitches(text):
    return [note.pitch for note in read_notes(text).parts[0].notes]


def test_pitch_length_rest_and_octave():
    score = read_notes("C4 D E4:2 r G3:0.5 A:1/3")
    assert [(note.start, note.length, note.pitch) for note in score.parts[0].notes] == [
        (0, 1, 60), (1, 1, 62), (2, 2, 64), (5, Fraction(1, 2), 55), (Fraction(11, 2), Fraction(1, 3), 57),
    ]  # fmt: skip
    assert score.length == Fraction(35, 6) and score.bpm == 120


def test_names_in_letters_syllables_and_hangul():
    assert pitches("C4 D4 E4 F4 G4 A4 B4") == pitches("do4 re mi fa sol la si") == pitches("도4 레 미 파 솔 라 시")
    assert pitches("c#4 db4 Bb3 b♭3 F##4 도#4") == [61, 61, 58, 58, 67, 61]


def test_meter_tempo_chords_and_bar_lines():
    score = read_notes('3/4 @92 "Am" A4:3 | "F/C" F4 "G" G:2')
    assert (str(score.meter), score.bpm) == ("3/4", 92)
    assert [(symbol.start, symbol.label) for symbol in score.symbols] == [(0, "Am"), (3, "F/C"), (4, "G")]
    assert chord_text(score) == ("Am F/C,G,G", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no notes"), ("r r", "no notes"), ("C4 H4", "word 2, 'H4'"), ("C4:0", "word 1"), ("C4:1/0", "word 1"), ("C12", "word 1"),
        ("C4 G9:1 G#9", "outside MIDI's range"), ("@5 C", "20 to 400"), ("9/7 C", "'meter'"), ("C4 \"Am", "two quotes"),
        ("C4:99999999", "word 1"), ("\ud800", "half of a character"), ("K:G\n^", "ABC notation"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_word(text, words):
    with pytest.raises(InputError, match=words):
        read_notes(text)


def test_notes_written_and_read_again_are_the_same():
    score = read_notes('6/8 @75 "Am" C4:0.5 D:0.5 E:0.5 "Dm7" F#:1.5 | r:0.5 G3:1/3 A:2/3 C5:1.5')
    assert read_notes(written(melody_of(score), score)) == score


def test_the_upper_line_is_cut_where_the_next_note_begins():
    chord = [Note(Fraction(0), Fraction(4), 48), Note(Fraction(0), Fraction(2), 64), Note(Fraction(1), Fraction(1), 67)]
    later = [Note(Fraction(5, 2), Fraction(1), 60)]
    assert [(note.start, note.length, note.pitch) for note in upper_line(chord + later)] == [
        (0, 1, 64), (1, 1, 67), (Fraction(5, 2), 1, 60)
    ]  # fmt: skip


def parts(*lines, drums=()):
    made = [
        Part(name, tuple(Note(Fraction(k), Fraction(length), pitch) for k, pitch in enumerate(line)), name in drums)
        for name, length, line in lines
    ]
    return Score(tuple(made), Fraction(8))


def test_the_melody_is_the_named_part_else_the_highest_that_sounds_long():
    bass, flute, bell = ("Bass", 1, [40] * 8), ("Flute", 1, [76] * 8), ("Bell", 1, [100])
    assert melody_part(parts(bass, flute, bell)).name == "Flute"
    assert melody_part(parts(bass, flute, ("Lead vocal", 1, [60] * 2))).name == "Lead vocal"
    assert melody_part(parts(bass, ("Kit", 1, [90] * 8), drums=("Kit",))).name == "Bass"
    score = parts(bass, flute)
    assert melody_of(prepared(score, "1"))[0].pitch == melody_of(prepared(score, "bass"))[0].pitch == 40
    assert melody_of(prepared(score, "all"))[0].pitch == 76
    with pytest.raises(InputError, match="the parts 1 Bass, 2 Flute"):
        prepared(score, "oboe")
    with pytest.raises(InputError, match="only drums"):
        melody_part(parts(("Kit", 1, [36]), drums=("Kit",)))


def test_transposing_moves_notes_and_symbols():
    score = prepared(read_notes('"F#m7/E" C4 "Bb" D4'), transpose=2, bpm=90)
    assert [note.pitch for note in score.parts[0].notes] == [62, 64] and score.bpm == 90
    assert [symbol.label for symbol in score.symbols] == ["G#m7/F#", "C"]
    with pytest.raises(InputError, match="out of 0 to 127"):
        prepared(read_notes("G9"), transpose=1)


def test_the_tempo_counts_the_meters_unit_as_the_chords_do():
    score = prepared(read_notes("6/8 C4:3"), bpm=120)
    assert score.duration_s == Progression.parse("C", 120, "6/8").duration_s == 3.0 and score.bpm == 120


def test_chords_keep_their_times():
    symbols = [(0, "C"), (3, "F"), (4, "Fine"), (6, "G7"), (Fraction(13, 2), "C:maj(9)")]
    score = Score((), Fraction(12), symbols=tuple(Symbol(Fraction(place), label) for place, label in symbols))
    text, notices = chord_text(score)
    assert "'Fine'" in notices[0]
    chords = Progression.parse(text, score.bpm, str(score.meter)).chords()
    changes = [
        (chord.start_s, chord.label) for k, chord in enumerate(chords) if k == 0 or chord.label != chords[k - 1].label
    ]
    assert changes == [(float(place) / 2, label) for place, label in symbols if label != "Fine"]


def test_chords_of_the_notes():
    roots = [(60, (0, 4, 7)), (57, (0, 3, 7)), (65, (0, 4, 7)), (55, (0, 4, 7, 10))]
    notes = [Note(Fraction(4 * k), Fraction(4), root + step) for k, (root, steps) in enumerate(roots) for step in steps]
    notes += [Note(Fraction(16), Fraction(2), pitch) for pitch in (60, 64, 67)]
    notes += [Note(Fraction(18), Fraction(2), pitch) for pitch in (62, 65, 69)]
    score = with_heard_chords(Score((Part("Piano", tuple(sorted(notes))),), Fraction(24)))
    assert chord_text(score)[0] == "C A:min F G:7 C,D:min N"


def test_the_picture_shows_the_melody_over_the_other_notes():
    pytest.importorskip("PIL")
    score = parts(("Flute", 1, [72] * 8), ("Bass", 1, [48] * 8))
    picture = score_picture(score, melody_of(score))
    colors = {tuple((255 * pixel).round().int().tolist()) for pixel in picture[0].reshape(-1, 3).unique(dim=0)}
    assert picture.ndim == 4 and {(245, 186, 74), (74, 96, 134)} <= colors


def test_meter_is_that_of_the_units():
    assert read_notes("5/4 C4").meter == Meter(5)
