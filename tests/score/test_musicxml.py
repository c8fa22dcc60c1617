"""MusicXML: what it means, zipped or not, and what is refused."""

import io
import resource
import socket
import time
import zipfile

import pytest
from comfyui_musicgen.musicgen.conditioning.lead_sheet import chord_text
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.score import melody_of, read_musicxml, read_score

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
DOCTYPE = '<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">\n'
ATTRIBUTES = "<attributes><divisions>2</divisions><time><beats>3</beats><beat-type>4</beat-type></time></attributes>"
MAX_S = 20.0
MAX_BYTES = 300 * 2**20


def note(step="C", octave=4, duration=2, more="", alter=None):
    alter = "" if alter is None else f"<alter>{alter}</alter>"
    return f"<note>{more}<pitch><step>{step}</step>{alter}<octave>{octave}</octave></pitch><duration>{duration}</duration></note>"


def part(*measures, id="P1"):
    inside = "".join(f'<measure number="{number}">{content}</measure>' for number, content in enumerate(measures, 1))
    return f'<part id="{id}">{inside}</part>'


def score(*parts, names=("Flute",), doctype=DOCTYPE):
    listed = "".join(
        f'<score-part id="P{number}"><part-name>{name}</part-name></score-part>' for number, name in enumerate(names, 1)
    )
    whole = f"<score-partwise><work><work-title>A tune</work-title></work><part-list>{listed}</part-list>{''.join(parts)}</score-partwise>"
    return (HEAD + doctype + whole).encode()


def read(*measures):
    return read_musicxml(score(part(*measures)))


def notes(found, number=0):
    return [(float(note.start), float(note.length), note.pitch) for note in found.parts[number].notes]


@pytest.fixture
def bounded():
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < MAX_S
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_BYTES


def test_notes_rests_meter_tempo_and_title():
    tempo = '<direction><sound tempo="90"/></direction>'
    rest = "<note><rest/><duration>2</duration></note>"
    found = read(ATTRIBUTES + tempo + note() + rest + note("F", 5, alter=1))
    assert notes(found) == [(0, 1, 60), (2, 1, 78)]
    assert (str(found.meter), found.bpm, found.title, found.length, found.parts[0].name) == (
        "3/4",
        90,
        "A tune",
        3,
        "Flute",
    )


def test_a_metronome_mark_is_a_tempo():
    mark = (
        "<direction><direction-type><metronome><beat-unit>quarter</beat-unit><beat-unit-dot/><per-minute>60</per-minute></metronome>"
        "</direction-type></direction>"
    )
    assert read(ATTRIBUTES + mark + note()).tempos[0].bpm == 90


def test_ties_become_one_note_also_over_the_bar_line():
    tied = note(duration=2, more="").replace("</pitch>", "</pitch>").replace("</note>", '<tie type="start"/></note>')
    ends = note().replace("</note>", '<tie type="stop"/></note>')
    assert notes(read(ATTRIBUTES + note("D", duration=4) + tied, ends + note("E", duration=4))) == [
        (0, 2, 62), (2, 2, 60), (4, 2, 64)
    ]  # fmt: skip


def test_chords_voices_and_backup():
    chord = note("E", more="<chord/>")
    second = note("C", 3, 6).replace("</note>", "<voice>2</voice></note>")
    found = read(
        ATTRIBUTES + note() + chord + note("D", duration=4) + "<backup><duration>6</duration></backup>" + second
    )
    assert notes(found) == [(0, 1, 60), (0, 1, 64), (1, 2, 62)] and notes(found, 1) == [(0, 3, 48)]
    assert [note.pitch for note in melody_of(found)] == [64, 62]


def test_grace_and_cue_notes_are_left_out():
    grace = "<note><grace/><pitch><step>A</step><octave>4</octave></pitch></note>"
    assert notes(read(ATTRIBUTES + grace + note(duration=6) + note("B", 4, 2, more="<cue/>"))) == [(0, 3, 60)]


def test_a_transposing_instrument_sounds_as_it_does():
    clarinet = ATTRIBUTES.replace("</attributes>", "<transpose><chromatic>-2</chromatic></transpose></attributes>")
    assert notes(read(clarinet + note("D"))) == [(0, 1, 60)]


