"""Scores in a real ComfyUI: a file of the input folder, typed notes, the MIDI file beside the music."""

import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.audio import read
from comfyui_musicgen.musicgen.score import midi_bytes, read_midi, read_notes


def graph(file="example/Arirang.abc", notes="", with_score=True, duration_s=2.2, **widgets):
    """A workflow of 2.2 s with a melody model; the score's texts and numbers are wired on, so that they are seen to fit."""
    node = lambda id, **inputs: {"class_type": id, "inputs": inputs}  # noqa: E731
    inputs = {"part": "melody", "tune": 0, "transpose": 0, "bpm": 0.0, "chords": "written", **widgets}
    return {
        "load": node("MusicGenLoader", model="toy-melody", precision="float32"),
        "score": node("MusicGenScore", file=file, notes=notes, **inputs),
        "text": node("MusicGenText", conditioner=["load", 1], text="calm flute", bpm=["score", 2], meter=["score", 3]),
        "listed": node("MusicGenText", conditioner=["load", 1], text=["score", 5]),
        "melody": node("MusicGenScoreMelody", conditioner=["load", 1], conditioning=["text", 0], score=["score", 0]),
        "shown": node("PreviewImage", images=["melody", 1]),
        "roll": node("PreviewImage", images=["score", 6]),
        "sample": node(
            "MusicGenSampler", model=["load", 0], positive=["melody" if with_score else "text", 0], negative=["listed", 0],
            duration_s=duration_s, seed=1, top_k=250, top_p=0.0, temperature=1.0, cfg=3.0, batch_size=1,
        ),
        "decode": node("MusicGenDecode", codec=["load", 2], codes=["sample", 0]),
        "save": node("MusicGenSaveAudio", audio=["decode", 0], filename_prefix="score/x", format="wav"),
        "midi": node("MusicGenSaveScore", score=["score", 0], filename_prefix="score/y", audio=["save", 0]),
    }  # fmt: skip


def run(comfy, **options):
    result = comfy.run(graph(**options))
    files = {file["filename"].rpartition(".")[2]: comfy.path_of(file) for file in result.saved}
    return result, read(files["wav"]).samples, read_midi(files["mid"].read_bytes())


def test_a_score_plays_is_shown_and_is_saved_beside_what_is_heard(comfy):
    result, followed, midi = run(comfy)
    assert {"shown", "roll", "midi"} <= set(result.executed)
    assert (
        {"Asked: 1", "Heard: melody"} & {part.name for part in midi.parts}
        and str(midi.meter) == "3/4"
        and midi.bpm == 96
    )
    _, plain, _ = run(comfy, with_score=False)
    _, other, _ = run(comfy, transpose=6)
    assert not torch.equal(followed, plain) and not torch.equal(followed, other)


def test_a_file_of_the_input_folder_is_read_and_read_anew_when_it_changes(comfy):
    file = comfy.base / "input" / "own tune.mid"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(midi_bytes(read_notes("C4:2 E4:2")))
    _, first, _ = run(comfy, file="own tune.mid")
    _, typed, _ = run(comfy, notes="C4:2 E4:2")
    assert torch.equal(first, typed)
    file.write_bytes(midi_bytes(read_notes("F#4:4")))
    _, second, _ = run(comfy, file="own tune.mid")
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"file": "../../../etc/passwd"}, client.RejectedError, "file"), ({"notes": "C4 H5"}, client.NodeError, "word 2, 'H5'"),
        ({"file": "none"}, client.NodeError, "No score is given"), ({"part": "oboe"}, client.NodeError, "'part' is 'oboe'"),
        ({"transpose": 99}, client.RejectedError, "transpose"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(comfy, options, error, words):
    with pytest.raises(error, match=words):
        comfy.run(graph(**options))


def test_a_hostile_file_does_not_end_the_server(comfy):
    for name, data in (
        ("bomb.xml", b'<!DOCTYPE a [<!ENTITY a "b">]><score-partwise/>'),
        ("bad.mid", b"MThd\xff\xff"),
        ("bad.abc", b"X:1"),
    ):
        (comfy.base / "input").mkdir(exist_ok=True)
        (comfy.base / "input" / name).write_bytes(data)
        with pytest.raises(client.NodeError, match=f"{name}' is not read"):
            comfy.run(graph(file=name))
    assert run(comfy)[0].saved
