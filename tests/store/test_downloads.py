"""Published models: downloaded when they are asked for, all of one commit, with the hub's checksums."""

import functools
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.errors import CheckpointError, DependencyError
from comfyui_musicgen.musicgen.store import ModelStore, transfer
from comfyui_musicgen.musicgen.store.published import CODEC, REVISIONS
from comfyui_musicgen.musicgen.store.web import Web
from comfyui_musicgen.nodes import host
from comfyui_musicgen.nodes import loader as loader_nodes
from comfyui_musicgen.tests.store.web_site import (
    DATA,
    PATH,
    URL,
    Cancelled,
    cancel_after,
    cancel_at,
    files_in,
    quiet,
    ranges,
)  # fmt: skip
from safetensors.torch import load_file, save

ROOT = Path(__file__).resolve().parents[2]
NAME = "facebook/musicgen-small"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


def publish(site, name, files, commit=COMMIT):
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
def hub(site, toys, monkeypatch):
    """The site as a mirror of the hub, on this machine and without TLS, with a small musicgen-small on it."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    folder = toys(**SMALL)
    names = ("state_dict.bin", "compression_state_dict.bin")
    publish(site, NAME, {name: (folder / name).read_bytes() for name in names})
    return site


@pytest.fixture
def store(hub, tmp_path):
    return ModelStore([tmp_path], network=hub.network)


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
    with pytest.raises(CheckpointError, match="no model 'gone'"):
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


# --- foreign answers of a hub, Cancel, and two at once


class Interrupted(BaseException):
    """ComfyUI's own interruption is no Exception."""


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, OSError, TimeoutError, ValueError])
@pytest.mark.parametrize("trouble", ["at once", "on the way", "while it is silent", "while it is slow", "checksum"])
def test_what_the_callback_raises_comes_through_unchanged(hub, store, error, trouble):
    raised = error("cancelled")
    begun, seen = time.monotonic(), []
    hub.silent_after = 10_000 if trouble == "while it is silent" else None
    hub.slow = trouble == "while it is slow"

    def on_step(done, total):
        seen.append(done)
        late = time.monotonic() > begun + 0.3
        if {"at once": True, "on the way": done > 1000, "checksum": seen.count(done) > 1 and done > 1000}.get(
            trouble, late
        ):
            raise raised

    with pytest.raises(error) as caught:
        store.ensure(NAME, on_step)
    assert caught.value is raised and time.monotonic() - begun < (0.8 if "while" in trouble else 20)


@pytest.mark.parametrize("silent_after", [-1, 10_000])
def test_cancel_is_heard_behind_a_proxy_too(hub, store, site, monkeypatch, silent_after):
    monkeypatch.setenv("HTTPS_PROXY", site.url)
    hub.silent_after = silent_after
    start = time.monotonic()
    with pytest.raises(Cancelled):
        store.ensure(URL, cancel_after(0.3), "weights")
    assert time.monotonic() - start < 0.3 + 0.5


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Linked-Size", "9" * 5000), ("X-Linked-Size", "-1"), ("X-Linked-Size", "x"), ("X-Linked-Etag", '"' + "f" * 5000),
        ("X-Repo-Commit", "f" * 5000), ("X-Repo-Commit", "../../x"),
    ],
)  # fmt: skip
def test_a_hub_that_says_nonsense_is_an_error_of_ours(hub, store, tmp_path, header, value):
    for headers in hub.headers.values():
        headers[header] = value
    with pytest.raises(CheckpointError):
        store.ensure(NAME, quiet)
    assert all(name == ".download.json" for name in files_in(tmp_path))


@pytest.mark.parametrize(
    "location", ["https://[::1", "https://[::1]/a", "https://a:b:c/", "https://\xff/", "//", "\x01"]
)
def test_a_hub_that_leads_to_no_address_is_an_error_of_ours(hub, store, location):
    for path in hub.redirects:
        hub.redirects[path] = location
    with pytest.raises(CheckpointError):
        store.ensure(NAME, quiet)


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x"])
def test_a_hub_whose_lengths_are_no_numbers_is_an_error_of_ours(hub, store, length):
    for path in hub.files:
        hub.lengths[path] = length
    with pytest.raises(CheckpointError):
        store.ensure(NAME, quiet)


