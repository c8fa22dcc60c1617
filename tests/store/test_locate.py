"""Finding models by name, in the folders that they are kept in and nowhere else."""

import shutil

import pytest
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.store.locate import KNOWN, list_models, resolve
from comfyui_musicgen.musicgen.store.published import SHIPPED_FILE

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
    assert list_models([*two_dirs, two_dirs[0] / "absent"]) == ["Another", "facebook/musicgen-small", "mine"]


def test_names_are_resolved(two_dirs):
    assert resolve("mine", two_dirs) == two_dirs[0] / "mine"
    assert resolve("facebook/musicgen-small", two_dirs) == two_dirs[0] / "facebook" / "musicgen-small"


def test_published_models_may_lie_without_their_owner(two_dirs):
    (two_dirs[0] / "facebook" / "musicgen-small").rename(two_dirs[1] / "musicgen-small")
    assert resolve("facebook/musicgen-small", two_dirs) == two_dirs[1] / "musicgen-small"


def test_the_model_that_comes_with_the_pack_needs_no_folder(two_dirs):
    assert resolve("pansori-mini", []) == SHIPPED_FILE
    (two_dirs[0] / "mine").rename(two_dirs[0] / "pansori-mini")
    assert resolve("pansori-mini", two_dirs) == two_dirs[0] / "pansori-mini", "the user's own, if there is one"


def test_two_models_of_one_name_are_an_error_that_names_both(two_dirs):
    shutil.copytree(two_dirs[0] / "mine", two_dirs[1] / "mine")
    assert list_models(two_dirs).count("mine") == 1
    with pytest.raises(CheckpointError, match="2 models named 'mine'") as error:
        resolve("mine", two_dirs)
    assert all(str(folder / "mine") in str(error.value) for folder in two_dirs)


def test_one_folder_reached_twice_is_one_model(two_dirs):
    assert resolve("mine", [two_dirs[0], two_dirs[0]]) == two_dirs[0] / "mine"


@pytest.mark.parametrize("name", KNOWN)
def test_published_models_that_are_absent_say_where_to_get_them(tmp_path, name):
    with pytest.raises(CheckpointError) as error:
        resolve(name, [tmp_path])
    expected = (f"https://huggingface.co/{name}", "state_dict.bin", "compression_state_dict.bin", str(tmp_path / name))
    assert all(part in str(error.value) for part in expected)


def test_unknown_models_say_what_there_is(two_dirs):
    with pytest.raises(CheckpointError, match=r"no model 'nothing'.*Another, facebook/musicgen-small, mine"):
        resolve("nothing", two_dirs)
    with pytest.raises(CheckpointError, match="none is set up"):
        resolve("nothing", [])


def test_a_folder_without_a_checkpoint_says_what_is_missing(two_dirs):
    with pytest.raises(CheckpointError, match=r"unrelated, holds no checkpoint.*It has config\.json"):
        resolve("unrelated", two_dirs)


OUTSIDE = ["", ".", "..", "../first/mine", "mine/../mine", "a//b", "/etc", "C:/x", r"..\x", "~", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_never_lead_out_of_the_folders(two_dirs, name):
    with pytest.raises(CheckpointError, match="not a usable name"):
        resolve(name, [two_dirs[1]])


def test_existing_folders_are_taken_where_paths_are_allowed(two_dirs, tmp_path):
    folder = two_dirs[0] / "mine"
    assert resolve(str(folder), [], allow_paths=True) == folder
    with pytest.raises(CheckpointError, match="not a usable name"):
        resolve(str(folder), two_dirs)
