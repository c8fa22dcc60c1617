"""Saving: names that no file can have, links, numbers, two processes on one folder, metadata that does not fit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
import torch
from comfyui_musicgen.musicgen.audio import Audio, read, write, write_new
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.nodes import host
from comfyui_musicgen.nodes.save import MusicGenSaveAudio

ROOT = Path(__file__).resolve().parents[2]
SOUND = {"waveform": 0.5 * torch.rand(1, 2, 3200) - 0.25, "sample_rate": 32000}


@pytest.fixture
def output(monkeypatch, tmp_path):
    """The output folder of a fake folder_paths that numbers files as ComfyUI 0.3.64 does."""
    folder = tmp_path / "output"
    folder.mkdir()

    def save_path(prefix, output_dir):
        subfolder, name = os.path.split(os.path.normpath(prefix))
        target = os.path.join(output_dir, subfolder)
        os.makedirs(target, exist_ok=True)
        numbers = [
            int(file[len(name) + 1 :].split("_")[0]) for file in os.listdir(target) if file.startswith(name + "_")
        ]
        return target, name, max(numbers, default=0) + 1, subfolder, prefix

    module = SimpleNamespace(get_output_directory=lambda: str(folder), get_save_image_path=save_path)
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    return folder


def save(prefix, format="wav", sound=SOUND, **options):
    reply = MusicGenSaveAudio().save(sound, prefix, format, **options)
    return [item["filename"] for item in reply["ui"]["audio"]], reply["ui"]["audio"][0]["subfolder"]


@pytest.mark.parametrize(
    "prefix", ["a\0b", "\0", "x" * 300, "x" * 236, "y" * 300 + "/a", "가" * 90, "\ud800", "a/\udfff", "n/" * 3000 + "a"]
)
def test_a_prefix_that_no_file_can_have_is_refused_by_name(output, prefix):
    with pytest.raises(InputError, match="'filename_prefix'") as caught:
        save(prefix)
    str(caught.value).encode()
    assert not [path for path in output.rglob("*") if path.is_file()]


def test_the_longest_prefix_is_saved_with_all_that_belongs_to_it(output):
    (name,), _ = save("x" * host.MAX_PREFIX_BYTES, prompt={"1": {}})
    assert (output / (name + ".json")).is_file() and len(name + ".json") > 240


def test_a_link_inside_the_output_folder_is_followed(output, tmp_path):
    """It was said to lie outside. ComfyUI's own nodes follow it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (output / "linked").symlink_to(elsewhere, target_is_directory=True)
    assert save("linked/x", "flac") == (["x_00001_.flac"], "linked")
    assert read(elsewhere / "x_00001_.flac").n_samples == 3200


def test_a_link_that_the_core_refuses_is_spoken_of(output, tmp_path, monkeypatch):
    def refuse(prefix, output_dir):
        raise Exception("**** ERROR: Saving image outside the output folder is not allowed.\n full_output_folder: ...")

    monkeypatch.setattr(sys.modules["folder_paths"], "get_save_image_path", refuse)
    with pytest.raises(InputError, match=r"'filename_prefix' 'linked/x'.*outside the output folder"):
        save("linked/x")


def test_the_number_in_the_batch_is_part_of_the_name_and_no_run_replaces_another(output):
    """Runs after the first began at 1 again, and replaced its files."""
    two = {"waveform": torch.cat([SOUND["waveform"]] * 2), "sample_rate": 32000}
    first, _ = save("take%batch_num%", sound=two)
    assert first == ["take0_00001_.wav", "take1_00002_.wav"]
    before = {path: path.read_bytes() for path in output.iterdir()}
    second, _ = save("take%batch_num%", sound={**two, "waveform": two["waveform"] * 0.5})
    assert not set(first) & set(second)
    assert all(path.read_bytes() == data for path, data in before.items())