NO_NAMES = [None, 5, 2.5, True, b"mine", ["mine"], {"a": 1}, object(), "x" * 5000, "x/" * 2500, "\ud800", "a\0b"]


@pytest.mark.parametrize("kind", ["model", "weights", "diffusion"])
@pytest.mark.parametrize("name", NO_NAMES, ids=lambda name: ascii(name)[:20])
@pytest.mark.parametrize("allow_paths", [True, False])
def test_names_of_any_type_and_length_are_explained(tmp_path, kind, name, allow_paths):
    store = ModelStore([tmp_path], allow_paths=allow_paths)
    for attempt in (store.find, store.check, lambda name, kind: store.ensure(name, quiet, kind)):
        with pytest.raises(CheckpointError, match="name") as error:
            attempt(name, kind)
        assert len(str(error.value)) < 1000
        str(error.value).encode()


DOWNLOADER = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from musicgen.store import transfer, web
    class Local(web.Network):
        pauses_s = (0.0,)
    remote = transfer.Remote(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    steps = []
    transfer.fetch(web.Web([], sys.argv[2], Local()), remote, transfer.Path(sys.argv[5]), steps.append)
    print(len(steps), "steps")
"""


def downloader(site, target, digest):
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(DOWNLOADER),
        str(ROOT),
        f"{site.url}{PATH}",
        str(len(DATA)),
        digest,
    ]
    return subprocess.Popen([*command, str(target)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_download_one_file_once(site, tmp_path):
    """Both appended to one part, which was then too long, or damaged."""
    digest = hashlib.sha256(DATA).hexdigest()
    site.silent_after = 1_000_000
    processes = [downloader(site, tmp_path / "a.bin", digest) for _ in range(2)]
    end = time.monotonic() + 60
    while not site.requests and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1)
    assert len(ranges(site)) == 1, "the second one waits"
    site.silent_after = None
    site.woken.set()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert (tmp_path / "a.bin").read_bytes() == DATA and files_in(tmp_path) == ["a.bin"]
    assert ranges(site) == [None, "bytes=1000000-"], "what arrived was kept, by whichever process goes on"


def test_the_part_of_a_killed_process_is_resumed(site, tmp_path):
    digest = hashlib.sha256(DATA).hexdigest()
    site.silent_after = 1_000_000
    with downloader(site, tmp_path / "a.bin", digest) as process:
        part = tmp_path / next(iter(wait_until(lambda: files_in(tmp_path))))
        wait_until(lambda: part.stat().st_size == 1_000_000)
        process.kill()
    site.silent_after = None
    with downloader(site, tmp_path / "a.bin", digest) as process:
        assert process.wait(60) == 0, process.stderr.read()
    assert (tmp_path / "a.bin").read_bytes() == DATA and files_in(tmp_path) == ["a.bin"]
    assert ranges(site)[-1] == "bytes=1000000-"


def test_a_part_of_another_version_is_removed_unless_it_is_being_downloaded(site, tmp_path):
    (tmp_path / ".a.bin.0123456789ab.part").write_bytes(b"old")
    site.silent_after = 1_000_000
    with downloader(site, tmp_path / "a.bin", "1" * 64) as other:
        wait_until(lambda: any(path.stat().st_size == 1_000_000 for path in tmp_path.iterdir()))
        assert len(files_in(tmp_path)) == 1
        (part,) = tmp_path.iterdir()
        site.silent_after = None
        with downloader(site, tmp_path / "a.bin", hashlib.sha256(DATA).hexdigest()) as process:
            assert process.wait(60) == 0, process.stderr.read()
        assert sorted(files_in(tmp_path)) == sorted([part.name, "a.bin"])
        other.kill()


def test_cancel_is_heard_while_another_process_downloads(site, tmp_path):
    site.silent_after = 1_000_000
    with downloader(site, tmp_path / "a.bin", "") as other:
        wait_until(lambda: any(path.stat().st_size == 1_000_000 for path in tmp_path.iterdir()))
        remote, web = transfer.Remote(f"{site.url}{PATH}", len(DATA)), Web([], site.url)
        start, heard = time.monotonic(), cancel_after(0.3)
        with pytest.raises(Cancelled):
            transfer.fetch(web, remote, tmp_path / "a.bin", lambda done: heard(done, done))
        assert time.monotonic() - start < 0.8
        other.kill()


def wait_until(condition):
    end = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value
