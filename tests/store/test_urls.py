"""Weights by their address: resumed, checked, and never from elsewhere than allowed."""

import logging
import os
import shutil
import time

import pytest
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.musicgen.store.urls import MAX_BYTES, file_of
from comfyui_musicgen.musicgen.store.web import is_public
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


@pytest.fixture
def fetch(site, tmp_path):
    """The file of an address, through the store of a folder."""
    store = ModelStore([tmp_path], network=site.network)
    return lambda on_step=quiet, url=URL: store.ensure(url, on_step, "weights")


# --- weights by their address


def test_an_address_is_downloaded_once(site, fetch, tmp_path):
    steps = []
    path = fetch(lambda *step: steps.append(step))
    assert path.read_bytes() == DATA
    assert path.parent == tmp_path / "downloads" and path.name.endswith("-trained_model.tar")
    assert steps[0] == (0, len(DATA)) and steps[-1] == (len(DATA), len(DATA)) and steps == sorted(steps)
    n = len(site.requests)
    assert fetch() == path and len(site.requests) == n
    assert site.network.connected[0] == ("93.184.216.34", 443) and site.network.secured[0] == "replicate.delivery"
    assert file_of(URL.replace("abc", "abd"), tmp_path) != path


def test_cancel_leaves_the_part_and_the_next_call_goes_on(site, fetch, tmp_path):
    with pytest.raises(Cancelled):
        fetch(cancel_at(2_000_000))
    (part,) = (tmp_path / "downloads").iterdir()
    there = part.stat().st_size
    assert part.name.startswith(".") and part.name.endswith(".part") and 2_000_000 <= there < len(DATA)
    site.requests.clear()
    path = fetch()
    assert path.read_bytes() == DATA and files_in(tmp_path) == [path.name]
    assert ranges(site)[-1] == f"bytes={there}-"


def test_a_connection_that_breaks_is_taken_up_again(site, fetch, tmp_path):
    site.cut_after = [0, 1_000_000, 1_500_000, 100]  # the first answer is only looked at
    assert fetch().read_bytes() == DATA
    assert [r for r in ranges(site) if r][:2] == ["bytes=1000000-", "bytes=2500000-"]


def test_one_that_breaks_forever_is_an_error_that_keeps_what_arrived(site, fetch, tmp_path):
    site.cut_after = [0, 1_000_000, *[0] * 20]
    with pytest.raises(CheckpointError, match=r"broke off at 1000000 of \d+ bytes.*try again to go on") as error:
        fetch()
    assert "SECRET" not in str(error.value) and str(error.value).count("https://replicate.delivery/pbxt") == 1
    (part,) = (tmp_path / "downloads").iterdir()
    assert part.stat().st_size == 1_000_000
    site.cut_after = []
    assert fetch().read_bytes() == DATA


def test_passing_troubles_of_the_server_are_waited_for(site, fetch, tmp_path):
    site.statuses = [None, 503, 429]  # the first answer is only looked at
    assert fetch().read_bytes() == DATA
    assert len(site.requests) == 4


@pytest.mark.parametrize(("status", "words"), [(403, "expired"), (404, "no such file"), (401, "HF_TOKEN")])
def test_a_server_that_refuses_is_quoted(site, fetch, tmp_path, status, words):
    site.statuses = [status]
    with pytest.raises(CheckpointError, match=words) as error:
        fetch()
    assert str(status) in str(error.value) and "SECRET" not in str(error.value)
    assert files_in(tmp_path) == []


def test_a_server_without_ranges_sends_all_again(site, fetch, tmp_path):
    with pytest.raises(Cancelled):
        fetch(cancel_at(2_000_000))
    site.ranges = False
    assert fetch().read_bytes() == DATA


def test_a_file_that_changed_in_between_is_never_mixed(site, fetch, tmp_path):
    with pytest.raises(Cancelled):
        fetch(cancel_at(2_000_000))
    newer = DATA[:4] + bytes(reversed(DATA[4:]))
    site.files[PATH] = newer
    site.headers[PATH] = {"ETag": '"v2"'}
    path = fetch()
    assert path.read_bytes() == newer and files_in(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("length", "words"), [(MAX_BYTES + 1, "more than any checkpoint"), (None, "how large"), (0, "how large")]
)
def test_files_too_large_or_of_unknown_size_are_refused(site, fetch, tmp_path, length, words):
    site.lengths[PATH] = length
    with pytest.raises(CheckpointError, match=words):
        fetch()
    assert files_in(tmp_path) == []


def test_a_server_never_fills_the_disk_with_more_than_it_announced(site, fetch, tmp_path):
    site.lengths[PATH] = 1000
    assert fetch().stat().st_size == 1000


def test_a_page_instead_of_a_file_is_refused_and_removed(site, fetch, tmp_path):
    site.files[PATH] = b"<!DOCTYPE html><html>" + b"x" * 500
    with pytest.raises(CheckpointError, match="is no checkpoint.*not that of a page"):
        fetch()
    assert files_in(tmp_path) == []


