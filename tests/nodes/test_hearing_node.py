"""Hear Music without ComfyUI: outputs, the MIDI file, wires, what is refused; and the command line."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen.audio import Audio, write
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.nodes import host
from comfyui_musicgen.tests.songs import RATE_HZ, song

DEFAULTS = {"bpm": 0.0, "meter": 0, "vocabulary": "triads", "midi_prefix": "", "beat_model": ""}


@pytest.fixture(scope="module")
def piece():
    score, samples = song(1)
    return score, {"waveform": torch.from_numpy(samples)[None, None, : 12 * RATE_HZ], "sample_rate": RATE_HZ}


def hear(audio, **inputs):
    node = NODES["MusicGenAnalyze"]
    return dict(zip(node.RETURN_NAMES, node().hear(audio=audio, **{**DEFAULTS, **inputs})))


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """ComfyUI's output folder and models/musicgen."""
    output, models = tmp_path / "output", tmp_path / "models"
    models.mkdir()

    def save_path(prefix, folder):
        subfolder, _, name = prefix.rpartition("/")
        (output / subfolder).mkdir(parents=True, exist_ok=True)
        return str(output / subfolder), name, 1, subfolder, prefix

    module = SimpleNamespace(
        get_output_directory=lambda: str(output),
        get_save_image_path=save_path,
        get_folder_paths=lambda name: [str(models)],
    )
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    return output, models


def test_the_outputs_tell_the_piece(piece):
    score, audio = piece
    heard = hear(audio)
    report = json.loads(heard["report"])
    assert heard["bpm"] == pytest.approx(score.bpm, rel=0.04) and heard["meter"] == f"{score.meter}/4"
    assert [float(time) for time in heard["downbeats"].split(", ")] == pytest.approx(report["downbeats_s"], abs=1e-3)
    assert len(heard["chords"].split(" ")) == len(report["downbeats_s"])
    assert heard["picture"].shape[0] == 1 and heard["midi_file"] == ""
    assert torch.equal(audio["waveform"], piece[1]["waveform"])


def test_midi_files_are_numbered(piece, folders):
    output, _ = folders
    paths = [hear(piece[1], midi_prefix="midi/heard")["midi_file"] for _ in range(2)]
    assert paths == [str(output / "midi" / f"heard_0000{number}_.mid") for number in (1, 2)]
    assert all(
        (output / "midi" / name).read_bytes()[:4] == b"MThd" for name in ("heard_00001_.mid", "heard_00002_.mid")
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"bpm": "fast"}, "'bpm' must be a number"),
        ({"bpm": 12.0}, "'bpm' must be from 30 to 300"),
        ({"meter": None}, "'meter' carries no value"),
        ({"vocabulary": "jazz"}, "'vocabulary' must be one of triads, sevenths"),
        ({"beat_model": "../secret.ckpt"}, "'beat_model' must name a file in models/musicgen"),
        ({"midi_prefix": "../out"}, "'filename_prefix' must name files inside"),
    ],
)
def test_a_wired_value_is_checked_by_name(piece, folders, inputs, message):
    with pytest.raises(InputError, match=message):
        hear(piece[1], **inputs)


def test_a_batch_and_silence_are_refused():
    with pytest.raises(InputError, match="2 clips"):
        hear({"waveform": torch.ones(2, 1, 5 * RATE_HZ), "sample_rate": RATE_HZ})
    with pytest.raises(InputError, match="silent"):
        hear({"waveform": torch.zeros(1, 1, 5 * RATE_HZ), "sample_rate": RATE_HZ})


def test_constants_are_checked_before_anything_runs():
    validate = NODES["MusicGenAnalyze"].VALIDATE_INPUTS
    assert validate(bpm=0.0, meter=0, input_types={}) is True and validate(input_types={"bpm": "INT"}) is True
    assert "'bpm' must be from 30" in validate(bpm=10.0) and "'meter' must be 2 or more" in validate(meter=1)
    assert "'audio' takes AUDIO" in validate(input_types={"audio": "IMAGE"})


def test_cancel_ends_the_node(piece, monkeypatch):
    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    monkeypatch.setattr(host, "progress", lambda: cancel)
    with pytest.raises(Cancelled):
        hear(piece[1])


def test_the_command_prints_facts_or_json_and_writes_midi(piece, tmp_path, capsys):
    score, audio = piece
    file = tmp_path / "piece.wav"
    write(Audio(audio["waveform"], RATE_HZ), file)
    assert main(["analyze", str(file), "--midi", str(tmp_path / "heard.mid")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tempo") and (tmp_path / "heard.mid").read_bytes()[:4] == b"MThd"
    assert main(["analyze", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bpm"] == pytest.approx(score.bpm, rel=0.04)
    assert main(["analyze", str(file), "--midi", str(tmp_path / "heard.txt")]) == 1
    assert "must end in .mid" in capsys.readouterr().err
