"""Rows become jobs: checked before anything is made, with names and seeds that come from the row alone."""

import pytest
from comfyui_musicgen.musicgen.batch.fields import FieldRecipe
from comfyui_musicgen.musicgen.batch.rows import read_jobs
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.store import ModelStore


@pytest.fixture
def jobs(tmp_path):
    def call(content, model="pansori-mini", name="rows.csv"):
        (tmp_path / name).write_text(content, encoding="utf-8")
        recipe = FieldRecipe(model, "auto", "mbd", tmp_path, ModelStore([tmp_path / "models"], allow_paths=True))
        return read_jobs(tmp_path / name, recipe)

    return call


def test_rows_are_fields_and_empty_cells_their_defaults(jobs):
    (job,) = jobs("prompt,duration,top_p,continuation,seed,output_format\nslow buk,12, 0.5 ,FALSE,7,\n")
    fields = job.task["fields"]
    assert (fields["prompt"], fields["duration"], fields["top_p"], fields["continuation"]) == (
        "slow buk",
        12,
        0.5,
        False,
    )
    assert (fields["output_format"], fields["top_k"], job.seed, fields["seed"]) == ("wav", 250, 7, 7)
    assert job.stem.startswith("slow-buk-") and job.row == 2 and job.task["model"] == "pansori-mini"


def test_a_random_seed_is_the_same_every_time_and_that_of_the_row(jobs):
    first = jobs("prompt,seed\na,\na,-1\nb,\n")
    assert [job.seed for job in first] == [job.seed for job in jobs("prompt,seed\na,\na,-1\nb,\n")]
    assert len({job.seed for job in first}) == 3, "equal rows are takes"
    moved = jobs("seed,prompt\n,new\n,b\n,a\n,a\n")
    assert [moved[2].seed, moved[3].seed, moved[1].seed] == [job.seed for job in first]
    assert {job.key for job in first} < {job.key for job in moved}
    assert [job.seed for job in jobs("prompt,seed\na,\n", model=first[0].task["model"])] == [first[0].seed]


def test_a_key_is_of_all_that_decides_the_music(jobs, tmp_path, toys):
    rows = ["a,8,", "b,8,", "a,9,", "a,8,0", "a,8,1"]
    assert len({jobs(f"prompt,duration,seed\n{row}\n")[0].key for row in rows}) == len(rows)
    assert jobs("prompt\na\n", model=str(toys()))[0].key != jobs("prompt\na\n")[0].key
    clip = tmp_path / "clip.wav"
    keys = []
    for content in (b"one", b"two"):
        clip.write_bytes(content)
        keys.append(jobs("prompt,input_audio\na,clip.wav\n")[0].key)
    assert keys[0] != keys[1], "the clip changed"


def test_a_default_that_is_written_out_changes_nothing(jobs):
    """A column that is added, or a field that a later version has, would make the whole table again."""
    assert jobs("prompt\na\n")[0].key == jobs("prompt,top_k,seed,output_format\na,250,-1,wav\n")[0].key


def test_models_by_their_path_are_found_from_elsewhere(jobs, toys, monkeypatch):
    monkeypatch.chdir(toys().parent)
    (job,) = jobs("prompt\na\n", model=toys().name)
    assert job.task["model"] == str(toys())


def test_names_suit_every_file_system(jobs):
    names = [job.stem for job in jobs("prompt\nSlow/판소리: a*b?\n" + '"..."\n' + "x" * 300 + "\n" + "느" * 300 + "\n")]
    assert names[0].startswith("slow-판소리-a-b-") and names[1].startswith("clip-")
    assert all(len(name.encode()) < 200 for name in names)
    assert jobs("prompt,name\na, 첫 곡 \n")[0].stem == "첫 곡"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("prompt,name\na,x/y\n", "row 2: 'name' holds '/'"),
        ("prompt,name\na,con\n", "row 2: 'name' of 'con'"),
        ("prompt,name\na,..\n", "row 2: 'name' of '..'"),
        ("prompt,name\na,x\nb,X\n", "row 3: 'name' of 'X' is that of row 2"),
        ("prompt,durations\na,8\n", "no column 'durations'. Did you mean 'duration'?"),
        ("prompt,duration\na,eight\n", "row 2: 'duration' must be a whole number from 1 to 3600, got 'eight'"),
        ("prompt,continuation\na,maybe\n", "row 2: 'continuation' must be true or false"),
        ("prompt,input_audio\na,gone.wav\n", "row 2: 'input_audio' cannot be read: .*gone.wav"),
        ("prompt,model\na,nowhere\n", "row 2: .*'?nowhere"),
        ("duration\n8\n", "row 2: 'prompt' and 'input_audio' are both missing"),
        ("prompt\n", "no rows below its header"),
    ],
)
def test_wrong_rows_are_named(jobs, content, said):
    with pytest.raises(InputError, match=said):
        jobs(content)


def test_all_wrong_rows_are_shown_at_once(jobs):
    wrong = "".join(f"{number},x\n" for number in range(30))
    with pytest.raises(InputError, match="row 3: (.|\n)*row 22: (.|\n)*and 10 more") as error:
        jobs(f"prompt,top_k\ngood,1\n{wrong}")
    assert "row 2:" not in str(error.value)


def test_json_lines_are_checked_by_type(jobs):
    (job,) = jobs('{"prompt": "", "duration": 3, "seed": -1}\n', name="rows.jsonl")
    assert job.task["fields"]["prompt"] == "" and job.task["fields"]["duration"] == 3 and job.seed >= 0
    with pytest.raises(InputError, match="row 1: 'duration' must be a whole number .*got '8'"):
        jobs('{"prompt": "a", "duration": "8"}\n', name="rows.jsonl")
