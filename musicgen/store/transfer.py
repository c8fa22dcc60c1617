"""Downloads one file: resumed where an earlier attempt stopped, checked, and put in place only when it is complete."""

import contextlib
import functools
import glob
import hashlib
import http.client
import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError
from ..outputs import DISK_FULL, lock, remove_abandoned
from .web import BrokenTransferError, Web, shown

logger = logging.getLogger(__name__)

T = TypeVar("T")
OnBytes = Callable[[int], None]

POLL_S = 0.1  # between two looks at Cancel while there is nothing else to do
SPARE_BYTES = 64 * 2**20  # of disk space that a download leaves alone
_CHUNK_BYTES = 2**20
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be gone at the next attempt
_REASONS = {
    401: "it asks for a login: for a private or gated model, set HF_TOKEN",
    403: "it does not allow this: for a private or gated model, set HF_TOKEN; or the address has expired",
    404: "there is no such file",
    410: "the file is gone",
}


@dataclass(frozen=True)
class Remote:
    """A file on a server, before any of it is downloaded."""

    url: str
    size: int
    digest: str = ""  # sha256, or git's sha1 of a small file; empty: the server gives none
    version: str = ""  # whatever tells one version of the file from another
    headers: Mapping[str, str] = field(default_factory=dict)  # to be sent with requests

    def part_of(self, target: Path) -> Path:
        """The file that grows until it is complete. Its name tells the version, so that two are never mixed."""
        identity = hashlib.sha256(f"{self.size} {self.digest} {self.version}".encode()).hexdigest()[:12]
        return target.with_name(f".{target.name}.{identity}.part")


def refusal(url: str, status: int) -> CheckpointError:
    """The error for a status that is no success."""
    reason = _REASONS.get(status, "refused")
    return CheckpointError(f"{shown(url)} cannot be downloaded: the server answers {status} ({reason})")


def wait_for(task: Callable[[], T], on_wait: Callable[[], None]) -> T:
    """The result of `task`, run in a thread. on_wait() is called every POLL_S; what it raises abandons the task."""
    return next(from_thread(lambda: iter((task(),)), on_wait))


def from_thread(produce: Callable[[], Iterable[T]], on_wait: Callable[[], None]) -> Generator[T, None, None]:
    """The items of produce(), which runs in a thread of its own.

    on_wait() is called every POLL_S while there is no item. What it raises abandons the thread, which ends with the
    network call that it waits for: looking up a name, connecting and reading cannot be interrupted otherwise.
    """
    results: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=4)
    abandoned = threading.Event()

    def run() -> None:
        try:
            for item in produce():
                results.put(("item", item))
                if abandoned.is_set():
                    return
            results.put(("end", None))
        except BaseException as error:
            results.put(("error", error))

    threading.Thread(target=run, name="musicgen-download", daemon=True).start()
    try:
        while True:
            try:
                kind, value = results.get(timeout=POLL_S)
            except queue.Empty:
                on_wait()
                continue
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        abandoned.set()
        while not results.empty():  # room for what the thread is about to put
            results.get_nowait()


def fetch(web: Web, remote: Remote, target: Path, on_bytes: OnBytes) -> None:
    """Download `remote` to `target`. on_bytes(bytes so far) is called often; what it raises stops the download.

    What has arrived by then stays in a hidden .part file beside it, and the next call goes on from there. While another
    process downloads the same file, this one waits for it.
    CheckpointError: no space, a server that refuses, a transfer that breaks off again and again, or a wrong digest.
    """
    part = remote.part_of(target)
    with _disk_errors(part, remote):
        target.parent.mkdir(parents=True, exist_ok=True)
        for version in set(target.parent.glob(f".{glob.escape(target.name)}.*.part")) - {part}:
            remove_abandoned(target.parent, glob.escape(version.name))
        if shutil.disk_usage(target.parent).free < remote.size - _size(part) + SPARE_BYTES:
            raise _no_space(part, remote)
    with _locked(part, remote, on_bytes) as file:
        if not target.is_file():
            _download(web, remote, file, on_bytes)
            _check_digest(remote, part, on_bytes)
    with _disk_errors(part, remote):
        if target.is_file():  # another process downloaded it
            part.unlink(missing_ok=True)
        else:
            os.replace(part, target)


@contextlib.contextmanager
def _locked(part: Path, remote: Remote, on_bytes: OnBytes) -> Iterator[FileIO]:
    """The part, open at its end, as soon as no other process has it. Unbuffered, so that Cancel loses nothing."""
    while True:
        with _disk_errors(part, remote):
            file = open(part, "ab", buffering=0)  # noqa: SIM115
        with file:
            if lock(file, default=True):
                yield file
                return
            on_bytes(file.tell())
        time.sleep(POLL_S)


