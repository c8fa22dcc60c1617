"""The folder of a batch: what is whole stays, what is not is made again."""

import json

import pytest
from comfyui_musicgen.musicgen.batch.manifest import FILE, Manifest
from comfyui_musicgen.musicgen.batch.rows import Job
from comfyui_musicgen.musicgen.errors import InputError

JOB = Job(2, "k" * 64, "곡", 7, "", {"fields": {"prompt": "느린"}})


def entries(folder):
    return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]


def test_what_was_made_is_known_to_the_next_run(tmp_path):
    folder = tmp_path / "new" / "clips"
    with Manifest.open(folder) as manifest:
        assert manifest.done(JOB) is None
        paths = manifest.save(JOB, [(".wav", b"one"), (".flac", b"two")], worker="w")
        assert manifest.done(JOB) == paths
    assert [path.name for path in paths] == ["곡.wav", "곡-2.flac"] and paths[1].read_bytes() == b"two"
    with Manifest.open(folder) as manifest:
        assert manifest.done(JOB) == paths
        manifest.check_free([JOB])
    (entry,) = entries(folder)
    assert (entry["seed"], entry["task"]["fields"]["prompt"], entry["worker"]) == (7, "느린", "w")


@pytest.mark.parametrize("harm", ["changed", "gone", "renamed"])
def test_what_is_not_whole_is_made_again(tmp_path, harm):
    with Manifest.open(tmp_path) as manifest:
        (path,) = manifest.save(JOB, [(".wav", b"one")])
    job = JOB
    if harm == "changed":
        path.write_bytes(b"onE")
    elif harm == "gone":
        path.unlink()
    else:
        job = Job(2, JOB.key, "other", 7, "", {})
    with Manifest.open(tmp_path) as manifest:
        assert manifest.done(job) is None
        manifest.save(job, [(".wav", b"one")])
        assert manifest.done(job)
    with Manifest.open(tmp_path):
        assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize(
    "rest", [b'{"key": "x', b"null\n", b'{"key": "x", "files": [{"name": "../x", "sha256": ""}]}\n']
)
def test_a_torn_line_costs_no_other(tmp_path, rest):
    with Manifest.open(tmp_path) as manifest:
        manifest.save(JOB, [(".wav", b"one")])
    with open(tmp_path / FILE, "ab") as file:
        file.write(rest)
    with Manifest.open(tmp_path) as manifest:
        assert manifest.done(JOB)
        manifest.save(Job(3, "other", "b", 0, "", {}), [(".wav", b"two")])
    assert [entry["row"] for entry in entries(tmp_path)] == [2, 3]


def test_a_line_without_its_end_is_not_joined_by_the_next(tmp_path):
    with Manifest.open(tmp_path) as manifest:
        manifest.save(JOB, [(".wav", b"one")])
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-1])
    with Manifest.open(tmp_path) as manifest:
        manifest.save(Job(3, "other", "b", 0, "", {}), [(".wav", b"two")])
    assert [entry["row"] for entry in entries(tmp_path)] == [2, 3]


def test_files_of_others_are_not_replaced(tmp_path):
    (tmp_path / "곡.flac").write_bytes(b"mine")
    with Manifest.open(tmp_path) as manifest, pytest.raises(InputError, match="row 2 would replace .*곡.flac"):
        manifest.check_free([JOB])


def test_two_runs_do_not_share_a_folder(tmp_path):
    with Manifest.open(tmp_path), pytest.raises(InputError, match="another run"), Manifest.open(tmp_path):
        pass
    with Manifest.open(tmp_path):
        pass


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="'--out"), Manifest.open(tmp_path / "file" / "clips"):
        pass
