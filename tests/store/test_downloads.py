"""Published models: downloaded when they are asked for, all of one commit, with the hub's checksums."""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.store import download, transfer, web
from comfyui_musicgen.musicgen.store.download import fetch_repository, obtain, obtain_weights
from comfyui_musicgen.musicgen.store.published import CODEC
from comfyui_musicgen.musicgen.store.urls import fetch_url
from comfyui_musicgen.nodes import host
from comfyui_musicgen.tests.store.web_site import Cancelled, cancel_at, files_in, quiet, running
from safetensors.torch import load_file, save

URL = "https://replicate.delivery/pbxt/abc/trained_model.tar?token=SECRET"
DATA = b"PK\x03\x04" + bytes(range(256)) * 20_000  # 5 MB
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSES_S", (0.0, 0.0, 0.0))
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with running() as site:
        monkeypatch.setattr(web, "DIRECT", site.transport)
        site.files["/pbxt/abc/trained_model.tar"] = DATA
        site.headers["/pbxt/abc/trained_model.tar"] = {"ETag": '"v1"'}
        yield site


def publish(site, name, files, commit=COMMIT, endpoint=""):
    """Put files on the site as the hub has them: large ones behind a redirect, with checksums in its headers."""
    for file, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        large = {"X-Repo-Commit": commit, "X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"'}
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # git's name of it
        small = {"X-Repo-Commit": commit, "ETag": f'"{blob}"'}
        for revision in ("main", commit):
            path = f"/{name}/resolve/{revision}/{file}"
            if file.endswith(".json"):
                site.files[path], site.headers[path] = data, small
            else:
                site.redirects[path], site.headers[path] = f"https://cas-bridge.xethub.hf.co/{digest}?sig=SECRET", large
                site.files[f"/{digest}"] = data


@pytest.fixture
def hub(site, toys):
    """The site with a small musicgen-small on it."""
    folder = toys(**SMALL)
    names = ("state_dict.bin", "compression_state_dict.bin")
    publish(site, "facebook/musicgen-small", {name: (folder / name).read_bytes() for name in names})
    return site


def test_a_known_name_is_downloaded_and_loaded(hub, toys, tmp_path, monkeypatch):
    steps = []
    path = obtain("facebook/musicgen-small", [tmp_path], lambda *step: steps.append(step))
    assert path == tmp_path / "facebook" / "musicgen-small"
    assert files_in(tmp_path) == [".download.json", "compression_state_dict.bin", "state_dict.bin"]
    for name in ("state_dict.bin", "compression_state_dict.bin"):
        assert (path / name).read_bytes() == (toys(**SMALL) / name).read_bytes()
    total = sum((path / name).stat().st_size for name in ("state_dict.bin", "compression_state_dict.bin"))
    assert steps[-1] == (total, total) and [s[0] for s in steps] == sorted(s[0] for s in steps)
    record = json.loads((path / ".download.json").read_text())
    assert record["repository"] == "facebook/musicgen-small" and record["commit"] == COMMIT
    assert (
        record["files"]["state_dict.bin"]["checksum"]
        == hashlib.sha256((path / "state_dict.bin").read_bytes()).hexdigest()
    )
    n = len(hub.requests)
    assert obtain("facebook/musicgen-small", [tmp_path], quiet) == path and len(hub.requests) == n


def test_all_files_are_of_the_commit_that_main_was_at_the_beginning(hub, tmp_path, monkeypatch):
    with pytest.raises(Cancelled):
        obtain("facebook/musicgen-small", [tmp_path], cancel_at(400_000))
    moved = "f" * 40
    for path in [path for path in hub.headers if "/main/" in path]:
        hub.headers[path] = {**hub.headers[path], "X-Repo-Commit": moved}
    hub.requests.clear()
    obtain("facebook/musicgen-small", [tmp_path], quiet)
    asked = [path for _, _, path, _ in hub.requests if "/resolve/" in path]
    assert asked and all(COMMIT in path for path in asked)


def test_a_pinned_revision_is_the_one_that_is_fetched(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(download.REVISIONS, "facebook/musicgen-small", COMMIT)
    obtain("facebook/musicgen-small", [tmp_path], quiet)
    assert not [path for _, _, path, _ in hub.requests if "/main/" in path]


def test_a_wrong_checksum_is_thrown_away(hub, tmp_path):
    for path in [path for path in hub.files if len(path) == 65]:
        hub.files[path] = b"x" * len(hub.files[path])
    with pytest.raises(CheckpointError, match="arrived damaged"):
        obtain("facebook/musicgen-small", [tmp_path], quiet)
    assert files_in(tmp_path) == [".download.json"]


@pytest.mark.parametrize("lacking", ["X-Repo-Commit", "X-Linked-Etag"])
def test_a_server_without_checksums_is_no_hub(hub, tmp_path, lacking):
    for headers in hub.headers.values():
        headers.pop(lacking, None)
    with pytest.raises(CheckpointError, match="does not say of which commit|no size and checksum"):
        obtain("facebook/musicgen-small", [tmp_path], quiet)


def test_offline_says_what_to_put_where(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError) as error:
        obtain("facebook/musicgen-small", [tmp_path], quiet)
    for words in ("HF_HUB_OFFLINE", "state_dict.bin", "https://huggingface.co/facebook/musicgen-small", str(tmp_path)):
        assert words in str(error.value)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.transport.names["huggingface.co"] = [[]]
    with pytest.raises(
        CheckpointError, match=r"cannot be reached.*Download compression_state_dict\.bin and state_dict"
    ):
        obtain("facebook/musicgen-small", [tmp_path], quiet)
    assert hub.requests == []


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", "hf_SECRET")
    obtain("facebook/musicgen-small", [tmp_path], quiet)
    seen = {host: headers.get("Authorization") for _, host, _, headers in hub.requests}
    assert seen == {"huggingface.co": "Bearer hf_SECRET", "cas-bridge.xethub.hf.co": None}
    assert "SECRET" not in caplog.text


def test_a_mirror_of_the_user_s_own_may_be_inside_the_house(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.lan:8080/")
    hub.transport.names["mirror.lan"] = [["192.168.1.5"]]
    obtain("facebook/musicgen-small", [tmp_path], quiet)
    assert ("mirror.lan", 8080, "192.168.1.5", False) in hub.transport.connected
    with pytest.raises(CheckpointError, match="only https://"):
        fetch_url("http://mirror.lan:8080/a.tar", tmp_path, quiet)


def test_names_and_addresses_come_through_one_door(hub, tmp_path):
    assert obtain_weights(URL, [tmp_path], quiet).read_bytes() == DATA
    assert obtain_weights("facebook/musicgen-small", [tmp_path], quiet).is_dir()
    with pytest.raises(CheckpointError, match="no folder of models"):
        obtain_weights(URL, [], quiet)
    with pytest.raises(CheckpointError, match="no model 'gone'"):
        obtain_weights("gone", [tmp_path], quiet)


def test_what_is_there_is_not_downloaded_again(hub, toys, tmp_path):
    folder = tmp_path / "facebook" / "musicgen-small"
    folder.mkdir(parents=True)
    shutil.copy(toys(**SMALL) / "compression_state_dict.bin", folder)
    fetch_repository("facebook/musicgen-small", tmp_path, quiet)
    assert [path for method, _, path, _ in hub.requests if method == "GET" and "compression" in path] == []
    assert (folder / "state_dict.bin").is_file()


def test_a_named_codec_is_downloaded_when_the_model_is_loaded(hub, toys, tmp_path):
    other = toys(**SMALL, format="huggingface")
    tensors = load_file(other / "model.safetensors")
    codec = {name[14:]: tensor for name, tensor in tensors.items() if name.startswith("audio_encoder.")}
    settings = json.loads((other / "config.json").read_text())["audio_encoder"]
    publish(hub, CODEC, {"model.safetensors": save(codec), "config.json": json.dumps(settings).encode()})
    folder = Path(shutil.copytree(toys(**SMALL), tmp_path / "mine"))
    torch.save({"pretrained": CODEC, "exported": True}, folder / "compression_state_dict.bin")
    with pytest.raises(CheckpointError, match="which was not found"):
        loading.load(folder, model_dirs=[tmp_path])
    loaded = loading.load(folder, model_dirs=[tmp_path], on_download=quiet)
    assert loaded.config.codec.n_codebooks == 4
    assert (tmp_path / CODEC / "model.safetensors").is_file() and (tmp_path / CODEC / "config.json").is_file()


def test_the_loader_node_downloads_with_progress_and_cancel(hub, toys, tmp_path, monkeypatch):
    loader, name = NODES["MusicGenLoader"], "facebook/musicgen-small"
    monkeypatch.setattr(host, "model_dirs", lambda: [tmp_path])
    monkeypatch.setattr(host, "text_encoder_dirs", lambda: [tmp_path / "encoders"])
    shutil.copytree(toys(**SMALL) / "text_encoder", tmp_path / "encoders" / "t5-small")
    assert name in loader.INPUT_TYPES()["required"]["model"][0] and loader.VALIDATE_INPUTS(model=name) is True
    monkeypatch.setattr(host, "progress", lambda: cancel_at(300_000))
    with pytest.raises(Cancelled):
        loader().load(name, "float32")
    left = [
        name for name in files_in(tmp_path / "facebook") if name not in (".download.json", "compression_state_dict.bin")
    ]
    assert all(name.endswith(".part") for name in left)
    steps = []
    monkeypatch.setattr(host, "progress", lambda: lambda *step: steps.append(step))
    model, _, codec = loader().load(name, "float32")
    assert model.module.config.name == name and codec.module.config.n_codebooks == 4
    assert steps[-1][0] == steps[-1][1] > 100_000


def test_the_fine_tune_node_downloads_from_an_address(hub, toys, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "model_dirs", lambda: [tmp_path])
    package = torch.load(toys(**SMALL, seed=1) / "state_dict.bin", weights_only=True)
    torch.save({"xp.cfg": package["xp.cfg"], "model": package["best_state"]}, tmp_path / "file")
    hub.files["/pbxt/abc/trained_model.tar"] = (tmp_path / "file").read_bytes()
    base = loading.load(toys(**SMALL), "float32")
    managed = host.Managed(base.model, "model"), host.Managed(base.conditioner, "text_encoder")
    node = NODES["MusicGenFineTune"]
    model, _ = node().apply(*managed, URL, 1.0)
    alone = loading.load(toys(**SMALL, seed=1), "float32").model.state_dict()
    assert all(torch.equal(tensor, alone[name]) for name, tensor in model.module.state_dict().items())
    assert node.IS_CHANGED(weights=URL) == node.IS_CHANGED(weights=URL)
