"""MIDI files: what they mean, what is refused, and the way back."""

import io
import random
import resource
import time
from dataclasses import replace
from fractions import Fraction

import pytest
from comfyui_musicgen.musicgen.conditioning.chord_labels import notes_of
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.score import Note, Part, Score, Symbol, Tempo, midi_bytes, read_midi, read_notes
from comfyui_musicgen.musicgen.score.score import MeterChange
from comfyui_musicgen.musicgen.units import Meter

END = b"\x00\xff\x2f\x00"
MAX_S = 20.0
MAX_BYTES = 300 * 2**20


def track(events: bytes, end: bytes = END) -> bytes:
    content = events + end
    return b"MTrk" + len(content).to_bytes(4, "big") + content


def file(*tracks: bytes, kind: int = 1, division: int = 480) -> bytes:
    head = kind.to_bytes(2, "big") + len(tracks).to_bytes(2, "big") + division.to_bytes(2, "big")
    return b"MThd\x00\x00\x00\x06" + head + b"".join(tracks)


def notes(score: Score, part: int = 0) -> list[tuple[float, float, int]]:
    return [(float(note.start), float(note.length), note.pitch) for note in score.parts[part].notes]


@pytest.fixture
def bounded():
    """Time and memory of a hostile file."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < MAX_S
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_BYTES


ON, OFF = b"\x00\x90\x3c\x40", b"\x83\x60\x80\x3c\x00"  # C4 for a quarter at 480 ticks


def test_a_note_its_tempo_and_its_meter():
    tempo, meter = b"\x00\xff\x51\x03\x07\xa1\x20", b"\x00\xff\x58\x04\x03\x02\x18\x08"
    score = read_midi(file(track(tempo + meter), track(ON + OFF)))
    assert notes(score) == [(0, 1, 60)] and score.bpm == 120 and score.meter == Meter(3)
    assert score.length == 3 and score.duration_s == 1.5


def test_running_status_and_a_note_on_without_velocity():
    running = b"\x00\x90\x3c\x40" + b"\x83\x60\x3c\x00" + b"\x00\x3e\x40" + b"\x83\x60\x3e\x00"
    assert notes(read_midi(file(track(running), kind=0))) == [(0, 1, 60), (1, 1, 62)]


def test_the_tempo_changes_within_the_piece():
    events = ON + b"\x00\xff\x51\x03\x07\xa1\x20" + OFF + b"\x00\xff\x51\x03\x0f\x42\x40" + ON + OFF
    score = read_midi(file(track(events), kind=0))
    assert [tempo.bpm for tempo in score.tempos] == [120, 60]
    assert score.times_s(score.parts[0].notes) == [(0, 0.5, 60), (0.5, 1.5, 60)]
    assert score.place_at(1.0) == Fraction(3, 2) and score.seconds_at(Fraction(2)) == 1.5


def test_channel_ten_has_drums_and_other_channels_are_parts():
    drums, flute = b"\x00\x99\x24\x40\x83\x60\x89\x24\x00", b"\x00\x91\x48\x40\x83\x60\x81\x48\x00"
    score = read_midi(file(track(drums + flute), kind=0))
    assert [(part.is_drums, part.notes[0].pitch) for part in score.parts] == [(False, 72), (True, 36)]


def test_overlapping_notes_of_one_pitch_end_in_their_order():
    events = ON + b"\x81\x70\x90\x3c\x40" + b"\x81\x70\x80\x3c\x00" + b"\x81\x70\x80\x3c\x00"
    assert notes(read_midi(file(track(events)))) == [(0, 1, 60), (0.5, 1, 60)]


def test_a_note_that_never_ends_lasts_to_the_end_of_its_track():
    assert notes(read_midi(file(track(ON, b"\x87\x40\xff\x2f\x00")))) == [(0, 2, 60)]


def test_smpte_time_is_seconds():
    division = (256 - 25) << 8 | 40  # 1000 ticks a second
    score = read_midi(file(track(ON + b"\x87\x68\x80\x3c\x00"), division=division))
    assert score.times_s(score.parts[0].notes) == [(0, 1, 60)]
    assert "SMPTE" in score.notices[0]


def test_format_two_holds_pieces_of_their_own():
    data = file(track(ON + OFF), track(b"\x00\x90\x40\x40\x83\x60\x80\x40\x00"), kind=2)
    assert notes(read_midi(data)) == [(0, 1, 60)] and notes(read_midi(data, tune=2)) == [(0, 1, 64)]
    with pytest.raises(InputError, match="'tune' is 3, and the file holds 2 pieces"):
        read_midi(data, tune=3)


def test_empty_tracks_alien_chunks_and_a_riff_around_it():
    alien = b"XFIH\x00\x00\x00\x03abc"
    data = file(track(b""), alien + track(ON + OFF))
    assert notes(read_midi(data)) == [(0, 1, 60)]
    assert notes(read_midi(b"RIFF\x00\x00\x00\x00RMIDdata\x00\x00\x00\x00" + data)) == [(0, 1, 60)]


def test_thousands_of_tracks(bounded):
    score = read_midi(file(*[track(ON + OFF)] * 5000))
    assert len(score.parts) == 5000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin"), (b"MThd", "does not begin"), (b"RIFF\0\0\0\0WAVE" + b"\0" * 99, "does not begin"),
        (file(), "no tracks"), (file(track(ON), kind=9), "format 9"), (file(track(ON), division=0), "0 ticks"),
        (file(track(ON), division=0x8100), "127 frames"), (file(track(ON + OFF))[:-3], "ends within track 1, 3 bytes early"),
        (file(b"MTrk\xff\xff\xff\xff" + ON), "ends within track 1"), (file(track(b"\x00\x3c\x40")), "no event"),
        (file(track(b"\x00\xff\x01\x8f\xff\xff\x7f" + ON)), "cut off"), (file(track(b"\xff\xff\xff\xff\xff" + ON)), "cut off"),
        (file(track(b"\x00\xf0\x8f\xff\xff\x7f" + ON)), "cut off"), (file(track(b"\x00\x90\x3c", b"")), "cut off"),
        (file(track(b"\x00\xf5" + ON)), "0xf5"),
    ],
)  # fmt: skip
def test_a_damaged_file_says_what_is_wrong(bounded, data, words):
    with pytest.raises(InputError, match=words):
        read_midi(data)


def test_millions_of_events_are_refused_within_bounds(bounded):
    with pytest.raises(InputError, match="more than 1000000 events"):
        read_midi(file(track(b"\x00\x90\x3c\x40" + b"\x00\x3c\x40" * 10_000_000)))


def test_a_million_changes_of_tempo_are_refused_within_bounds(bounded):
    with pytest.raises(InputError, match="changes of tempo"):
        read_midi(file(track(b"\x00\xff\x51\x03\x07\xa1\x20" * 900_000)))


def test_a_piece_of_centuries_is_refused(bounded):
    with pytest.raises(InputError, match="quarter notes long"):
        read_midi(file(track(ON + b"\xff\xff\xff\x7f\x80\x3c\x00"), division=1))


def test_random_damage_is_an_error_or_a_score(bounded):
    rng = random.Random(1)
    whole = midi_bytes(read_notes('3/4 @92 C4 D4 "Am7" E4:2 r G3:0.5'), notes_of)
    n_errors = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read_midi(bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.3 else data))
        except InputError:
            n_errors += 1
    assert 200 < n_errors < 1900


def random_score(rng: random.Random) -> Score:
    """Voices of one note at a time, in triplets and sixteenths, with tempos, meters and chords."""
    parts = []
    for number in range(rng.randint(1, 4)):
        place, line = Fraction(0), []
        for _ in range(rng.randint(1, 30)):
            length = Fraction(rng.randint(1, 12), rng.choice((3, 4, 5, 8)))
            if rng.random() < 0.8:
                line.append(Note(place, length, rng.randint(20, 100)))
            place += length
        line.append(Note(place, Fraction(1), 60))
        parts.append(Part(f"Voice {number}", tuple(line), rng.random() < 0.2))
    end = max(note.end for part in parts for note in part.notes)
    meter = rng.choice((Meter(4), Meter(3), Meter(6, 8)))
    bar = Fraction(4 * meter.beats, meter.unit)
    length = -(-end // bar) * bar
    tempos = (Tempo(Fraction(0), float(rng.randint(40, 200))), *((Tempo(bar / 2, 95.5),) if length > bar else ()))
    return Score(
        tuple(parts), length, tempos, (MeterChange(Fraction(0), meter),),
        tuple(Symbol(k * bar, label) for k, label in enumerate(("C", "Am7", "F/C")) if k * bar < length), "A piece",
    )  # fmt: skip


def test_score_to_midi_to_score_is_the_same():
    rng = random.Random(2)
    for _ in range(50):
        score = random_score(rng)
        assert read_midi(midi_bytes(score, notes_of)) == score


def test_the_library_mido_reads_the_same_notes():
    mido = pytest.importorskip("mido")
    rng = random.Random(3)
    for _ in range(20):
        score = random_score(rng)  # without drums, whose parts share a channel
        score = replace(score, parts=tuple(replace(part, is_drums=False) for part in score.parts))
        found, seconds = [], 0.0
        sounding: dict = {}
        for message in mido.MidiFile(file=io.BytesIO(midi_bytes(score))):
            seconds += message.time
            if message.type == "note_on" and message.velocity:
                sounding.setdefault((message.channel, message.note), []).append(seconds)
            elif message.type in ("note_on", "note_off"):
                found.append((sounding[message.channel, message.note].pop(0), seconds, message.note))
        wanted = [time for part in score.parts for time in score.times_s(part.notes)]
        assert len(found) == len(wanted)
        for ours, theirs in zip(sorted(wanted), sorted(found)):
            assert ours == pytest.approx(theirs, abs=2e-3)


def test_the_library_mido_writes_what_is_read():
    mido = pytest.importorskip("mido")
    rng = random.Random(4)
    for kind in (0, 1):
        midi, wanted = mido.MidiFile(type=kind, ticks_per_beat=96), []
        midi.tracks.append(line := mido.MidiTrack())
        line.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(90)))
        tick = 0
        for _ in range(200):
            gap, length, pitch = rng.randint(0, 90), rng.randint(1, 90), rng.randint(30, 90)
            line.append(mido.Message("note_on", note=pitch, velocity=70, time=gap))
            line.append(mido.Message("control_change", control=64, value=127))
            line.append(mido.Message("note_off", note=pitch, time=length))
            wanted.append((Fraction(tick + gap, 96), Fraction(length, 96), pitch))
            tick += gap + length
        midi.save(file=(stream := io.BytesIO()))
        score = read_midi(stream.getvalue())
        assert [(note.start, note.length, note.pitch) for note in score.parts[0].notes] == wanted and score.bpm == 90
