"""Downloads one file: resumed where an earlier attempt stopped, checked, and put in place only when it is whole."""

import errno
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError
from .web import BrokenTransferError, Web, shown

logger = logging.getLogger(__name__)

CHUNK_BYTES = 2**20
SPARE_BYTES = 64 * 2**20  # of disk space that a download leaves alone
PAUSES_S = (0.5, 2.0, 5.0)  # before each further attempt that follows one without a single byte
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be gone at the next attempt

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Remote:
    """A file on a server, before any of it is downloaded."""

    url: str
    size: int
    digest: str = ""  # sha256, or git's sha1 of a small file; empty: the server gives none
    version: str = ""  # whatever tells one version of the file from another
    headers: Mapping[str, str] = field(default_factory=dict)  # to be sent with requests

    def part_of(self, target: Path) -> Path:
        """Where the file grows. Its name tells the version, so that two are never mixed."""
        identity = hashlib.sha256(f"{self.size} {self.digest} {self.version}".encode()).hexdigest()[:12]
        return target.with_name(f".{target.name}.{identity}.part")


def fetch(web: Web, remote: Remote, target: Path, on_bytes: OnBytes) -> None:
    """Download `remote` to `target`. on_bytes(n there so far) is called often; what it raises stops the download.

    What has arrived by then stays in a hidden .part file beside it, and the next call goes on from there.
    CheckpointError: no space, a server that refuses, a transfer that breaks off again and again, or a wrong digest.
    """
    part = remote.part_of(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for other in target.parent.glob(f".{_escaped(target.name)}.*.part"):
        if other != part:
            other.unlink(missing_ok=True)  # of an older version of the file
    if (there := _size(part)) > remote.size:
        part.unlink()
    _check_space(target, remote.size - there)
    failures = 0
    while (there := _size(part)) < remote.size:
        on_bytes(there)
        try:
            _transfer(web, remote, part, there, on_bytes)
        except BrokenTransferError as error:
            failures = 0 if _size(part) > there else failures + 1
            if failures > len(PAUSES_S):
                raise CheckpointError(
                    f"The download of {shown(remote.url)} broke off at {_size(part)} of {remote.size} bytes ({error}). What "
                    "has arrived is kept: try again to go on from there."
                ) from error
            logger.info("%s: %s; trying again", shown(remote.url), error)
            _pause(PAUSES_S[max(failures - 1, 0)], lambda: on_bytes(_size(part)))
    _check_digest(remote, part, on_bytes)
    os.replace(part, target)


def _transfer(web: Web, remote: Remote, part: Path, there: int, on_bytes: OnBytes) -> None:
    """One request, written to the end of `part`. BrokenTransferError if it ends before the file does."""
    headers = {**remote.headers, **({"Range": f"bytes={there}-"} if there else {})}
    response = web.request(remote.url, headers)
    try:
        if there and response.status == 206:
            _check_range(remote, response.headers.get("content-range", ""), there)
        elif response.status == 200:
            there = 0  # the server sends the whole file, asked for the rest or not
            if response.headers.get("content-length") not in (None, str(remote.size)):
                raise CheckpointError(f"{shown(remote.url)} was changed on the server just now. Try again.")
        elif response.status == 416:
            part.unlink(missing_ok=True)
            raise BrokenTransferError("the server does not go on from there")
        elif response.status in _PASSING:
            raise BrokenTransferError(f"the server answers {response.status}")
        else:
            raise refusal(remote.url, response.status)
        with open(part, "r+b" if there else "wb") as file:
            file.seek(there)
            while there < remote.size:
                chunk = response.read(min(CHUNK_BYTES, remote.size - there))
                if not chunk:
                    raise BrokenTransferError("the connection was closed")
                file.write(chunk)
                there += len(chunk)
                on_bytes(there)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _FULL:
            raise _no_space(part, remote.size - there) from error
        raise CheckpointError(f"{part} cannot be written: {error.strerror or error}") from error
    finally:
        response.close()


def _check_range(remote: Remote, value: str, there: int) -> None:
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", value)
    if not match or int(match[1]) != there:
        raise CheckpointError(f"{shown(remote.url)}: the server sent another part of the file than it was asked for")
    if match[2] not in ("*", str(remote.size)):
        raise CheckpointError(f"{shown(remote.url)} was changed on the server just now. Try again.")


def refusal(url: str, status: int) -> CheckpointError:
    """What to say of a status that is no success."""
    reasons = {
        401: "it asks for a login: for a private or gated model, set HF_TOKEN",
        403: "it does not allow this: for a private or gated model, set HF_TOKEN; or the address has expired",
        404: "there is no such file",
        410: "the file is gone",
    }
    return CheckpointError(
        f"{shown(url)} cannot be downloaded: the server answers {status} ({reasons.get(status, 'refused')})"
    )


def _check_digest(remote: Remote, part: Path, on_bytes: OnBytes) -> None:
    if not remote.digest:
        return
    digest = hashlib.sha256() if len(remote.digest) == 64 else hashlib.sha1(f"blob {remote.size}\0".encode())
    with open(part, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(remote.size)
    if digest.hexdigest() != remote.digest:
        part.unlink()
        raise CheckpointError(
            f"{shown(remote.url)} arrived damaged: its checksum is {digest.hexdigest()[:16]}..., not "
            f"{remote.digest[:16]}... as the server says. It was thrown away; try again."
        )


def _check_space(target: Path, n_bytes: int) -> None:
    if shutil.disk_usage(target.parent).free < n_bytes + SPARE_BYTES:
        raise _no_space(target, n_bytes)


def _no_space(path: Path, n_bytes: int) -> CheckpointError:
    free = shutil.disk_usage(path.parent).free
    return CheckpointError(
        f"The disk is too full to download {path.name.lstrip('.')} into {path.parent}: {n_bytes / 1e9:.2f} GB are still "
        f"needed, {free / 1e9:.2f} GB are free. Make room and try again; what has arrived is kept."
    )


def _pause(seconds: float, on_wait: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        on_wait()
        time.sleep(min(0.1, seconds))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