def test_a_name_that_is_taken_meanwhile_is_passed_over(output, tmp_path):
    location = host.save_location("x")
    (output / "x_00001_.wav").write_bytes(b"theirs")
    (output / "x_00002_.wav").symlink_to(tmp_path / "nowhere")
    sound = Audio(SOUND["waveform"], 32000)
    assert write_new(sound, location.files("wav", location.counter)).name == "x_00003_.wav"
    assert (output / "x_00001_.wav").read_bytes() == b"theirs"


@pytest.mark.parametrize("has_links", [True, False])
def test_writing_without_replacing_leaves_what_is_there(tmp_path, monkeypatch, has_links):
    if not has_links:  # as on FAT

        def refuse(*_):
            raise PermissionError("no hard links here")

        monkeypatch.setattr(os, "link", refuse)
    sound, path = Audio(SOUND["waveform"], 32000), tmp_path / "a.wav"
    write(sound, path, replace=False, metadata={"prompt": "{}"})
    data = path.read_bytes()
    with pytest.raises(FileExistsError):
        write(Audio(sound.samples * 0.5, 32000), path, replace=False)
    assert path.read_bytes() == data
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.wav", "a.wav.json"]


def test_two_processes_on_one_folder_get_a_file_each_time(tmp_path):
    """24 saves of two servers left 12 files."""
    script = f"""
import sys; sys.path.insert(0, {str(ROOT.parent)!r})
import importlib.util
spec = importlib.util.spec_from_file_location("pack", {str(ROOT / "__init__.py")!r}, submodule_search_locations=[{str(ROOT)!r}])
pack = importlib.util.module_from_spec(spec); sys.modules["pack"] = pack; spec.loader.exec_module(pack)
import torch; from pathlib import Path; from pack.musicgen.audio import Audio, write_new
names = lambda: (Path({str(tmp_path)!r}) / f"x_{{n:05}}_.wav" for n in range(1, 99))
sys.stdin.readline()
for n in range(12):
    print(write_new(Audio(torch.full((1, 1, 800), float(sys.argv[1])), 8000), names(), metadata={{"n": str(n)}}).name)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, level], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for level in ("0.25", "0.5")
    ]
    for process in processes:  # both wait for a line, so that they write at once
        process.stdin.write("\n")
        process.stdin.flush()
    names = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [len(each) for each in names] == [12, 12] and not set(names[0]) & set(names[1])
    for each, level in zip(names, (0.25, 0.5), strict=True):
        assert all(abs(read(tmp_path / name).samples[0, 0, 0] - level) < 1e-3 for name in each)


def test_a_workflow_that_flac_cannot_hold_lies_beside_it(output, caplog):
    """17 MB of workflow were an error of FFmpeg's."""
    graph = {"nodes": ["x" * (17 * 2**20)]}
    (name,), _ = save("big", "flac", prompt={"1": {}}, extra_pnginfo={"workflow": graph})
    assert read(output / name).n_samples == 3200
    with av.open(str(output / name)) as container:
        assert not {"prompt", "workflow"} & set(container.metadata)
    assert json.loads((output / f"{name}.json").read_text()) == {"prompt": {"1": {}}, "workflow": graph}
    assert "beside it" in caplog.text


def test_a_workflow_that_just_fits_into_flac_is_in_it(tmp_path):
    value = "x" * (2**24 - 2**12 - 100)
    path = write(Audio(SOUND["waveform"], 32000), tmp_path / "a.flac", metadata={"workflow": value})
    with av.open(str(path)) as container:
        assert container.metadata["workflow"] == value
    assert [file.name for file in tmp_path.iterdir()] == ["a.flac"]


def test_saving_can_be_cancelled_and_leaves_nothing(output, monkeypatch):
    class Interrupted(BaseException):
        pass

    def interrupt():
        raise Interrupted

    monkeypatch.setattr(host, "check_interrupted", interrupt)
    with pytest.raises(Interrupted):
        save("x", prompt={"1": {}})
    assert not list(output.iterdir())
