"""Downloads one file: resumed where an earlier attempt stopped, checked, and put in place only when it is complete."""

import contextlib
import errno
import functools
import glob
import hashlib
import http.client
import logging
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError
from .web import BrokenTransferError, Web, shown

logger = logging.getLogger(__name__)

T = TypeVar("T")
OnBytes = Callable[[int], None]

POLL_S = 0.1  # between two looks at Cancel while the network is silent
SPARE_BYTES = 64 * 2**20  # of disk space that a download leaves alone
_CHUNK_BYTES = 2**20
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be gone at the next attempt


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

    What has arrived by then stays in a hidden .part file beside it, and the next call goes on from there.
    CheckpointError: no space, a server that refuses, a transfer that breaks off again and again, or a wrong digest.
    """
    part = remote.part_of(target)
    _prepare(remote, target, part)
    pauses_s, failures = web.network.pauses_s, 0
    while (n_bytes := _size(part)) < remote.size:
        on_bytes(n_bytes)
        try:
            _continue(web, remote, part, on_bytes)
        except BrokenTransferError as error:
            failures = 0 if _size(part) > n_bytes else failures + 1
            if failures > len(pauses_s):
                raise CheckpointError(
                    f"The download of {shown(remote.url)} broke off at {_size(part)} of {remote.size} bytes ({error}). "
                    "What has arrived is kept: try again to go on from there."
                ) from error
            logger.info("%s: %s; trying again", shown(remote.url), error)
            pause = functools.partial(time.sleep, pauses_s[max(failures - 1, 0)])
            wait_for(pause, lambda: on_bytes(_size(part)))
    _check_digest(remote, part, on_bytes)
    os.replace(part, target)


def refusal(url: str, status: int) -> CheckpointError:
    """The error for a status that is no success."""
    reasons = {
        401: "it asks for a login: for a private or gated model, set HF_TOKEN",
        403: "it does not allow this: for a private or gated model, set HF_TOKEN; or the address has expired",
        404: "there is no such file",
        410: "the file is gone",
    }
    return CheckpointError(
        f"{shown(url)} cannot be downloaded: the server answers {status} ({reasons.get(status, 'refused')})"
    )


def _prepare(remote: Remote, target: Path, part: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for other in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
            if other != part or _size(part) > remote.size:
                other.unlink(missing_ok=True)  # of an older version of the file, or too long to be of this one
    except OSError as error:
        raise CheckpointError(f"{target.parent} cannot be written to: {error.strerror or error}") from error
    n_bytes = remote.size - _size(part)
    if shutil.disk_usage(target.parent).free < n_bytes + SPARE_BYTES:
        raise _no_space(target, n_bytes)


def _continue(web: Web, remote: Remote, part: Path, on_bytes: OnBytes) -> None:
    """Append the answer to one request to `part`. BrokenTransferError if it ends before the file does."""
    start = end = _size(part)
    pieces = from_thread(lambda: _receive(web, remote, start), lambda: on_bytes(end))
    try:
        with contextlib.closing(pieces), open(part, "ab") as file:
            for offset, piece in pieces:
                if offset != end:  # the server sends the file from its beginning
                    file.truncate(offset)
                file.write(piece)
                end = offset + len(piece)
                on_bytes(end)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _FULL:
            raise _no_space(part, remote.size - end) from error
        raise CheckpointError(f"{part} cannot be written: {error.strerror or error}") from error


def _receive(web: Web, remote: Remote, offset: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) as they arrive of the file's rest from `offset` on, or of all of it if the server has no ranges."""
    headers = {**remote.headers, **({"Range": f"bytes={offset}-"} if offset else {})}
    with web.open(remote.url, headers) as response:
        if offset and response.status == 206:
            _check_range(remote, response.headers.get("content-range", ""), offset)
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


def _check_range(remote: Remote, value: str, offset: int) -> None:
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", value)
    if not match or int(match[1]) != offset:
        raise CheckpointError(f"{shown(remote.url)}: the server sent another part of the file than it was asked for")
    if match[2] not in ("*", str(remote.size)):
        raise CheckpointError(f"{shown(remote.url)} was changed on the server just now. Try again.")


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


def _no_space(path: Path, n_bytes: int) -> CheckpointError:
    free = shutil.disk_usage(path.parent).free
    return CheckpointError(
        f"The disk is too full to download {path.name.lstrip('.')} into {path.parent}: {n_bytes / 1e9:.2f} GB are still "
        f"needed, {free / 1e9:.2f} GB are free. Make room and try again; what has arrived is kept."
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
