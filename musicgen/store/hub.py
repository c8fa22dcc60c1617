"""The Hugging Face hub through huggingface_hub: commits, sizes, checksums, login, mirrors, the cache on this machine.

The bytes themselves are brought by `transfer`. huggingface_hub 2.4 downloads to a file of a new name each time, which it
deletes when it is interrupted: nothing is resumed. It compares sizes but no checksums, reports progress every 10 MB,
which is too seldom for Cancel, and follows a redirect into a private network.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..dependencies import require
from ..errors import CheckpointError, DependencyError
from .published import REVISIONS, files_of
from .transfer import Remote, refusal

DEFAULT_ENDPOINT = "https://huggingface.co"
RECORD_FILE = ".download.json"  # beside the weights: repository, commit, and each file's size and checksum
_TRUE = {"1", "ON", "YES", "TRUE"}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")  # sha256, or git's sha1 of a small file


def endpoint() -> str:
    """The address of the hub, or of the mirror in HF_ENDPOINT, without a slash at its end."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    return any(os.environ.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def snapshot(repository: str, files: Sequence[str]) -> Path | None:
    """The folder of a repository in huggingface_hub's cache, None unless all of `files` are in it."""
    with contextlib.suppress(DependencyError, ValueError):  # not installed; not a name of a repository
        library = require("huggingface_hub", "Looking into the Hugging Face cache")
        paths = [library.try_to_load_from_cache(repository, file) for file in files]
        if all(isinstance(path, str) for path in paths):
            return Path(paths[0]).parent
    return None


def by_hand(repository: str, folder: Path) -> str:
    """The advice for a download that is not possible."""
    return f"Download {' and '.join(files_of(repository))} from {endpoint()}/{repository} into {folder}"


def look_up(repository: str, folder: Path, files: Sequence[str]) -> dict[str, Remote]:
    """{file: where it is} for a download into `folder`, where the commit and the checksums are written down.

    All files come from one commit: that of REVISIONS, or that of earlier downloads, or else what 'main' is now.
    DependencyError without huggingface_hub. CheckpointError: no such repository or file, no access, no connection.
    """
    library = require("huggingface_hub", f"Downloading {repository}")
    token = library.utils.build_hf_headers().get("authorization")
    record = _read_record(folder)
    revision = REVISIONS.get(repository) or record["commit"] or "main"
    remotes = {}
    for file in files:
        url = library.hf_hub_url(repository, file, revision=revision, endpoint=endpoint())
        metadata = _metadata(library, repository, folder, url)
        commit, digest = metadata.commit_hash or "", metadata.etag or ""
        if not _COMMIT.fullmatch(commit) or revision not in ("main", commit):
            raise CheckpointError(f"{url}: the server does not say of which commit the file is. Is it a hub at all?")
        if not metadata.size or not _DIGEST.fullmatch(digest):
            raise CheckpointError(f"{url}: the server gives no size and checksum, without which nothing is downloaded")
        revision = commit
        url = library.hf_hub_url(repository, file, revision=commit, endpoint=endpoint())
        remotes[file] = Remote(url, metadata.size, digest, headers={"Authorization": token} if token else {})
    _write_record(folder, record, repository, revision, remotes)
    return remotes


def _metadata(library: Any, repository: str, folder: Path, url: str) -> Any:
    page = f"{endpoint()}/{repository}"
    login = "log in with a token of that account (`hf auth login`, or the environment variable HF_TOKEN)"
    try:
        return library.get_hf_file_metadata(url)
    except library.utils.GatedRepoError as error:
        raise CheckpointError(f"{repository} is gated: accept its licence at {page}, then {login}.") from error
    except library.utils.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{page} does not exist or is private. Is HF_ENDPOINT right? If it is of an account of yours, {login}."
        ) from error
    except library.utils.HfHubHTTPError as error:
        raise refusal(url, error.response.status_code) from error
    except Exception as error:  # of requests, httpx or httpx2, depending on the version of huggingface_hub
        raise CheckpointError(
            f"{endpoint()} cannot be reached to download {repository} ({type(error).__name__}: {error}). "
            f"{by_hand(repository, folder)}"
        ) from error


def _read_record(folder: Path) -> dict[str, Any]:
    """What is written down of earlier downloads; an empty commit for nothing, or nothing sensible."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        if _COMMIT.fullmatch(record["commit"]):
            return {"commit": record["commit"], "files": dict(record["files"])}
    return {"commit": "", "files": {}}


def _write_record(
    folder: Path, earlier: dict[str, Any], repository: str, commit: str, remotes: Mapping[str, Remote]
) -> None:
    files = {file: {"size": remote.size, "checksum": remote.digest} for file, remote in remotes.items()}
    if earlier["commit"] == commit:
        files = {**earlier["files"], **files}
    text = json.dumps({"repository": repository, "commit": commit, "files": files}, indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written to ({error}). Downloads need a folder of models to go to."
        ) from error
