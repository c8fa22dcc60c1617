"""Rows that change a workflow; servers that are away. A real server runs them in tests/comfyui."""

import json

import pytest
from comfyui_musicgen.clients import batch, comfyui
from comfyui_musicgen.musicgen.batch.rows import read_jobs
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.tests.clients.test_client import API, NOBODY
from comfyui_musicgen.tests.comfyui import comfy_server


@pytest.fixture
def jobs(tmp_path):
    def call(content, workflow="text_to_music", name="rows.csv"):
        (tmp_path / name).write_text(content, encoding="utf-8")
        prompt = comfy_server.with_own_clip(comfyui.load_workflow(API / f"{workflow}.json"))
        (tmp_path / f"{workflow}.json").write_text(json.dumps(prompt), encoding="utf-8")
        return read_jobs(tmp_path / name, batch.WorkflowRecipe(tmp_path / f"{workflow}.json", tmp_path))

    return call


def test_cells_are_inputs_and_empty_ones_the_workflows_own(jobs):
    table = "MusicGenText.text,4.duration_s,MusicGen Sampler.top_k,name\nslow 판소리,2.5,,곡\n,,7,\n"
    first, second = jobs(table)
    inputs = [job.task["workflow"]["4"]["inputs"] for job in (first, second)]
    assert [each["duration_s"] for each in inputs] == [2.5, 8.0] and [each["top_k"] for each in inputs] == [250, 7]
    original = comfyui.load_workflow(API / "text_to_music.json")
    texts = [job.task["workflow"]["3"]["inputs"]["text"] for job in (first, second)]
    assert texts == ["slow 판소리", original["3"]["inputs"]["text"]]
    assert first.stem == "곡" and second.stem.startswith("text-to-music-")
    assert first.task["workflow"]["7"] == original["7"] and first.seed == original["4"]["inputs"]["seed"]


def test_an_empty_seed_is_that_of_the_row(jobs):
    table = "MusicGenText.text,MusicGenSampler.seed\na,\na,-1\na,5\n"
    made = jobs(table)
    seeds = [job.task["workflow"]["4"]["inputs"]["seed"] for job in made]
    assert seeds == [job.seed for job in made] == [job.seed for job in jobs(table)]
    assert seeds[2] == 5 and len(set(seeds)) == 3 and min(seeds) >= 0


def test_clips_beside_the_table_are_uploaded(jobs, tmp_path):
    keys = []
    for content in (b"one", b"two"):
        (tmp_path / "hum.wav").write_bytes(content)
        (job,) = jobs("LoadAudio.audio\nhum.wav\n", "continue_a_clip")
        (target,) = job.task["uploads"]
        assert job.task["uploads"][target] == str(tmp_path / "hum.wav")
        keys.append(job.key)
    assert keys[0] != keys[1]
    (job,) = jobs("LoadAudio.audio\non the server.wav\n", "continue_a_clip")
    assert job.task["uploads"] == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("MusicGenText.txt\na\n", r"no column 'MusicGenText.txt'\. Did you mean 'MusicGenText.text'\?"),
        ("MusicGenTxet.text\na\n", "Did you mean 'MusicGenText.text'"),
        ("prompt\na\n", "no column 'prompt'"),
        ("MusicGenSampler.model\na\n", "no column 'MusicGenSampler.model'"),  # it is wired
        ("MusicGenText.text,3.text\na,b\n", "'MusicGenText.text' and '3.text' are the same input"),
    ],
)
def test_columns_that_are_no_input_are_named(jobs, content, said):
    with pytest.raises(InputError, match=said):
        jobs(content)


def test_a_value_must_be_plain(jobs):
    with pytest.raises(InputError, match=r"row 1: 'MusicGenText.text' must be a number, a text.*got \[1\]"):
        jobs('{"MusicGenText.text": [1]}\n', name="rows.jsonl")


def test_a_file_that_is_no_workflow_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.json"):
        batch.WorkflowRecipe(tmp_path / "gone.json", tmp_path)


def test_a_server_that_is_away_took_no_row():
    answer = batch.ServerWorker(NOBODY).run({"workflow": {}, "uploads": {}})
    assert NOBODY in answer["away"] and answer["lost"] is False
    with pytest.raises(InputError, match="no server answers"), batch.server_lanes([NOBODY]):
        pass
