"""generate --melody SCORE, --notes, --part, --transpose, --midi."""

import pytest
import torch
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.score import midi_bytes, read_midi, read_notes

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


@pytest.fixture
def run(toys, tmp_path, capsys):
    def call(*arguments, **options):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.wav"
        model = toys(**SMALL, **(options or {"melody": True}))
        status = main(
            ["generate", "--model", str(model), "--duration", "0.8", "--normalize", "off", "--out", str(out), *map(str, arguments)]
        )  # fmt: skip
        return status, audio.read(out).samples if out.exists() else None, capsys.readouterr().err

    return call


def test_a_file_typed_notes_and_abc_are_one_melody(run, tmp_path):
    (tmp_path / "a.mid").write_bytes(midi_bytes(read_notes("C4 E4")))
    (tmp_path / "a.abc").write_text("X:1\nL:1/4\nK:C\nCEz2|\n")
    (status, typed, said), plain = run("--notes", "C4 E4 r:2"), run()[1]
    assert status == 0 and "2 notes in 1 part, 4/4 at 120 bpm: 2.0 s." in said
    assert torch.equal(typed, run("--melody", tmp_path / "a.mid")[1]) and not torch.equal(typed, plain)
    assert torch.equal(typed, run("--melody", tmp_path / "a.abc")[1])
    assert not torch.equal(typed, run("--notes", "C4 E4 r:2", "--transpose", 3)[1])
    assert not torch.equal(typed, run("--notes", "@300 C4 E4 r:2")[1])


def test_what_is_wrong_is_refused_before_anything_is_loaded(run, tmp_path):
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    for arguments, words in (
        (["--notes", "C4 H"], "'notes', word 2"),
        (["--notes", "C4", "--melody", "x.wav"], "'--notes' and '--melody'"),
        (["--notes", "C4", "--chords", "C"], "'--chords' and a score"),
        (["--melody", tmp_path / "bad.mid"], "does not begin as a MIDI file"),
        (["--melody", tmp_path / "none.musicxml"], "is not there"),
        (["--notes", "C4", "--part", "oboe"], "'part' is 'oboe'"),
        (["--transpose", 3], "belong to a score"),
        (["--notes", "C4", "--transpose", 99], "'--transpose' must be"),
        (["--notes", "C4", "--midi", tmp_path / "x.txt"], "must end in .mid"),
    ):
        status, samples, error = run(*arguments, "--model", "/no/such/model")
        assert status == 1 and samples is None and words in error, error


def test_the_music_is_written_as_midi_beside_the_score(run, tmp_path):
    status, _, error = run("--notes", "@120 C4 E4 G4", "--duration", "2.5", "--midi", tmp_path / "both.mid")
    names = {part.name for part in read_midi((tmp_path / "both.mid").read_bytes()).parts}
    assert status == 0 and "Asked: Melody" in names and "chance" in error
