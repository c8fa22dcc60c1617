"""A server on this machine that stands for the whole web, and misbehaves as it is told."""

import contextlib
import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from comfyui_musicgen.musicgen.store.web import Network

ADDRESS = "93.184.216.34"  # a public one
PATIENCE_S = 300.0  # how long silence lasts unless a test ends it: longer than a busy machine starts a process

# A file that the site of the tests has.
URL = "https://replicate.delivery/pbxt/abc/trained_model.tar?token=SECRET"
PATH = "/pbxt/abc/trained_model.tar"
DATA = b"PK\x03\x04" + bytes(range(256)) * 20_000  # 5 MB


# A model on the hub, and a small checkpoint that stands for it.
NAME = "facebook/musicgen-small"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


class Site:
    """What the server has: path -> contents, and how it misbehaves."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.headers: dict[str, dict] = {}
        self.requests: list[tuple[str, str, str, dict]] = []  # method, host, path, headers
        self.cut_after: list[int] = []  # bytes of the answers to come after which the connection breaks
        self.statuses: list[int | None] = []  # of the answers to come; None: as it should be
        self.refusal: int | None = None  # status of all answers
        self.ranges = True
        self.partial = False  # whole files are sent as if they were parts
        self.lengths: dict[str, object] = {}  # path -> what the server claims
        self.silent_after: int | None = None  # bytes of an answer after which nothing comes; -1: not even its head
        self.slow = False  # one byte at a time
        self.woken = threading.Event()
        self.network: Local
        self.url: str  # where the server really is


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def do_CONNECT(self):
        """As a proxy whose every way leads to this server."""
        self.server.site.requests.append((self.command, self.path, "", dict(self.headers)))
        self.send_response(200)
        self.end_headers()
        self.close_connection = False

    def answer(self, body):
        site, path = self.server.site, self.path.partition("?")[0]
        site.requests.append((self.command, self.headers["Host"], self.path, dict(self.headers)))
        status = site.statuses.pop(0) if site.statuses and body else None
        if site.silent_after == -1:
            site.woken.wait(PATIENCE_S)
        if site.refusal is not None:
            return self.reply(site.refusal, site.headers.get(path, {}), b"", body)
        if status is not None:
            return self.reply(status, {}, b"", body)
        if path in site.redirects:
            return self.reply(302, {"Location": site.redirects[path], **site.headers.get(path, {})}, b"", body)
        if path not in site.files:
            return self.reply(404, site.headers.get(path, {}), b"", body)
        data, status, headers = site.files[path], 200, dict(site.headers.get(path, {}))
        if "Range" in self.headers and site.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                return self.reply(416, {}, b"", body)
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self.reply(
            206 if site.partial and "Range" in self.headers else status,
            headers,
            data,
            body,
            site.lengths.get(path, len(data)),
        )

    def reply(self, status, headers, data, body, length=0):
        # Before the head is sent: who has read that may ask again at once, and another thread answers.
        cuts = self.server.site.cut_after
        cut = cuts.pop(0) if body and data and cuts else None
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if body and data:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send(data if cut is None else data[:cut])

    def send(self, data):
        site = self.server.site
        if site.slow:
            for byte in data:
                self.wfile.write(bytes([byte]))
                if site.woken.wait(0.05):
                    return
        silent_after = site.silent_after  # once: a test that sees the last byte may end the silence of what follows
        self.wfile.write(data[:silent_after])
        if silent_after is not None:
            site.woken.wait(PATIENCE_S)

    def log_message(self, *_):
        pass


class Local(Network):
    """A network that has only the server, without TLS, at whatever address it is asked for; and notes which."""

    pauses_s = (0.0, 0.0, 0.0)

    def __init__(self, port):
        self.port = port
        self.names: dict[str, list[list[str]]] = {}  # host -> answers of its name server, one after the other
        self.connected: list[tuple[str, int]] = []
        self.secured: list[str] = []  # hosts whose certificates were asked for
        self.look_up_s = 0.0

    def addresses(self, host, port):
        time.sleep(self.look_up_s)
        answers = self.names.get(host, [[ADDRESS]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def connect(self, address, port):
        self.connected.append((address, port))
        return socket.create_connection(("127.0.0.1", self.port), self.timeout_s)

    def secure(self, connection, host):
        self.secured.append(host)
        return connection


@contextlib.contextmanager
def running() -> Iterator[Site]:
    """A site that is being served; its `network` leads there."""
    site = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.site = site
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    site.network, site.url = Local(server.server_port), f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        site.woken.set()
        server.shutdown()
        server.server_close()


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


def quiet(done, total):
    pass


class Cancelled(Exception):
    """What a host raises when the user has pressed Cancel."""


def cancel_at(n_bytes):
    def on_step(done, total):
        if done >= n_bytes:
            raise Cancelled

    return on_step


def cancel_after(seconds):
    end = time.monotonic() + seconds

    def on_step(done, total):
        if time.monotonic() >= end:
            raise Cancelled

    return on_step


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def ranges(site) -> list[str | None]:
    return [headers.get("Range") for method, _, _, headers in site.requests if method == "GET"]
