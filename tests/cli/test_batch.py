"""python -m musicgen batch, one row after another in one process."""

import json
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.batch import workers
from comfyui_musicgen.musicgen.cli.main import main


@pytest.fixture
def batch(toys, tmp_path, capsys):
    """Runs the command on a table -> (status, paths printed, standard error)."""

    def call(table, *options, out="clips"):
        path = tmp_path / "rows.csv"
        path.write_text(table, encoding="utf-8")
        arguments = [
            "batch",
            path,
            "--out",
            tmp_path / out,
            "--model",
            toys(),
            "--models",
            tmp_path / "models",
            *options,
        ]
        status = main(list(map(str, arguments)))
        printed = capsys.readouterr()
        return status, [Path(line) for line in printed.out.splitlines()], printed.err

    return call


def entries(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


TABLE = "prompt,duration,seed\ndrums,1,\ndrums,1,\n피리,2,5\n"


def test_a_clip_a_row_and_a_second_run_makes_none(batch, tmp_path):
    status, paths, said = batch(TABLE)
    assert status == 0 and "3 rows: 3 made" in said and "3/3" in said
    assert [audio.read(path).duration_s for path in paths] == [1, 1, 2]
    contents = [path.read_bytes() for path in paths]
    assert len(set(contents)) == 3, "equal rows are takes"
    made = entries(tmp_path / "clips")
    assert [entry["row"] for entry in made] == [2, 3, 4] and made[2]["seed"] == 5
    assert made[0]["made_by"]["torch"] and made[0]["made_by"]["musicgen_pansori"]
    before = [path.stat().st_mtime_ns for path in paths]
    status, again, said = batch(TABLE)
    assert status == 0 and again == paths and "3 are there, 0 to be made" in said
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert [path.read_bytes() for path in batch(TABLE, out="elsewhere")[1]] == contents


def test_only_what_is_missing_or_damaged_is_made(batch, tmp_path):
    _, paths, _ = batch(TABLE)
    contents = [path.read_bytes() for path in paths]
    paths[0].unlink()
    paths[2].write_bytes(contents[2][:-1])
    status, _, said = batch(TABLE + "new,1,\n")
    assert status == 0 and "3 made" in said and "1 were there" in said
    assert [path.read_bytes() for path in paths] == contents
    assert sorted(entry["row"] for entry in entries(tmp_path / "clips")) == [2, 2, 3, 4, 4, 5]


def test_a_row_is_what_predict_makes(batch, toys, tmp_path):
    _, (path,), _ = batch("prompt,duration,seed,temperature\ndrums,1,5,0.8\n")
    fields = ["--prompt", "drums", "--duration", "1", "--seed", "5", "--temperature", "0.8"]
    assert main(["predict", "--model", str(toys()), *fields, "--out", str(tmp_path / "one.wav")]) == 0
    assert path.read_bytes() == (tmp_path / "one.wav").read_bytes()


def test_a_failing_row_stops_no_other(batch, tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"no sound at all")
    status, paths, said = batch("prompt,duration,input_audio\na,1,\nb,1,noise.wav\nc,1,\n")
    assert status == 1 and len(paths) == 2 and "2 made" in said and "1 failed" in said
    assert next(line for line in said.splitlines() if line.startswith("row ")).startswith("row 3: ")
    status, paths, said = batch("prompt,duration,input_audio\na,1,\nb,1,noise.wav\nc,1,\n")
    assert status == 1 and len(paths) == 2 and "0 made" in said and "2 were there" in said


def test_each_model_is_loaded_once(batch, toys, tmp_path, monkeypatch):
    from comfyui_musicgen.musicgen.replicate import predict

    loaded, load = [], predict.load
    monkeypatch.setattr(
        predict, "load", lambda path, *rest, **options: loaded.append(path) or load(path, *rest, **options)
    )
    other = toys(stereo=True)
    rows = "".join(f"p{number},1,{other if number % 2 else ''}\n" for number in range(6))
    status, _, _ = batch(f"prompt,duration,model\n{rows}")
    assert status == 0 and loaded == [toys(), other]


def test_wrong_tables_and_options_make_nothing(batch, tmp_path):
    cases = {
        "prompt,seconds\na,8\n": "there is no column 'seconds'",
        "prompt,duration\na,1\nb,0\n": "row 3: 'duration' must be",
        "prompt,model\na,gone\n": "row 2: ",
    }
    for table, expected in cases.items():
        status, paths, said = batch(table)
        assert status == 1 and not paths and expected in said
    assert not (tmp_path / "clips").exists()
    for options in (["--workers", "2"], ["--threads", "1", "--server", "x"], ["--workflow", "gone.json"]):
        assert batch(TABLE, *options)[0] == 1
    status, _, said = batch(TABLE, "--server", "127.0.0.1:9")
    assert status == 1 and "no server answers" in said


def test_check_says_what_there_is_to_do(batch, tmp_path):
    status, paths, said = batch(TABLE, "--check")
    assert status == 0 and not paths and "0 are there, 3 to be made" in said


def test_ctrl_c_keeps_what_is_done(batch, tmp_path, monkeypatch):
    run, calls = workers.EngineWorker.run, []

    def stopped(self, task):
        calls.append(task)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(self, task)

    monkeypatch.setattr(workers.EngineWorker, "run", stopped)
    status, paths, said = batch(TABLE)
    assert status == 130 and len(paths) == 1 and "stopped: 1 of 3 rows" in said
    status, paths, said = batch(TABLE)
    assert status == 0 and len(paths) == 3 and "2 made" in said and "1 were there" in said
    assert not list((tmp_path / "clips").glob(".musicgen-*.part"))
