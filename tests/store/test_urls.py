"""Weights by their address: resumed, checked, and never from elsewhere than allowed."""

import logging
import os
import shutil

import pytest
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.store import transfer, web
from comfyui_musicgen.musicgen.store.urls import MAX_BYTES, cached_file, check_url, fetch_url
from comfyui_musicgen.musicgen.store.web import Web, is_public
from comfyui_musicgen.tests.store.web_site import Cancelled, cancel_at, files_in, quiet, ranges, running

URL = "https://replicate.delivery/pbxt/abc/trained_model.tar?token=SECRET"
DATA = b"PK\x03\x04" + bytes(range(256)) * 20_000  # 5 MB


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


# --- weights by their address


def test_an_address_is_downloaded_once(site, tmp_path):
    steps = []
    path = fetch_url(URL, tmp_path, lambda *step: steps.append(step))
    assert path.read_bytes() == DATA
    assert path.parent == tmp_path / "downloads" and path.name.endswith("-trained_model.tar")
    assert steps[0] == (0, len(DATA)) and steps[-1] == (len(DATA), len(DATA)) and steps == sorted(steps)
    n = len(site.requests)
    assert fetch_url(URL, tmp_path, quiet) == path and len(site.requests) == n
    assert site.transport.connected[0] == ("replicate.delivery", 443, "93.184.216.34", True)
    assert cached_file(URL.replace("abc", "abd"), tmp_path) != path


def test_cancel_leaves_the_part_and_the_next_call_goes_on(site, tmp_path):
    with pytest.raises(Cancelled):
        fetch_url(URL, tmp_path, cancel_at(2_000_000))
    (part,) = (tmp_path / "downloads").iterdir()
    there = part.stat().st_size
    assert part.name.startswith(".") and part.name.endswith(".part") and 2_000_000 <= there < len(DATA)
    site.requests.clear()
    path = fetch_url(URL, tmp_path, quiet)
    assert path.read_bytes() == DATA and files_in(tmp_path) == [path.name]
    assert ranges(site)[-1] == f"bytes={there}-"


def test_a_connection_that_breaks_is_taken_up_again(site, tmp_path):
    site.cut_after = [0, 1_000_000, 1_500_000, 100]  # the first answer is only looked at
    assert fetch_url(URL, tmp_path, quiet).read_bytes() == DATA
    assert [r for r in ranges(site) if r][:2] == ["bytes=1000000-", "bytes=2500000-"]


def test_one_that_breaks_forever_is_an_error_that_keeps_what_arrived(site, tmp_path):
    site.cut_after = [0, 1_000_000, *[0] * 20]
    with pytest.raises(CheckpointError, match=r"broke off at 1000000 of \d+ bytes.*try again to go on") as error:
        fetch_url(URL, tmp_path, quiet)
    assert "SECRET" not in str(error.value) and str(error.value).count("https://replicate.delivery/pbxt") == 1
    (part,) = (tmp_path / "downloads").iterdir()
    assert part.stat().st_size == 1_000_000
    site.cut_after = []
    assert fetch_url(URL, tmp_path, quiet).read_bytes() == DATA


def test_passing_troubles_of_the_server_are_waited_for(site, tmp_path):
    site.statuses = [None, 503, 429]  # the first answer is only looked at
    assert fetch_url(URL, tmp_path, quiet).read_bytes() == DATA
    assert len(site.requests) == 4


@pytest.mark.parametrize(("status", "words"), [(403, "expired"), (404, "no such file"), (401, "HF_TOKEN")])
def test_a_server_that_refuses_is_quoted(site, tmp_path, status, words):
    site.statuses = [status]
    with pytest.raises(CheckpointError, match=words) as error:
        fetch_url(URL, tmp_path, quiet)
    assert str(status) in str(error.value) and "SECRET" not in str(error.value)
    assert files_in(tmp_path) == []


def test_a_server_without_ranges_sends_all_again(site, tmp_path):
    with pytest.raises(Cancelled):
        fetch_url(URL, tmp_path, cancel_at(2_000_000))
    site.ranges = False
    assert fetch_url(URL, tmp_path, quiet).read_bytes() == DATA


def test_a_file_that_changed_in_between_is_never_mixed(site, tmp_path):
    with pytest.raises(Cancelled):
        fetch_url(URL, tmp_path, cancel_at(2_000_000))
    newer = DATA[:4] + bytes(reversed(DATA[4:]))
    site.files["/pbxt/abc/trained_model.tar"] = newer
    site.headers["/pbxt/abc/trained_model.tar"] = {"ETag": '"v2"'}
    path = fetch_url(URL, tmp_path, quiet)
    assert path.read_bytes() == newer and files_in(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("length", "words"), [(MAX_BYTES + 1, "more than any checkpoint"), (None, "how large"), (0, "how large")]
)
def test_files_too_large_or_of_unknown_size_are_refused(site, tmp_path, length, words):
    site.lengths["/pbxt/abc/trained_model.tar"] = length
    with pytest.raises(CheckpointError, match=words):
        fetch_url(URL, tmp_path, quiet)
    assert files_in(tmp_path) == []


def test_a_server_never_fills_the_disk_with_more_than_it_announced(site, tmp_path):
    site.lengths["/pbxt/abc/trained_model.tar"] = 1000
    assert fetch_url(URL, tmp_path, quiet).stat().st_size == 1000


