"""FluidSynth through ctypes: a piece sounds the same whatever was played before it, and whichever thread plays it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.conditioning.chroma import chroma
from comfyui_musicgen.tests.training.tiny_training import one_clip
from comfyui_musicgen.training.data.instruments import INSTRUMENTS
from comfyui_musicgen.training.data.render import Synthesizer, levelled
from comfyui_musicgen.training.data.score import Part
from comfyui_musicgen.training.data.songs import song
from comfyui_musicgen.training.lm.scored import FRAME_TARGETS, UNKNOWN
from comfyui_musicgen.training.onegpu.recipe import REHEARSAL
from comfyui_musicgen.training.recipe import melody_of

SOUNDFONTS = [Path("/usr/share/sounds/sf2") / name for name in ("TimGM6mb.sf2", "FluidR3_GM.sf2")]
NUMBERS = (0, 1, 3, 8)  # pieces that differed with what was played before, as long as one synthesizer played them all


@pytest.fixture(scope="module")
def synthesizer():
    soundfont = next(filter(Path.exists, SOUNDFONTS), None)
    if soundfont is None:
        pytest.skip("no General MIDI soundfont is installed (timgm6mb-soundfont)")
    try:
        return Synthesizer(soundfont, 32_000)
    except OSError as error:
        pytest.skip(f"FluidSynth is not installed ({error})")


def played(synthesizer: Synthesizer, number: int) -> np.ndarray:
    piece = song("train", number, 4.0)
    return synthesizer.play(piece.parts, piece.first_s, 4.0)


@pytest.fixture(scope="module")
def forward(synthesizer):
    return {number: played(synthesizer, number) for number in NUMBERS}


def test_a_piece_sounds_the_same_whatever_was_played_before_it(synthesizer, forward):
    for number in reversed(NUMBERS):
        assert np.array_equal(played(synthesizer, number), forward[number])
        assert np.abs(forward[number]).max() > 0.01


def test_a_tone_sounds_the_same_wherever_it_comes(synthesizer):
    part = Part("flute", "melody", 73, reverb=0)
    for start_s, pitch in ((0.0, 72), (0.98, 76), (2.22, 72)):
        part.add(start_s + 0.004, 0.3, pitch, 92)  # rounded to frames
    samples = synthesizer.play([part], 0.0, 3.0)
    first, other, second, late = (samples[round(at * 32_000) :][:9600] for at in (0.0, 0.98, 2.22, 2.221))
    off = [float(np.abs(one - first).max() / np.abs(first).max()) for one in (second, late, other)]
    assert np.abs(first).max() > 0.01
    assert off[0] < 0.1 and min(off[1:]) > 0.5, off  # a millisecond is enough to make it other samples


def test_threads_take_turns_and_nothing_is_complained_of(synthesizer, forward, caplog):
    """Two threads at once broke FluidSynth's voices: 700 MB of messages in three minutes."""
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(2) as threads:
        heard = list(threads.map(lambda number: played(synthesizer, number), NUMBERS * 2))
    assert not caplog.records
    for number, samples in zip(NUMBERS * 2, heard, strict=True):
        assert np.array_equal(samples, forward[number])


def test_what_fluidsynth_complains_of_is_told_in_one_line_with_the_players(synthesizer, caplog):
    part = Part("theremin", "melody", 0, bank=99)
    part.add(0.0, 0.5, 60, 100)
    with caplog.at_level(logging.WARNING):
        synthesizer.play([part], 0.0, 0.5)
    (record,) = caplog.records
    assert "theremin" in record.getMessage() and "messages)" in record.getMessage()


def test_a_file_that_is_no_soundfont_is_refused(synthesizer, tmp_path):
    path = tmp_path / "noise.sf2"
    path.write_bytes(b"RIFF" + bytes(64))
    with pytest.raises(ValueError, match=r"noise\.sf2 is no soundfont"):
        Synthesizer(path, 32_000)


def test_rows_of_a_score_lie_where_the_chroma_of_its_sound_does(synthesizer):
    """Rows that came half a chroma frame early had the model write each tone late."""
    rows, heard, t = [], [], REHEARSAL.n_frames
    for number in range(24):
        piece = song("train", number, 10.0)
        if piece.facts.arrangement == "solo" and not INSTRUMENTS[piece.facts.lead].chords:
            samples = levelled(synthesizer.play(piece.parts, piece.first_s, 10.0), piece.facts.dynamics)
            frames = torch.full((1, len(FRAME_TARGETS), t), UNKNOWN, dtype=torch.uint8)
            frames[0, list(FRAME_TARGETS).index("tone")] = torch.from_numpy(piece.melody_frames(10.0, t))
            rows.append(one_clip(frames)._melody(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))[0])
            config = melody_of(REHEARSAL.model)
            heard.append(chroma(torch.from_numpy(samples)[None], 32000, config, config.n_frames)[0].argmax(dim=-1))

    def alike(lag):
        pairs = [
            (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[:lag]) for a, b in zip(rows, heard, strict=True)
        ]
        return float(np.mean([(a == b)[a < 12].float().mean() for a, b in pairs]))

    assert len(rows) > 3 and alike(0) > 0.6 and alike(0) > max(alike(-1), alike(1)) + 0.05
