"""A server on this machine that stands for the whole web, and misbehaves as it is told."""

import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

ADDRESS = "93.184.216.34"  # a public one


class Site:
    """What the server has: path -> contents, and how it misbehaves."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.headers: dict[str, dict] = {}
        self.requests: list[tuple[str, str, str, dict]] = []  # method, host, path, headers
        self.cut_after: list[int] = []  # bytes of the answers to come after which the connection breaks
        self.statuses: list[int | None] = []  # of the answers to come; None: as it should be
        self.ranges = True
        self.lengths: dict[str, int | None] = {}  # path -> what the server claims
        self.transport: Local


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body):
        site, path = self.server.site, self.path.partition("?")[0]
        site.requests.append((self.command, self.headers["Host"], self.path, dict(self.headers)))
        status = site.statuses.pop(0) if site.statuses and body else None
        if status is not None:
            return self.reply(status, {}, b"", body)
        if path in site.redirects:
            return self.reply(302, {"Location": site.redirects[path], **site.headers.get(path, {})}, b"", body)
        if path not in site.files:
            return self.reply(404, {}, b"", body)
        data, status, headers = site.files[path], 200, dict(site.headers.get(path, {}))
        if "Range" in self.headers and site.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                return self.reply(416, {}, b"", body)
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self.reply(status, headers, data, body, site.lengths.get(path, len(data)))

    def reply(self, status, headers, data, body, length=0):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if body and data:
            cut = self.server.site.cut_after.pop(0) if self.server.site.cut_after else None
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(data if cut is None else data[:cut])

    def log_message(self, *_):
        pass


class Local:
    """A transport that reaches only the server, without TLS, whatever address it is asked for; and notes which."""

    def __init__(self, port):
        self.port = port
        self.names: dict[str, list[list[str]]] = {}  # host -> answers of its name server, one after the other
        self.connected: list[tuple[str, int, str, bool]] = []

    def addresses(self, host, port):
        answers = self.names.get(host, [[ADDRESS]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def connection(self, host, port, address, secure):
        self.connected.append((host, port, address, secure))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.connect()
        connection.host, connection.port, connection.default_port = host, port, port
        return connection


@contextlib.contextmanager
def running() -> Iterator[Site]:
    """A site that is being served; its `transport` leads there."""
    site = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.site = site
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    site.transport = Local(server.server_port)
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def quiet(done, total):
    pass


class Cancelled(Exception):
    """What a host raises when the user has pressed Cancel."""


def cancel_at(n_bytes):
    def on_step(done, total):
        if done >= n_bytes:
            raise Cancelled

    return on_step


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def ranges(site) -> list[str | None]:
    return [headers.get("Range") for method, _, _, headers in site.requests if method == "GET"]