def test_unpitched_parts_are_drums():
    hit = "<note><unpitched/><duration>2</duration></note>"
    found = read_musicxml(score(part(ATTRIBUTES + note()), part(ATTRIBUTES + hit, id="P2"), names=("Flute", "Kit")))
    assert [(each.name, each.is_drums) for each in found.parts] == [("Flute", False), ("Kit", True)]


REPEAT, FORWARD = '<barline location="right"><repeat direction="backward"/></barline>', '<barline location="left"><repeat direction="forward"/></barline>'  # fmt: skip


def ending(number, kind, place="left"):
    return f'<barline location="{place}"><ending number="{number}" type="{kind}"/></barline>'


def test_repeats_and_endings_are_played_out():
    last = '<barline location="right"><ending number="1" type="stop"/><repeat direction="backward"/></barline>'
    found = read(
        ATTRIBUTES + note("C", duration=6),
        FORWARD + note("D", duration=6),
        ending(1, "start") + note("E", duration=6) + last,
        ending(2, "start") + note("F", duration=6) + ending(2, "discontinue", "right"),
        note("G", duration=6),
    )
    assert "".join("CDEFGAB"[[60, 62, 64, 65, 67].index(pitch)] for _, _, pitch in notes(found)) == "CDEDFG"
    assert [
        pitch for _, _, pitch in notes(read(ATTRIBUTES + note("C", duration=6) + REPEAT, note("D", duration=6)))
    ] == [60, 60, 62]


def test_a_pickup_is_as_long_as_its_notes():
    found = read(ATTRIBUTES + note(), note("D", duration=6))
    assert notes(found) == [(0, 1, 60), (1, 3, 62)]


def harmony(root, kind, more="", alter=None):
    alter = "" if alter is None else f"<root-alter>{alter}</root-alter>"
    return f"<harmony><root><root-step>{root}</root-step>{alter}</root><kind>{kind}</kind>{more}</harmony>"


def test_chord_symbols_become_the_text_of_chords():
    bass = "<bass><bass-step>E</bass-step></bass>"
    flat9 = (
        "<degree><degree-value>9</degree-value><degree-alter>-1</degree-alter><degree-type>add</degree-type></degree>"
    )
    found = read(
        ATTRIBUTES + harmony("C", "major", bass) + note(duration=6),
        harmony("B", "half-diminished", alter=-1)
        + note(duration=2)
        + harmony("G", "dominant", flat9)
        + note("G", duration=4),
        harmony("F", "Tristan") + note(duration=6) + harmony("C", "none"),
    )
    text, notices = chord_text(found)
    assert text == "C/E Bb:hdim7,G:7(b9),G:7(b9) G:7(b9)" and notices == ()
    assert "'Tristan'" in found.notices[0]


def test_timewise_is_read_too():
    measures = "".join(f'<measure number="{k}"><part id="P1">{ATTRIBUTES}{note(step, duration=6)}</part></measure>' for k, step in enumerate("CD"))  # fmt: skip
    data = f"<score-timewise><part-list><score-part id='P1'><part-name>Oboe</part-name></score-part></part-list>{measures}</score-timewise>"
    found = read_musicxml(data.encode())
    assert notes(found) == [(0, 3, 60), (3, 3, 62)] and found.parts[0].name == "Oboe"


