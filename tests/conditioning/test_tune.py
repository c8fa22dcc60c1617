"""The melody of a score in rows of a model: as the same melody played and heard gives, without a sound between."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.conditioning.chroma import chroma
from comfyui_musicgen.musicgen.conditioning.tune import encode_score, tune_of
from comfyui_musicgen.musicgen.config import GenerationParams, MelodyConfig
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.score import Note, Part, Score, read_notes
from comfyui_musicgen.tests.songs.lines import RATE_HZ, played, walk

CONFIG = MelodyConfig()
SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


def agreement(score):
    """(share of rows of the score and of its sound that are equal, the same by chance)."""
    n_rows = int(min(score.duration_s, 30) * RATE_HZ / 4096)
    told = replace(tune_of(score, CONFIG, RATE_HZ), n_frames=n_rows).chroma()
    heard = chroma(played(score), RATE_HZ, CONFIG, n_rows)
    return float((told * heard).sum(1).mean()), float((told.mean(0) * heard.mean(0)).sum())


def test_rows_of_notes_are_those_of_their_sound():
    """97 % and more of the rows are equal; the others lie where one note goes over into the next."""
    shares = [agreement(walk(seed)) for seed in range(6)]
    assert min(share for share, _ in shares) > 0.93 and max(chance for _, chance in shares) < 0.3, shares


def test_a_row_is_the_note_that_sounds_longest_in_its_window():
    rows = tune_of(read_notes("@60 C4:2 G4:2"), CONFIG, RATE_HZ).chroma().argmax(1)
    change = round(2 * RATE_HZ / 4096)
    assert set(rows[: change - 1].tolist()) == {0} and set(rows[change + 1 : 2 * change - 1].tolist()) == {7}
    assert rows.shape == (235,)


def test_a_rest_is_held_as_far_as_the_window_reaches_and_then_is_silence():
    rows = tune_of(read_notes("@60 E4:2 r:2"), CONFIG, RATE_HZ).chroma().argmax(1)[:31]
    assert rows[15:17].tolist() == [4, 4] and set(rows[19:28].tolist()) == {0}


def test_a_longer_piece_begins_the_score_anew_at_its_true_time():
    tune = tune_of(read_notes("@60 C4 E4 G4"), CONFIG, RATE_HZ)
    for start_s in (3.0, 30.0, 300.0):
        assert torch.equal(tune.chroma(start_s)[:200], tune.chroma(3.0)[:200])
    anchored = tune.chroma(31.0, (1.5, 0.0))
    assert torch.equal(anchored[:11], tune.chroma()[:11]) and torch.equal(anchored[11:], tune.chroma(31.0)[11:])


def test_the_drums_and_lower_parts_count_for_nothing():
    melody, bass, kit = (
        walk(1).parts[0],
        Part("Bass", walk(2).parts[0].notes),
        Part("Kit", walk(3).parts[0].notes, True),
    )
    whole = Score(
        (kit, replace(bass, notes=tuple(replace(note, pitch=note.pitch - 24) for note in bass.notes)), melody),
        Fraction(99),
    )
    assert torch.equal(tune_of(whole, CONFIG, RATE_HZ).chroma()[:100], tune_of(walk(1), CONFIG, RATE_HZ).chroma()[:100])


def test_a_score_of_too_many_notes_for_a_window_is_refused():
    notes = tuple(Note(Fraction(k, 40_000), Fraction(1, 40_000), 60) for k in range(90_000))
    score = Score((Part("A", notes),), Fraction(9, 4)).at_tempo(400)
    with pytest.raises(InputError, match="too many for a window"):
        tune_of(score, CONFIG, RATE_HZ).chroma()


def test_codes_follow_the_score(toys):
    loaded = loading.load(toys(**SMALL, melody=True), "float32")
    text = loaded.conditioner.encode_text(["calm"])
    params = GenerationParams(duration_s=1.0, seed=3)
    makes = [encode_score(loaded.conditioner, text, read_notes(notes)) for notes in ("C4:4", "F#4:4", "C4:4")]
    first, second, third = (loaded.model.generate(conditioning, params).codes for conditioning in makes)
    plain = loaded.model.generate(text, params).codes
    assert torch.equal(first, third) and not torch.equal(first, second) and not torch.equal(second, plain)


def test_rows_reach_the_model_as_those_of_a_recording_do(toys):
    conditioner = loading.load(toys(**SMALL, melody=True), "float32").conditioner
    text, score = conditioner.encode_text(["calm"]), walk(5)
    sung = conditioner.encode_melody(text, Audio(played(score)[None, None], RATE_HZ), "off").melody
    written = encode_score(conditioner, text, score).melody
    assert written.embed().shape == sung.embed().shape
    n_rows = int(min(score.duration_s, 29) * RATE_HZ / 4096)
    equal = (written.embed()[:n_rows] - sung.embed()[:n_rows]).abs().amax(1) < 1e-5
    assert equal.float().mean() > 0.9


def test_models_without_a_melody_say_what_to_load(toys):
    text = loading.load(toys(**SMALL)).conditioner
    with pytest.raises(InputError, match="has no melody conditioning"):
        encode_score(text, text.encode_text([""]), walk(0))
    chords = loading.load(toys(**SMALL, chords=True)).conditioner
    with pytest.raises(InputError, match="follows chords.*MusicGen Chords"):
        encode_score(chords, chords.encode_text([""]), walk(0))