def test_a_page_instead_of_a_file_is_refused_and_removed(site, tmp_path):
    site.files["/pbxt/abc/trained_model.tar"] = b"<!DOCTYPE html><html>" + b"x" * 500
    with pytest.raises(CheckpointError, match="is no checkpoint.*not that of a page"):
        fetch_url(URL, tmp_path, quiet)
    assert files_in(tmp_path) == []


def test_too_little_space_is_noticed_before_and_while(site, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 10**6))
    with pytest.raises(CheckpointError, match=r"0\.01 GB are still needed, 0\.00 GB are free"):
        fetch_url(URL, tmp_path, quiet)
    assert files_in(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setattr(web, "DIRECT", site.transport)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="disk is too full.*what has arrived is kept"):
        fetch_url(URL, tmp_path, quiet)
    assert [name for name in files_in(tmp_path) if not name.endswith(".part")] == []


def test_nothing_secret_is_logged(site, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    site.cut_after = [0, 1_000_000]
    fetch_url(URL, tmp_path, quiet)
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
def test_other_addresses_are_refused_without_asking_anybody(site, tmp_path, kind):
    url, words = REFUSED[kind]
    for attempt in (lambda: fetch_url(url, tmp_path, quiet), lambda: check_url(url, tmp_path)):
        with pytest.raises(CheckpointError, match=words) as error:
            attempt()
        assert "secret" not in str(error.value)
    assert site.transport.connected == [] and files_in(tmp_path) == []


def test_the_user_extends_the_list_in_a_file(site, tmp_path):
    (tmp_path / "hosts.txt").write_text("# mine\nExample.com  # and this\n\n*.studio.kr\n", encoding="utf-8-sig")
    for url in (
        "https://example.com/a",
        "https://a.b.studio.kr/a",
        "https://huggingface.co/a",
        "https://cdn-lfs.hf.co/a",
    ):
        check_url(url, tmp_path)
    for url in ("https://sub.example.com/a", "https://studio.kr/a", "https://notstudio.kr/a"):
        with pytest.raises(CheckpointError, match="not on the list"):
            check_url(url, tmp_path)
    (tmp_path / "hosts.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CheckpointError, match="UTF-8"):
        check_url("https://example.com/a", tmp_path)


REDIRECTS = {
    "to http": ("http://replicate.delivery/b", "only https://"),
    "to another host": ("https://evil.com/b", "not on the list"),
    "to a private address": (
        "https://storage.googleapis.com/b",
        "10.0.0.7, an address that is not on the public internet",
    ),
    "in a circle": ("/pbxt/abc/trained_model.tar", "without end"),
}


@pytest.mark.parametrize("kind", REDIRECTS)
def test_redirects_are_checked_like_the_first_address(site, tmp_path, kind):
    location, words = REDIRECTS[kind]
    site.transport.names["storage.googleapis.com"] = [["10.0.0.7"]]
    site.redirects["/pbxt/abc/trained_model.tar"] = location
    with pytest.raises(CheckpointError, match=words):
        fetch_url(URL, tmp_path, quiet)
    assert {host for host, *_ in site.transport.connected} == {"replicate.delivery"}
    assert files_in(tmp_path) == []


def test_good_redirects_are_followed_and_resumed(site, tmp_path):
    site.files["/b"] = site.files.pop("/pbxt/abc/trained_model.tar")
    site.redirects["/pbxt/abc/trained_model.tar"] = "https://cdn-lfs.huggingface.co/b?signature=x"
    with pytest.raises(Cancelled):
        fetch_url(URL, tmp_path, cancel_at(2_000_000))
    assert fetch_url(URL, tmp_path, quiet).read_bytes() == DATA


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.216.34", "192.168.1.1"], ["::1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"]]
)
def test_names_that_stand_for_private_addresses_are_refused(site, tmp_path, addresses):
    site.transport.names["replicate.delivery"] = [addresses]
    with pytest.raises(CheckpointError, match="not on the public internet"):
        fetch_url(URL, tmp_path, quiet)
    assert site.transport.connected == []


def test_the_address_that_was_checked_is_the_one_connected_to(site, tmp_path):
    """A name server that answers otherwise the second time gains nothing: each answer is checked, and used as it is."""
    site.transport.names["replicate.delivery"] = [["93.184.216.34"], ["169.254.169.254"]]
    with pytest.raises(CheckpointError, match=r"169\.254\.169\.254"):
        fetch_url(URL, tmp_path, quiet)
    assert [address for _, _, address, _ in site.transport.connected] == ["93.184.216.34"]


PUBLIC = ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822", "::ffff:93.184.216.34")
PRIVATE = (
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("255.255.255.255", "240.0.0.1", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1"),
    *("64:ff9b::7f00:1", "2002:7f00:1::", "2002:c0a8:1::1", "nonsense", ""),
)


def test_public_and_private_addresses_are_told_apart():
    assert [address for address in PUBLIC if not is_public(address)] == []
    assert [address for address in PRIVATE if is_public(address)] == []


def test_the_web_is_only_reached_through_the_transport(site, tmp_path):
    response = Web((".hf.co",)).request("https://cdn.hf.co/pbxt/abc/trained_model.tar", {})
    assert response.status == 200 and response.read(4) == b"PK\x03\x04"
    response.close()
