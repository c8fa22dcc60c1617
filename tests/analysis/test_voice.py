"""Hummed lines: synthesized voices with vibrato, glides, breath and a tuning of their own."""

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.analysis.asked import beside, following, repeated
from comfyui_musicgen.musicgen.analysis.hearing import hear_voice
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.score import midi_bytes, read_midi, read_notes
from comfyui_musicgen.tests.songs.lines import VOICE_RATE_HZ as RATE_HZ
from comfyui_musicgen.tests.songs.lines import found_share, hummed

LINES = (
    "@90 G3 A3 G3 A3 C4:2 D4:2 E4 D4 C4 A3 G3:3 r C4 D4 E4:2",
    "@110 C4 E4 G4:2 r:0.5 A4:1.5 G4 F4 E4 D4 C4:3",
    "@80 E3 F#3 G#3 B3 A3:2 r G#3 F#3 E3:2 B2:2",
    "@100 C5:2 B4 A4 G4:2 r E4 F4 G4 A4:2 G4:3",
)


@pytest.mark.parametrize("text", LINES)
def test_a_hummed_line_is_its_notes(text):
    """Nine of ten notes have their pitch and their beginning; by chance one of twelve has its pitch class alone."""
    shares = [found_share(score, hear_voice(audio)) for score, audio in (hummed(text, seed) for seed in range(3))]
    assert np.mean([share for share, _ in shares]) >= 0.9, shares
    assert all(0.8 <= count <= 1.25 for _, count in shares), shares


def test_every_note_lies_within_a_semitone_also_with_a_wide_vibrato():
    score, audio = hummed(LINES[0], seed=7, vibrato_cents=80, glide_s=0.12)
    times = score.times_s(score.parts[0].notes)
    heard = hear_voice(audio)
    near = []
    for start_s, end_s, pitch in heard.times_s(heard.parts[0].notes):
        middle = (start_s + end_s) / 2
        near.append(
            min((abs(pitch - midi) for start, end, midi in times if start - 0.1 <= middle <= end + 0.1), default=99)
            <= 1
        )
    assert np.mean(near) >= 0.9


def test_notes_are_counted_in_the_tempo_that_is_given_at_their_times():
    _, audio = hummed(LINES[0])
    at_90, at_120 = hear_voice(audio, 90.0), hear_voice(audio)
    assert at_90.bpm == 90 and at_120.bpm == 120
    assert [time[0] for time in at_90.times_s(at_90.parts[0].notes)] == pytest.approx(
        [time[0] for time in at_120.times_s(at_120.parts[0].notes)], abs=2e-3
    )


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (torch.zeros(1, 1, RATE_HZ), "no sung or hummed tone"), (torch.zeros(2, 1, RATE_HZ), "2 clips"), (torch.zeros(1, 1, 99), "long"),
        (0.1 * torch.randn(1, 1, RATE_HZ, generator=torch.Generator().manual_seed(1)), "no sung or hummed tone|no tone"),
    ],
)  # fmt: skip
def test_what_has_no_voice_is_refused(samples, words):
    with pytest.raises(InputError, match=words):
        hear_voice(Audio(samples, RATE_HZ))


def test_cancel_ends_it():
    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hear_voice(hummed(LINES[0])[1], on_step=cancel)


def test_music_that_has_the_melody_follows_it_and_other_music_does_not():
    score, audio = hummed("@90 C4:2 D4:2 E4:2 F4:2 G4:2 A4:2", cents=0)
    followed = following(audio, score)
    other = following(audio, read_notes("@90 F#4:2 G#4:2 A#4:2 C#4:2 D#4:2 F4:2"))
    assert followed.share > 0.85 and followed.chance < 0.3 and other.share < 0.25
    assert "chance" in followed.report


def test_asked_and_heard_lie_side_by_side_in_the_file():
    score, audio = hummed('3/4 @90 "C" C4:3 "F" F4:3 "G" G4:3 "C" E4:3', cents=0)
    both, heard = beside(score, audio)
    back = read_midi(midi_bytes(both))
    names = [part.name for part in back.parts]
    assert "Asked: Melody" in names and "Heard: melody" in names and str(back.meter) == "3/4" and back.bpm == 90
    part = back.parts[names.index("Heard: melody")]
    assert [pitch for _, _, pitch in back.times_s(part.notes)] == [note.pitch for note in heard.melody]
    starts = [start for start, _, _ in back.times_s(part.notes)]
    assert starts == pytest.approx([note.start_s for note in heard.melody], abs=2e-3)


def test_a_score_is_begun_anew_until_the_music_ends():
    score = read_notes('@60 "C" C4 D4 E4')
    longer = repeated(score, 7.0)
    assert (
        longer.length == 9
        and [note.pitch for note in longer.parts[0].notes] == [60, 62, 64] * 3
        and len(longer.symbols) == 3
    )
    assert repeated(score, 2.0) is score
