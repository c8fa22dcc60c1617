"""Finding models by name, in the folders that they are kept in and nowhere else."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.musicgen.store.published import CODEC, KNOWN, SHIPPED
from safetensors.torch import load_file, save_file

SMALL = {"dim": 16, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


@pytest.fixture
def two_dirs(toys, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "facebook").mkdir(parents=True)
    second.mkdir()
    shutil.copytree(toys(**SMALL), first / "facebook" / "musicgen-small")
    shutil.copytree(toys(**SMALL, format="huggingface"), first / "mine")
    shutil.copytree(toys(**SMALL, format="huggingface"), second / "Another")
    (second / "unrelated").mkdir()
    (second / "unrelated" / "config.json").write_text('{"model_type": "t5"}')
    return [first, second]


def test_models_are_listed_by_name(two_dirs):
    assert ModelStore([*two_dirs, two_dirs[0] / "absent"]).list() == ["Another", "facebook/musicgen-small", "mine"]


def test_names_are_resolved(two_dirs):
    assert ModelStore(two_dirs).find("mine") == two_dirs[0] / "mine"
    assert ModelStore(two_dirs).find("facebook/musicgen-small") == two_dirs[0] / "facebook" / "musicgen-small"


def test_published_models_may_lie_without_their_owner(two_dirs):
    (two_dirs[0] / "facebook" / "musicgen-small").rename(two_dirs[1] / "musicgen-small")
    assert ModelStore(two_dirs).find("facebook/musicgen-small") == two_dirs[1] / "musicgen-small"


@pytest.mark.parametrize("name", ["general-mini", "pansori-mini"])
def test_the_models_that_come_with_the_pack_need_no_folder(two_dirs, name):
    assert ModelStore([]).find(name) == SHIPPED[name]
    (two_dirs[0] / "mine").rename(two_dirs[0] / name)
    assert ModelStore(two_dirs).find(name) == two_dirs[0] / name, "the user's own, if there is one"


def test_two_models_of_one_name_are_an_error_that_names_both(two_dirs):
    shutil.copytree(two_dirs[0] / "mine", two_dirs[1] / "mine")
    assert ModelStore(two_dirs).list().count("mine") == 1
    with pytest.raises(CheckpointError, match="2 models named 'mine'") as error:
        ModelStore(two_dirs).find("mine")
    assert all(str(folder / "mine") in str(error.value) for folder in two_dirs)


def test_one_folder_reached_twice_is_one_model(two_dirs):
    assert ModelStore([two_dirs[0], two_dirs[0]]).find("mine") == two_dirs[0] / "mine"


@pytest.mark.parametrize("name", KNOWN)
def test_published_models_that_are_absent_say_where_to_get_them(tmp_path, name):
    with pytest.raises(CheckpointError) as error:
        ModelStore([tmp_path]).find(name)
    expected = (f"https://huggingface.co/{name}", "state_dict.bin", "compression_state_dict.bin", str(tmp_path / name))
    assert all(part in str(error.value) for part in expected)


def test_unknown_models_say_what_there_is(two_dirs):
    with pytest.raises(CheckpointError, match=r"no model 'nothing'.*Another, facebook/musicgen-small, mine"):
        ModelStore(two_dirs).find("nothing")
    with pytest.raises(CheckpointError, match="none is set up"):
        ModelStore([]).find("nothing")


def test_a_folder_without_a_checkpoint_says_what_is_missing(two_dirs):
    with pytest.raises(CheckpointError, match=r"unrelated, holds no checkpoint.*It has config\.json"):
        ModelStore(two_dirs).find("unrelated")


OUTSIDE = [
    "",
    ".",
    "..",
    "../first/mine",
    "mine/../mine",
    "a//b",
    "/etc",
    "C:/x",
    r"..\x",
    "~",
    "a\0b",
    "a" * 300,
    "a/" * 600 + "a",
    "\ud800",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_never_lead_out_of_the_folders(two_dirs, name):
    with pytest.raises(CheckpointError, match="not a usable name"):
        ModelStore([two_dirs[1]]).find(name)


def test_existing_folders_are_taken_where_paths_are_allowed(two_dirs, tmp_path):
    folder = two_dirs[0] / "mine"
    assert ModelStore([], allow_paths=True).find(str(folder)) == folder
    with pytest.raises(CheckpointError, match="not a usable name"):
        ModelStore(two_dirs).find(str(folder))


@pytest.mark.parametrize("name", ["x" * 5000, "\ud800", "~nobody-at-all/x", "a\0b"])
def test_paths_that_cannot_exist_are_unknown_names(tmp_path, name):
    with pytest.raises(CheckpointError, match="not a usable name"):
        ModelStore([tmp_path], allow_paths=True).find(name)


def cache(monkeypatch, tmp_path, repository, source, files):
    """A repository in huggingface_hub's cache, as the library itself lays it out."""
    hub, commit = pytest.importorskip("huggingface_hub"), "0" * 40
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    for file in files:
        shutil.copy(source / file, folder / "snapshots" / commit)
    return folder / "snapshots" / commit


@pytest.mark.parametrize("format", ["audiocraft", "huggingface"])
def test_published_models_are_found_in_the_hubs_cache(toys, tmp_path, monkeypatch, format):
    name, source = "facebook/musicgen-small", toys(**SMALL, format=format)
    files = {"audiocraft": ("state_dict.bin", "compression_state_dict.bin")}.get(
        format, ("config.json", "model.safetensors")
    )
    snapshot = cache(monkeypatch, tmp_path, name, source, files)
    assert ModelStore([tmp_path]).find(name) == snapshot
    assert ModelStore([tmp_path]).ensure(name, lambda *_: pytest.fail("downloaded")) == snapshot
    (snapshot / files[1]).unlink()
    with pytest.raises(CheckpointError, match="is not in"):
        ModelStore([tmp_path]).find(name)


def test_a_named_codec_is_found_in_the_hubs_cache(toys, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    other = toys(**SMALL, format="huggingface")
    tensors = load_file(other / "model.safetensors")
    save_file(
        {name[14:]: tensor for name, tensor in tensors.items() if name.startswith("audio_encoder.")},
        source / "model.safetensors",
    )
    settings = json.loads((other / "config.json").read_text())["audio_encoder"]
    (source / "config.json").write_text(json.dumps(settings))
    snapshot = cache(monkeypatch, tmp_path, CODEC, source, ("model.safetensors", "config.json"))
    folder = Path(shutil.copytree(toys(**SMALL), tmp_path / "models" / "mine"))
    torch.save({"pretrained": CODEC, "exported": True}, folder / "compression_state_dict.bin")
    assert ModelStore([tmp_path / "models"]).open(folder).codec_origin == str(snapshot)