def zipped(content, name="score.xml", container="META-INF/container.xml", root="score.xml"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(container, f'<container><rootfiles><rootfile full-path="{root}"/></rootfiles></container>')
        archive.writestr(name, content)
    return stream.getvalue()


def test_a_zipped_score_is_read_by_its_container(tmp_path):
    data = score(part(ATTRIBUTES + note()))
    (tmp_path / "a.mxl").write_bytes(zipped(data))
    assert notes(read_score(tmp_path / "a.mxl")) == [(0, 1, 60)]


BOMB = "<!DOCTYPE score-partwise [" + '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 12)) + "]>"  # fmt: skip
OUTSIDE = '<!DOCTYPE score-partwise [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
PARAMETER = '<!DOCTYPE score-partwise [<!ENTITY % x SYSTEM "http://127.0.0.1:1/x.dtd"> %x;]>'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (score(doctype=BOMB, names=("&a11;",)), "declares an entity"), (score(doctype=OUTSIDE, names=("&x;",)), "declares an entity"),
        (score(doctype=PARAMETER), "declares an entity"), (score(names=("&unknown;",)), "no readable XML|no measures"),
        (b"", "no readable XML"), (b"<score-partwise>", "no readable XML"), (b"<html></html>", "its root is <html>"),
        (score(part()), "no measures"), (score(part(ATTRIBUTES + note(duration="x"))), "a number is 'x'"),
        (score(part(ATTRIBUTES + note("H"))), "step 'H'"), (score(part(ATTRIBUTES + note(octave=99))), "MIDI's range"),
        (score(part(ATTRIBUTES.replace(">2<", ">0<") + note())), "divisions"), (score(part(ATTRIBUTES + note(duration=10**15))), "quarter notes"),
        (score(part("<a>" * 100)), "more than|no readable"), (score(part("<note/>" * 150_000)), "more than"),
        (b"<score-partwise><part-list/>" + b"<x/>" * 2_100_000, "more than"), (b"<score-partwise a='" + b"x" * 3_000_000, "a tag longer"),
        (b"<score-partwise " + b" ".join(b"a%d=''" % k for k in range(400_000)) + b"/>", "a tag longer"),
        (zipped(b"x", root="../../etc/passwd"), "no whole .mxl"), (zipped(b"x", container="other"), "no whole .mxl"),
        (zipped(score(), root=""), "no whole .mxl"), (zipped(score())[:200], "no whole .mxl"),
        (zipped(b" " * 200 * 2**20), "more than 32 MiB when it is unzipped"), (b"PK\x03\x04" + b"PK\x01\x02" * 2000, "more than 1000 files"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_hostile_or_damaged_file_is_refused_within_bounds(bounded, monkeypatch, data, words):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("something was fetched"))
    with pytest.raises(InputError, match=words):
        read_musicxml(data)


@pytest.mark.parametrize(
    ("content", "words"),
    [('<sound tempo="90"/>', "changes of tempo"), (note(more="") + note("D"), "more than 100000 notes")],
)
def test_many_small_things_in_many_measures_are_refused_within_bounds(bounded, content, words):
    measures = (content * 1000,) * (100 if "note" in content else 1000)
    with pytest.raises(InputError, match=words):
        read_musicxml(score(part(ATTRIBUTES, *measures)))


def test_a_negative_duration_counts_for_nothing():
    assert notes(read(ATTRIBUTES + note(duration=-4) + "<forward><duration>-2</duration></forward>" + note("D"))) == [
        (0, 1, 62)
    ]


def test_a_text_of_megabytes_costs_little(bounded):
    found = read_musicxml(score(part(ATTRIBUTES + note()), names=("x" * 20_000_000,)))
    assert len(found.parts[0].name) <= 60


def test_divisions_of_every_kind_keep_places_small(bounded):
    changes = "".join(
        f"<attributes><divisions>{999_983 - 2 * k}</divisions></attributes>" + note(duration=500_000)
        for k in range(3000)
    )
    found = read(changes)
    assert max(note.start.denominator for note in found.parts[0].notes) <= 100_000


def test_an_external_doctype_is_passed_over(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("something was fetched"))
    assert notes(read_musicxml(score(part(ATTRIBUTES + note())))) == [(0, 1, 60)]


def test_a_file_too_large_or_of_another_kind_is_refused_by_its_name(tmp_path):
    large = tmp_path / "large.xml"
    with open(large, "wb") as stream:
        stream.truncate(100 * 2**20)
    with pytest.raises(InputError, match="large.xml' has 100 MiB, and at most 32"):
        read_score(large)
    for name, words in (("song.txt", "must end in .mid"), ("none.mid", "is not there"), ("dir.mid", "is no file")):
        (tmp_path / "dir.mid").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=words):
            read_score(tmp_path / name)
