"""Published models: downloaded when they are asked for, all of one commit, with the hub's checksums."""

import functools
import hashlib
import json
import logging
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.errors import CheckpointError, DependencyError
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.musicgen.store.published import CODEC, REVISIONS
from comfyui_musicgen.nodes import host
from comfyui_musicgen.nodes import loader as loader_nodes
from comfyui_musicgen.tests.store.web_site import (
    COMMIT,
    DATA,
    NAME,
    PATH,
    SMALL,
    URL,
    Cancelled,
    cancel_after,
    cancel_at,
    files_in,
    publish,
    quiet,
    ranges,
)  # fmt: skip
from safetensors.torch import load_file, save


def test_a_known_name_is_downloaded_and_loaded(hub, store, toys, tmp_path, monkeypatch):
    steps = []
    path = store.ensure(NAME, lambda *step: steps.append(step))
    assert path == tmp_path / "facebook" / "musicgen-small"
    assert files_in(tmp_path) == [".download.json", "compression_state_dict.bin", "state_dict.bin"]
    for name in ("state_dict.bin", "compression_state_dict.bin"):
        assert (path / name).read_bytes() == (toys(**SMALL) / name).read_bytes()
    total = sum((path / name).stat().st_size for name in ("state_dict.bin", "compression_state_dict.bin"))
    assert steps[-1] == (total, total) and [s[0] for s in steps] == sorted(s[0] for s in steps)
    record = json.loads((path / ".download.json").read_text())
    assert record["repository"] == NAME and record["commit"] == COMMIT
    assert (
        record["files"]["state_dict.bin"]["checksum"]
        == hashlib.sha256((path / "state_dict.bin").read_bytes()).hexdigest()
    )
    n = len(hub.requests)
    assert store.ensure(NAME, quiet) == path and len(hub.requests) == n


def test_all_files_are_of_the_commit_that_main_was_at_the_beginning(hub, store, tmp_path, monkeypatch):
    with pytest.raises(Cancelled):
        store.ensure(NAME, cancel_at(400_000))
    moved = "f" * 40
    for path in [path for path in hub.headers if "/main/" in path]:
        hub.headers[path] = {**hub.headers[path], "X-Repo-Commit": moved}
    hub.requests.clear()
    store.ensure(NAME, quiet)
    asked = [path for _, _, path, _ in hub.requests if "/resolve/" in path]
    assert asked and all(COMMIT in path for path in asked)


def test_a_pinned_revision_is_the_one_that_is_fetched(hub, store, tmp_path, monkeypatch):
    monkeypatch.setitem(REVISIONS, NAME, COMMIT)
    store.ensure(NAME, quiet)
    assert not [path for _, _, path, _ in hub.requests if "/main/" in path]


def test_a_wrong_checksum_is_thrown_away(hub, store, tmp_path):
    for path in [path for path in hub.files if len(path) == 65]:
        hub.files[path] = b"x" * len(hub.files[path])
    with pytest.raises(CheckpointError, match="arrived damaged"):
        store.ensure(NAME, quiet)
    assert files_in(tmp_path) == [".download.json"]


@pytest.mark.parametrize("lacking", ["X-Repo-Commit", "X-Linked-Etag"])
def test_a_server_without_checksums_is_no_hub(hub, store, tmp_path, lacking):
    for headers in hub.headers.values():
        headers.pop(lacking, None)
    with pytest.raises(CheckpointError, match="does not say of which commit|no size and checksum"):
        store.ensure(NAME, quiet)


def test_offline_says_what_to_put_where(hub, store, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_ENDPOINT")
    with pytest.raises(CheckpointError) as error:
        store.ensure(NAME, quiet)
    for words in ("HF_HUB_OFFLINE", "state_dict.bin", "https://huggingface.co/facebook/musicgen-small", str(tmp_path)):
        assert words in str(error.value)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(
        CheckpointError, match=r"cannot be reached.*Download compression_state_dict\.bin and state_dict"
    ):
        store.ensure(NAME, quiet)
    assert hub.requests == []


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, store, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", "hf_SECRET")
    store.ensure(NAME, quiet)
    seen = {
        (host, {k.lower(): v for k, v in headers.items()}.get("authorization")) for _, host, _, headers in hub.requests
    }
    assert seen == {(hub.url.removeprefix("http://"), "Bearer hf_SECRET"), ("cas-bridge.xethub.hf.co", None)}
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("comfyui_musicgen")]
    assert ours and "SECRET" not in " ".join(ours) and "hf_SECRET" not in caplog.text


def test_a_mirror_is_trusted_with_what_it_publishes_only(hub, store):
    assert store.ensure(NAME, quiet).is_dir() and hub.requests[0][1] in hub.url
    with pytest.raises(CheckpointError, match="only https://"):
        store.ensure(f"{hub.url}/a.tar", quiet, "weights")


@pytest.mark.parametrize("kind", ["model", "weights"])
def test_a_mirror_leads_to_no_private_address(hub, store, kind):
    hub.network.names["cas-bridge.xethub.hf.co"] = [["10.0.0.7"]]
    with pytest.raises(CheckpointError, match="not on the public internet"):
        store.ensure(NAME, quiet, kind)


