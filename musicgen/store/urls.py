"""Weights given by an https address: downloaded once into the folder of models, and found there ever after."""

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import CheckpointError
from .transfer import Remote, fetch, refusal, wait_for
from .web import BrokenTransferError, Web, shown

logger = logging.getLogger(__name__)

FOLDER = "downloads"  # below the folder of models
HOSTS_FILE = "hosts.txt"
MAX_BYTES = 16 * 2**30

# Where models are published and trained. ".name" stands for every host below the name.
HOSTS = (
    *("huggingface.co", ".huggingface.co", ".hf.co"),
    *("replicate.delivery", ".replicate.delivery", "storage.googleapis.com"),
    *("github.com", ".githubusercontent.com"),
)

OnStep = Callable[[int, int], None]


def is_url(text: str) -> bool:
    """Whether `text` is an address rather than the name of a file."""
    return "://" in text


def allowed_hosts(root: Path) -> tuple[str, ...]:
    """HOSTS, and those in the user's hosts.txt: one a line, "*.name" or ".name" for all below it, # for comments."""
    file = root / HOSTS_FILE
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return HOSTS
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}). Save it as UTF-8 text.") from error
    lines = (line.partition("#")[0].strip().lower() for line in text.splitlines())
    return (*HOSTS, *(line.removeprefix("*") for line in lines if line))


def file_of(url: str, root: Path) -> Path:
    """Where the file of `url` is kept below the folder of models `root`, there or not."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    name = re.sub(r"[^\w.-]", "_", name)[-80:].lstrip(".") or "weights"
    return root / FOLDER / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def fetch_url(web: Web, url: str, root: Path, on_step: OnStep) -> Path:
    """The file of `url`, downloaded below the folder of models `root` unless it is there already.

    on_step(bytes there, bytes in all); what it raises stops the download, which a later call resumes.
    CheckpointError: an address that is not allowed (also after redirects), too large a file, or no checkpoint.
    """
    web.check(url)
    target = file_of(url, root)
    if not target.is_file():
        remote = wait_for(lambda: _look_up(web, url), lambda: on_step(0, 1))
        logger.info("downloading %s (%.2f GB)", shown(url), remote.size / 1e9)
        fetch(web, remote, target, lambda n_bytes: on_step(n_bytes, remote.size))
        _require_checkpoint(target, url)
    return target


def _look_up(web: Web, url: str) -> Remote:
    """Size and version of the file. Asked for with GET, because signed addresses are good for nothing else."""
    try:
        with web.open(url, {}) as response:
            status, headers = response.status, response.headers
    except BrokenTransferError as error:
        raise CheckpointError(
            f"{shown(url)} cannot be downloaded: {error}. Try again once it can be reached."
        ) from error
    if status != 200:
        raise refusal(url, status)
    length = headers.get("content-length", "")
    if not re.fullmatch(r"[1-9][0-9]{0,17}", length):
        raise CheckpointError(f"{shown(url)} cannot be downloaded: the server does not say how large the file is")
    if int(length) > MAX_BYTES:
        size, limit = int(length) / 1e9, MAX_BYTES / 1e9
        raise CheckpointError(f"{shown(url)} is refused: {size:.1f} GB is more than any checkpoint ({limit:.1f} GB)")
    return Remote(url, int(length), version=headers.get("etag") or headers.get("last-modified", ""))


def _require_checkpoint(path: Path, url: str) -> None:
    """Remove a downloaded file that is no checkpoint."""
    with open(path, "rb") as file:
        start = file.read(9)
    if not start.startswith(b"PK\x03\x04") and start[8:] != b"{":
        path.unlink()
        raise CheckpointError(
            f"{shown(url)} is no checkpoint: neither a file of torch nor of safetensors. Give the address of the file "
            "itself, not that of a page about it."
        )