def _download(web: Web, remote: Remote, file: FileIO, on_bytes: OnBytes) -> None:
    """Bring the part to its full size, in as many requests as that takes while each brings something."""
    pauses_s, failures = web.network.pauses_s, 0
    if file.tell() > remote.size:
        file.truncate(0)
    while (start := file.seek(0, os.SEEK_END)) < remote.size:
        on_bytes(start)
        try:
            _append(web, remote, file, on_bytes)
        except BrokenTransferError as error:
            failures = 0 if file.tell() > start else failures + 1
            if failures > len(pauses_s):
                raise CheckpointError(
                    f"The download of {shown(remote.url)} broke off at {file.tell()} of {remote.size} bytes ({error}). "
                    "What has arrived is kept: try again to go on from there."
                ) from error
            logger.info("%s: %s; trying again", shown(remote.url), error)
            pause = functools.partial(time.sleep, pauses_s[max(failures - 1, 0)])
            wait_for(pause, lambda: on_bytes(file.tell()))
    with _disk_errors(Path(file.name), remote):
        os.fsync(file.fileno())


def _append(web: Web, remote: Remote, file: FileIO, on_bytes: OnBytes) -> None:
    """Append the answer to one request. BrokenTransferError if it ends before the file does."""
    start = file.tell()
    pieces = from_thread(lambda: _receive(web, remote, start), lambda: on_bytes(file.tell()))
    with contextlib.closing(pieces):
        for offset, piece in pieces:
            with _disk_errors(Path(file.name), remote):
                if offset != file.tell():  # the server sends the file from its beginning
                    file.truncate(offset)
                while piece:
                    piece = piece[file.write(piece) :]
            on_bytes(file.tell())


def _receive(web: Web, remote: Remote, offset: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) as they arrive of the file's rest from `offset` on, or of all of it if the server has no ranges."""
    headers = {**remote.headers, **({"Range": f"bytes={offset}-"} if offset else {})}
    with web.open(remote.url, headers) as response:
        if response.status == 206 and offset:
            sent = f"bytes {offset}-{remote.size - 1}/"
            if response.headers.get("content-range") not in (f"{sent}{remote.size}", f"{sent}*"):
                raise CheckpointError(
                    f"{shown(remote.url)}: the server sent another part of the file than it was asked for, or the file "
                    "was changed there just now. Try again."
                )
        elif response.status == 200:
            offset = 0
            if response.headers.get("content-length") not in (None, str(remote.size)):
                raise CheckpointError(f"{shown(remote.url)} was changed on the server just now. Try again.")
        elif response.status == 416:
            yield 0, b""
            raise BrokenTransferError("the server does not go on from there")
        elif response.status in _PASSING:
            raise BrokenTransferError(f"the server answers {response.status}")
        else:
            raise refusal(remote.url, response.status)
        while offset < remote.size:
            try:
                piece = response.read1(min(_CHUNK_BYTES, remote.size - offset))
            except (OSError, http.client.HTTPException) as error:
                raise BrokenTransferError(f"{type(error).__name__}: {error}") from error
            if not piece:
                raise BrokenTransferError("the connection was closed")
            yield offset, piece
            offset += len(piece)


def _check_digest(remote: Remote, part: Path, on_bytes: OnBytes) -> None:
    if not remote.digest:
        return
    digest = hashlib.sha256() if len(remote.digest) == 64 else hashlib.sha1(f"blob {remote.size}\0".encode())
    with open(part, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(remote.size)
    if digest.hexdigest() != remote.digest:
        part.unlink()
        raise CheckpointError(
            f"{shown(remote.url)} arrived damaged: its checksum is {digest.hexdigest()[:16]}..., not "
            f"{remote.digest[:16]}... as the server says. It was thrown away; try again."
        )


@contextlib.contextmanager
def _disk_errors(part: Path, remote: Remote) -> Iterator[None]:
    """Errors of the file system as CheckpointError."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise _no_space(part, remote) from error
        raise CheckpointError(f"{part.parent} cannot be written to: {error.strerror or error}") from error


def _no_space(part: Path, remote: Remote) -> CheckpointError:
    needed, free = remote.size - _size(part), shutil.disk_usage(part.parent).free
    return CheckpointError(
        f"The disk is too full to download {part.name.lstrip('.')} into {part.parent}: {needed / 1e9:.2f} GB are still "
        f"needed, {free / 1e9:.2f} GB are free. Make room and try again; what has arrived is kept."
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