REFUSALS = {
    "gated": (401, {"X-Error-Code": "GatedRepo"}, "accept its licence at http.*/facebook/musicgen-small.*HF_TOKEN"),
    "no access": (403, {"X-Error-Code": "GatedRepo"}, "accept its licence at http.*/facebook/musicgen-small.*HF_TOKEN"),
    "private": (401, {"X-Error-Code": "RepoNotFound"}, "does not exist or is private.*HF_TOKEN"),
    "no file": (404, {"X-Error-Code": "EntryNotFound"}, "404 .there is no such file"),
    "broken": (500, {}, "500"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_hub_that_refuses_is_explained(hub, store, kind, tmp_path):
    status, headers, words = REFUSALS[kind]
    hub.refusal = status
    for path in list(hub.redirects):
        hub.headers[path] = headers
    with pytest.raises(CheckpointError, match=words):
        store.ensure(NAME, quiet)
    assert files_in(tmp_path) == []


def test_without_huggingface_hub_it_says_what_to_install(hub, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match="pip install huggingface_hub"):
        store.ensure(NAME, quiet)


def test_an_interrupted_download_goes_on_where_it_stopped(hub, store, tmp_path):
    hub.silent_after = 100_000
    with pytest.raises(Cancelled):
        store.ensure(NAME, cancel_at(100_000))
    hub.silent_after = None
    (part,) = (path for path in tmp_path.rglob("*.part"))
    size = part.stat().st_size
    assert size == 100_000 and not (part.parent / "state_dict.bin").exists()
    hub.requests.clear()
    store.ensure(NAME, quiet)
    assert f"bytes={size}-" in ranges(hub) and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("silent_after", [-1, 10_000])
def test_cancel_takes_half_a_second(hub, store, silent_after):
    store.find("pansori-mini")
    hub.silent_after = silent_after
    start = time.monotonic()
    with pytest.raises(Cancelled):
        store.ensure(NAME, cancel_after(0.3))
    assert time.monotonic() - start < 0.3 + 0.5


def test_names_and_addresses_come_through_one_door(hub, store, tmp_path):
    assert store.ensure(URL, quiet, "weights").read_bytes() == DATA
    assert store.ensure(NAME, quiet, "weights").is_dir()
    with pytest.raises(CheckpointError, match="no folder of models"):
        ModelStore([]).ensure(URL, quiet, "weights")
    with pytest.raises(CheckpointError, match="no fine-tune 'gone'"):
        store.ensure("gone", quiet, "weights")


def test_what_is_there_is_not_downloaded_again(hub, store, toys, tmp_path):
    folder = tmp_path / "facebook" / "musicgen-small"
    folder.mkdir(parents=True)
    shutil.copy(toys(**SMALL) / "compression_state_dict.bin", folder)
    store.ensure(NAME, quiet)
    assert [path for method, _, path, _ in hub.requests if method == "GET" and "compression" in path] == []
    assert (folder / "state_dict.bin").is_file()


def test_a_named_codec_is_downloaded_when_the_model_is_loaded(hub, store, toys, tmp_path):
    other = toys(**SMALL, format="huggingface")
    tensors = load_file(other / "model.safetensors")
    codec = {name[14:]: tensor for name, tensor in tensors.items() if name.startswith("audio_encoder.")}
    settings = json.loads((other / "config.json").read_text())["audio_encoder"]
    publish(hub, CODEC, {"model.safetensors": save(codec), "config.json": json.dumps(settings).encode()})
    folder = Path(shutil.copytree(toys(**SMALL), tmp_path / "mine"))
    torch.save({"pretrained": CODEC, "exported": True}, folder / "compression_state_dict.bin")
    with pytest.raises(CheckpointError, match="which was not found"):
        loading.load(folder, store=store)
    loaded = loading.load(folder, store=store, on_download=quiet)
    assert loaded.config.codec.n_codebooks == 4
    assert (tmp_path / CODEC / "model.safetensors").is_file() and (tmp_path / CODEC / "config.json").is_file()


def test_the_loader_node_downloads_with_progress_and_cancel(hub, toys, tmp_path, monkeypatch):
    loader, name = NODES["MusicGenLoader"], NAME
    monkeypatch.setattr(host, "model_dirs", lambda: [tmp_path])
    monkeypatch.setattr(loader_nodes, "ModelStore", functools.partial(ModelStore, network=hub.network))
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


def test_the_fine_tune_node_downloads_from_an_address(hub, store, toys, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "model_dirs", lambda: [tmp_path])
    monkeypatch.setattr(loader_nodes, "ModelStore", functools.partial(ModelStore, network=hub.network))
    package = torch.load(toys(**SMALL, seed=1) / "state_dict.bin", weights_only=True)
    torch.save({"xp.cfg": package["xp.cfg"], "model": package["best_state"]}, tmp_path / "file")
    hub.files[PATH] = (tmp_path / "file").read_bytes()
    base = loading.load(toys(**SMALL), "float32")
    managed = host.Managed(base.model, "model"), host.Managed(base.conditioner, "text_encoder")
    node = NODES["MusicGenFineTune"]
    model, _ = node().apply(*managed, URL, 1.0)
    alone = loading.load(toys(**SMALL, seed=1), "float32").model.state_dict()
    assert all(torch.equal(tensor, alone[name]) for name, tensor in model.module.state_dict().items())
    assert node.IS_CHANGED(weights=URL) == node.IS_CHANGED(weights=URL)
