"""Read Score, Follow a Score and Save Score without ComfyUI."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.conditioning.chords import Progression
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.score import midi_bytes, read_midi, read_notes
from comfyui_musicgen.nodes import host
from comfyui_musicgen.tests.songs import RATE_HZ, song

from .test_timeline_nodes import Standing

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
DEFAULTS = {"file": "none", "notes": "", "part": "melody", "tune": 0, "transpose": 0, "bpm": 0.0, "chords": "written"}


def read(**inputs):
    node = NODES["MusicGenScore"]
    return dict(zip(node.RETURN_NAMES, node().read(**{**DEFAULTS, **inputs})))


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """ComfyUI's input and output folder."""
    given, output = tmp_path / "input", tmp_path / "output"
    given.mkdir()

    def save_path(prefix, folder):
        subfolder, _, name = prefix.rpartition("/")
        (output / subfolder).mkdir(parents=True, exist_ok=True)
        return str(output / subfolder), name, 1, subfolder, prefix

    module = SimpleNamespace(
        get_input_directory=lambda: str(given),
        get_output_directory=lambda: str(output),
        get_save_image_path=save_path,
    )
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    return given, output


def test_the_first_press_reads_the_score_that_comes_with_the_pack():
    inputs = NODES["MusicGenScore"].INPUT_TYPES()["required"]
    assert inputs["file"][1]["default"] == "example/Arirang.abc"
    found = read(file="example/Arirang.abc")
    assert (found["bpm"], found["meter"], found["seconds"]) == (96, "3/4", 30.0)
    assert found["picture"].ndim == 4 and found["score"].title == "Arirang"
    assert Progression.parse(found["chords"], found["bpm"], found["meter"]).duration_s == found["seconds"]
    assert read(notes=found["notes"])["score"].parts[0].notes == found["score"].parts[0].notes


def test_files_of_the_input_folder_are_listed_and_read_anew_when_they_change(folders):
    given, _ = folders
    (given / "a.mid").write_bytes(midi_bytes(read_notes("C4")))
    (given / "b.TXT").write_text("no score")
    node = NODES["MusicGenScore"]
    names = node.INPUT_TYPES()["required"]["file"][0]
    assert "a.mid" in names and "b.TXT" not in names
    first = node.IS_CHANGED(file="a.mid", notes="")
    assert read(file="a.mid")["score"].parts[0].notes[0].pitch == 60 and node.IS_CHANGED(file="a.mid") == first
    (given / "a.mid").write_bytes(midi_bytes(read_notes("D4 E4")))
    os.utime(given / "a.mid", ns=(1, 1))
    assert read(file="a.mid")["score"].parts[0].notes[0].pitch == 62 and node.IS_CHANGED(file="a.mid") != first


def test_widgets_change_what_is_read():
    assert read(notes="C4:4", transpose=2)["notes"].endswith("D4:4")
    assert read(notes="C4:4", bpm=240.0)["seconds"] == 1.0
    chords = read(file="example/Arirang.abc", chords="of the notes")["chords"]
    assert len(chords.split()) == 16 and chords != read(file="example/Arirang.abc")["chords"]


def test_a_hummed_clip_is_read():
    t = torch.arange(2 * RATE_HZ) / RATE_HZ
    tone = (2 * torch.pi * 220 * t).sin() + 0.5 * (2 * torch.pi * 440 * t).sin()
    found = read(audio={"waveform": 0.3 * tone[None, None], "sample_rate": RATE_HZ}, bpm=60.0)
    assert [note.pitch for note in found["score"].parts[0].notes] == [57] and found["bpm"] == 60


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "No score is given"), ({"notes": "C4 H"}, "word 2"), ({"file": "../../etc/passwd"}, "'file' must be one of"),
        ({"file": "/etc/passwd"}, "'file' must be one of"), ({"notes": "C4", "part": "oboe"}, "'part' is 'oboe'"), ({"notes": None}, "'notes'"),
        ({"notes": "C4", "bpm": 5.0}, "'bpm'"), ({"notes": "C4", "transpose": 99}, "'transpose'"), ({"notes": "C4", "chords": "x"}, "'chords'"),
        ({"notes": "C4", "audio": {"waveform": torch.ones(1, 1, 9), "sample_rate": 8}}, "both given"), ({"tune": 2.5}, "'tune'"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(inputs, words):
    with pytest.raises(InputError, match=words):
        read(**inputs)


def test_what_was_read_is_said_on_the_node(monkeypatch):
    shown = []
    monkeypatch.setattr(host, "show_text", shown.append)
    read(notes='C4 "Fine" D4')
    assert "2 notes in 1 part, 4/4 at 120 bpm: 1.0 s." in shown[0] and "'Fine'" in shown[0]


def test_a_melody_model_follows_the_score(toys):
    conditioner = Standing(loading.load(toys(**SMALL, melody=True)).conditioner)
    text = conditioner.module.encode_text(["calm"])
    node = NODES["MusicGenScoreMelody"]()
    result, picture = node.encode(conditioner, text, read(notes="C4:4 E4:4")["score"])
    assert result.leaves()[0].melody.chroma()[0].tolist().index(1) == 0 and picture.shape == (1, 192, 940, 3)
    with pytest.raises(InputError, match="'score' must be MUSICGEN_SCORE"):
        node.encode(conditioner, text, 5)
    with pytest.raises(InputError, match="'score' carries no value"):
        node.encode(conditioner, text, None)


def test_saved_scores_are_numbered_and_hold_what_is_heard(folders):
    pytest.importorskip("PIL")
    score = read(notes="@100 C4 E4 G4 C5")["score"]
    node = NODES["MusicGenSaveScore"]()
    first = node.save(score, "midi/x")
    _, samples = song(1)
    audio = {"waveform": torch.from_numpy(samples)[None, None, : 8 * RATE_HZ], "sample_rate": RATE_HZ}
    second = node.save(score, "midi/x", audio)
    (path, _, nothing), (other, report, share) = first["result"], second["result"]
    assert path.endswith("x_00001_.mid") and other.endswith("x_00002_.mid") and nothing == 0.0
    assert first["ui"]["midi"] == [{"filename": "x_00001_.mid", "subfolder": "midi", "type": "output"}]
    asked, both = (read_midi(Path(file).read_bytes()) for file in (path, other))
    assert [note.pitch for note in asked.parts[0].notes] == [60, 64, 67, 72]
    assert {"Asked: Melody", "Heard: melody", "Heard: chords"} <= {part.name for part in both.parts}
    assert 0 <= share <= 1 and "chance" in report and both.bpm == 100
    with pytest.raises(InputError, match="'filename_prefix'"):
        node.save(score, "../x")
