"""Chord models by their names, which stand for addresses, and any model by its address."""

import shutil

import pytest
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.musicgen.store.published import ADDRESSES, CODEC

from ..test_fine_tunes import trainer_file
from .web_site import quiet

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
HOST = "https://weights.replicate.delivery"


def serve(site, toys, tmp_path, name, **options):
    """Put the trainer's file of a chord toy at the address of `name`, and its codec into a folder of models."""
    file = trainer_file(toys(**SMALL, chords=True, **options), tmp_path / "published.th")
    site.files[ADDRESSES[name].removeprefix(HOST)] = file.read_bytes()
    root = tmp_path / "models"
    shutil.copytree(toys(**SMALL, format="huggingface"), root / CODEC)
    return ModelStore([root], network=site.network)


@pytest.mark.parametrize(
    ("name", "stereo"), [("sakemin/musicgen-chord", False), ("sakemin/musicgen-stereo-chord-large", True)]
)
def test_a_published_chord_model_is_downloaded_and_loaded(site, toys, tmp_path, name, stereo):
    store = serve(site, toys, tmp_path, name, stereo=stereo)
    store.check(name)
    with pytest.raises(CheckpointError, match="not downloaded yet.*downloads"):
        store.find(name)
    path = store.ensure(name, quiet)
    assert path.parent.name == "downloads" and path == store.find(name) == store.ensure(ADDRESSES[name], quiet)
    n = len(site.requests)
    encoders = [toys(**SMALL, chords=True, stereo=stereo) / "text_encoder"]
    shutil.copytree(encoders[0], tmp_path / "encoders" / "t5-small")
    loaded = loading.load(path, "float32", text_encoder_dirs=[tmp_path / "encoders"], name=name, store=store)
    assert loaded.config.melody.chords and loaded.config.codec.channels == 1 + stereo and loaded.config.name == name
    assert len(site.requests) == n


def test_a_model_by_its_address_comes_from_allowed_hosts_alone(site, toys, tmp_path):
    store = serve(site, toys, tmp_path, "sakemin/musicgen-chord")
    address = ADDRESSES["sakemin/musicgen-chord"]
    store.check(address)
    assert store.ensure(address, quiet).is_file()
    for call in (store.check, lambda url: store.ensure(url, quiet)):
        with pytest.raises(CheckpointError, match=r"example\.org"):
            call("https://example.org/musicgen-chord.th")
    with pytest.raises(CheckpointError) as error:
        store.find("https://replicate.delivery/pbxt/other.th?token=SECRET")
    assert "SECRET" not in str(error.value)


def test_a_folder_of_its_name_comes_first(site, toys, tmp_path):
    store = ModelStore([tmp_path], network=site.network)
    shutil.copytree(toys(**SMALL, chords=True), tmp_path / "sakemin" / "musicgen-chord")
    assert store.ensure("sakemin/musicgen-chord", quiet) == tmp_path / "sakemin" / "musicgen-chord"
    assert not site.requests


def test_without_a_folder_of_models_nothing_is_downloaded():
    with pytest.raises(CheckpointError, match="no folder of models to download"):
        ModelStore([]).ensure("sakemin/musicgen-chord", quiet)


def test_load_musicgen_lists_them():
    assert set(ADDRESSES) <= set(NODES["MusicGenLoader"].INPUT_TYPES()["required"]["model"][0])
