"""Downloads that are cancelled, killed, told nonsense, or run twice at once."""

import contextlib
import hashlib
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.store import ModelStore, transfer
from comfyui_musicgen.musicgen.store.web import Web
from comfyui_musicgen.tests.store.web_site import (
    DATA,
    NAME,
    PATH,
    URL,
    Cancelled,
    cancel_after,
    files_in,
    quiet,
    ranges,
)  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]


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
        wait_until(lambda: sizes_in(tmp_path) == [1_000_000])
        (part,) = tmp_path.iterdir()
        site.silent_after = None
        with downloader(site, tmp_path / "a.bin", hashlib.sha256(DATA).hexdigest()) as process:
            assert process.wait(60) == 0, process.stderr.read()
        assert sorted(files_in(tmp_path)) == sorted([part.name, "a.bin"])
        other.kill()


def test_cancel_is_heard_while_another_process_downloads(site, tmp_path):
    site.silent_after = 1_000_000
    with downloader(site, tmp_path / "a.bin", "") as other:
        wait_until(lambda: sizes_in(tmp_path) == [1_000_000])
        remote, web = transfer.Remote(f"{site.url}{PATH}", len(DATA)), Web([], site.url)
        start, heard = time.monotonic(), cancel_after(0.3)
        with pytest.raises(Cancelled):
            transfer.fetch(web, remote, tmp_path / "a.bin", lambda done: heard(done, done))
        assert time.monotonic() - start < 0.8
        other.kill()


def sizes_in(folder):
    """Sizes of the files, but of those that are removed meanwhile."""
    sizes = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


def wait_until(condition):
    end = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value