def test_too_little_space_is_noticed_before_and_while(site, fetch, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 10**6))
    with pytest.raises(CheckpointError, match=r"0\.01 GB are still needed, 0\.00 GB are free"):
        fetch()
    assert files_in(tmp_path) == []
    monkeypatch.undo()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="disk is too full.*what has arrived is kept"):
        fetch()
    assert [name for name in files_in(tmp_path) if not name.endswith(".part")] == []


def test_nothing_secret_is_logged(site, fetch, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    site.cut_after = [0, 1_000_000]
    fetch()
    assert "replicate.delivery/pbxt" in caplog.text and "SECRET" not in caplog.text and "token" not in caplog.text


# --- where from


REFUSED = {
    "no TLS": ("http://huggingface.co/a.tar", "only https://"),
    "file": ("file:///etc/passwd", "only https://"),
    "ftp": ("ftp://huggingface.co/a", "only https://"),
    "unknown host": ("https://example.com/a.tar", r"example\.com is not on the list.*hosts\.txt"),
    "look-alike": ("https://huggingface.co.evil.com/a", "not on the list"),
    "suffix": ("https://evilhf.co/a", "not on the list"),
    "user name": ("https://huggingface.co@evil.com/a", "user name"),
    "password": ("https://me:secret@huggingface.co/a", "user name"),
    "port": ("https://huggingface.co:8443/a", "port 443"),
    "bad port": ("https://huggingface.co:99999/a", "no usable"),
    "backslash": ("https://huggingface.co\\@evil.com/a", "user name|no proper host|not on the list"),
    "address": ("https://127.0.0.1/a", "not on the list"),
    "IPv6": ("https://[::1]/a", "no proper host"),
    "no host": ("https:///a", "no proper host"),
    "number": ("https://2130706433/a", "not on the list"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_addresses_are_refused_without_asking_anybody(site, fetch, tmp_path, kind):
    url, words = REFUSED[kind]
    for attempt in (lambda: fetch(url=url), lambda: ModelStore([tmp_path]).check(url, "weights")):
        with pytest.raises(CheckpointError, match=words) as error:
            attempt()
        assert "secret" not in str(error.value)
    assert site.network.connected == [] and files_in(tmp_path) == []


def test_the_user_extends_the_list_in_a_file(site, fetch, tmp_path):
    (tmp_path / "hosts.txt").write_text("# mine\nExample.com  # and this\n\n*.studio.kr\n", encoding="utf-8-sig")
    for url in (
        "https://example.com/a",
        "https://a.b.studio.kr/a",
        "https://huggingface.co/a",
        "https://cdn-lfs.hf.co/a",
    ):
        ModelStore([tmp_path]).check(url, "weights")
    for url in ("https://sub.example.com/a", "https://studio.kr/a", "https://notstudio.kr/a"):
        with pytest.raises(CheckpointError, match="not on the list"):
            ModelStore([tmp_path]).check(url, "weights")
    (tmp_path / "hosts.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CheckpointError, match="UTF-8"):
        ModelStore([tmp_path]).check("https://example.com/a", "weights")


REDIRECTS = {
    "to http": ("http://replicate.delivery/b", "only https://"),
    "to another host": ("https://evil.com/b", "not on the list"),
    "to a private address": (
        "https://storage.googleapis.com/b",
        "10.0.0.7, an address that is not on the public internet",
    ),
    "in a circle": (PATH, "without end"),
}


@pytest.mark.parametrize("kind", REDIRECTS)
def test_redirects_are_checked_like_the_first_address(site, fetch, tmp_path, kind):
    location, words = REDIRECTS[kind]
    site.network.names["storage.googleapis.com"] = [["10.0.0.7"]]
    site.redirects[PATH] = location
    with pytest.raises(CheckpointError, match=words):
        fetch()
    assert set(site.network.secured) == {"replicate.delivery"}
    assert files_in(tmp_path) == []


def test_good_redirects_are_followed_and_resumed(site, fetch, tmp_path):
    site.files["/b"] = site.files.pop(PATH)
    site.redirects[PATH] = "https://cdn-lfs.huggingface.co/b?signature=x"
    with pytest.raises(Cancelled):
        fetch(cancel_at(2_000_000))
    assert fetch().read_bytes() == DATA


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.216.34", "192.168.1.1"], ["::1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"]]
)
def test_names_that_stand_for_private_addresses_are_refused(site, fetch, tmp_path, addresses):
    site.network.names["replicate.delivery"] = [addresses]
    with pytest.raises(CheckpointError, match="not on the public internet"):
        fetch()
    assert site.network.connected == []


def test_the_address_that_was_checked_is_the_one_connected_to(site, fetch, tmp_path):
    """A name server that answers otherwise the second time gains nothing: each answer is checked, and used as it is."""
    site.network.names["replicate.delivery"] = [["93.184.216.34"], ["169.254.169.254"]]
    with pytest.raises(CheckpointError, match=r"169\.254\.169\.254"):
        fetch()
    assert site.network.connected == [("93.184.216.34", 443)]


PUBLIC = ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822", "::ffff:93.184.216.34")
PRIVATE = (
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("255.255.255.255", "240.0.0.1", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1"),
    *("64:ff9b::7f00:1", "2002:7f00:1::", "2002:c0a8:1::1", "nonsense", ""),
)


def test_public_and_private_addresses_are_told_apart():
    assert [address for address in PUBLIC if not is_public(address)] == []
    assert [address for address in PRIVATE if is_public(address)] == []


def test_numbers_and_local_names_are_no_public_hosts(tmp_path):
    hosts = ("127.0.0.1", "127.1", "2130706433", "localhost", "a.localhost", "10.0.0.1")
    (tmp_path / "hosts.txt").write_text("\n".join(hosts))
    for host in hosts:
        with pytest.raises(CheckpointError, match="not on the public internet"):
            ModelStore([tmp_path]).check(f"https://{host}/a", "weights")


# --- proxies of the environment


def test_a_proxy_of_the_environment_is_used(site, fetch, monkeypatch):
    """It resolves the names; what they stand for is its own affair."""
    monkeypatch.setenv("HTTPS_PROXY", site.url)
    site.network.names["replicate.delivery"] = [["10.0.0.7"]]
    assert fetch().read_bytes() == DATA
    assert site.requests[0][:2] == ("CONNECT", "replicate.delivery:443") and site.network.connected == []
    assert set(site.network.secured) == {"replicate.delivery"}, "TLS is with the server, not with the proxy"


def test_no_proxy_is_honoured(site, fetch, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", ".delivery")
    assert fetch().read_bytes() == DATA


def test_a_proxy_leads_to_no_other_hosts(site, fetch, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", site.url)
    (tmp_path / "hosts.txt").write_text("169.254.169.254")
    for url, words in (("https://evil.com/a", "not on the list"), ("https://169.254.169.254/a", "public internet")):
        site.redirects[PATH] = url
        with pytest.raises(CheckpointError, match=words):
            fetch()
    assert {path for method, path, *_ in site.requests if method == "CONNECT"} == {"replicate.delivery:443"}


def test_a_proxy_that_is_not_there_is_named_as_the_cause(site, fetch, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with pytest.raises(CheckpointError, match="cannot be downloaded.*refused"):
        fetch()


# --- Cancel, and servers that keep silent


def silent_from_the_start(site):
    site.silent_after = -1


def silent_in_the_middle(site):
    site.silent_after = 1_000_000


def slow(site):
    site.slow = True


def slow_name_server(site):
    site.network.look_up_s = 5


@pytest.mark.parametrize("trouble", [silent_from_the_start, silent_in_the_middle, slow, slow_name_server])
def test_cancel_takes_half_a_second(site, fetch, trouble):
    trouble(site)
    start = time.monotonic()
    with pytest.raises(Cancelled):
        fetch(cancel_after(0.3))
    assert time.monotonic() - start < 0.3 + 0.5


def test_what_arrived_from_a_slow_server_is_kept(site, fetch, tmp_path):
    site.silent_after = 1_000_000
    with pytest.raises(Cancelled):
        fetch(cancel_after(0.5))
    (part,) = (tmp_path / "downloads").iterdir()
    assert part.stat().st_size == 1_000_000
    site.silent_after = None
    assert fetch().read_bytes() == DATA and ranges(site)[-1] == "bytes=1000000-"


def test_a_silent_server_is_given_up(site, fetch):
    site.silent_after, site.network.timeout_s = -1, 0.2
    with pytest.raises(CheckpointError, match="cannot be downloaded.*timed out"):
        fetch()


# --- answers that Python's own libraries stumble over


@pytest.mark.parametrize("location", ["https://[::1", "https://[::1]/a", "https://a:b:c/", "https://\xff/"])
def test_redirects_to_no_address_are_refused(site, fetch, location):
    site.redirects[PATH] = location
    with pytest.raises(CheckpointError, match=r"no usable web address|not on the list|no proper host"):
        fetch()


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x", "\u00b2"])
def test_lengths_that_are_no_numbers_are_refused(site, fetch, length):
    site.lengths[PATH] = length
    with pytest.raises(CheckpointError, match="how large|more than any"):
        fetch()


def test_ranges_that_are_no_numbers_are_refused(site, fetch):
    with pytest.raises(Cancelled):
        fetch(cancel_at(2_000_000))
    site.ranges, site.headers[PATH] = False, {"ETag": '"v1"', "Content-Range": f"bytes {'9' * 5000}-1/1"}
    site.partial = True
    with pytest.raises(CheckpointError, match="another part of the file"):
        fetch()


@pytest.mark.parametrize(
    "url", ["https://huggingface.co/\ud800", "https://" + "a" * 5000 + ".hf.co/x", "https://hf.co\0/"]
)
def test_addresses_that_no_server_can_have_are_refused(fetch, url):
    with pytest.raises(CheckpointError, match="no usable web address|no proper host|not on the list"):
        fetch(url=url)
