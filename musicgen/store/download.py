"""Published models, downloaded into the folder of models when they are asked for and absent.

All files of a repository come from one commit: the one that `published.REVISIONS` pins, or else what 'main' is when
the download begins. The hub says how large each file is and what its checksum is; both are checked.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.formats.codecs import MissingCodecError
from ..checkpoints.open import open_checkpoint
from ..errors import CheckpointError
from . import hub, locate
from .published import CODEC, DIFFUSION, DIFFUSION_MODEL, KNOWN, REVISIONS, files_of
from .transfer import Remote, fetch, refusal
from .urls import allowed_hosts, check_url, fetch_url, is_url
from .web import BrokenTransferError, Transport, Web, shown

logger = logging.getLogger(__name__)

RECORD_FILE = ".download.json"  # beside the weights: repository, commit, and each file's size and checksum

OnStep = Callable[[int, int], None]


def obtain(name: str, dirs: Sequence[Path], on_step: OnStep, allow_paths: bool = False) -> Path:
    """As `locate.resolve`, but a published model that is in none of `dirs` is downloaded into the first of them.

    on_step(bytes there, bytes in all): what it raises stops the download, which a later call resumes.
    """
    if name in KNOWN and dirs and not locate.is_installed(name, dirs):
        fetch_repository(name, Path(dirs[0]), on_step)
    return locate.resolve(name, dirs, allow_paths)


def obtain_weights(name_or_url: str, dirs: Sequence[Path], on_step: OnStep, allow_paths: bool = False) -> Path:
    """The weights of a fine-tune: of an https address, or by name as `obtain`."""
    if not is_url(name_or_url):
        return obtain(name_or_url, dirs, on_step, allow_paths)
    if not dirs:
        raise CheckpointError(
            f"There is no folder of models to download {shown(name_or_url)} into. Give the name of a file."
        )
    return fetch_url(name_or_url, Path(dirs[0]), on_step)


def obtain_diffusion(name: str, dirs: Sequence[Path], on_step: OnStep, allow_paths: bool = False) -> Path:
    """As `locate.resolve_diffusion`, but the published model is downloaded into the first of `dirs` if it is in none."""
    if name == DIFFUSION_MODEL and dirs and not hub.is_offline():
        try:
            return locate.resolve_diffusion(name, dirs, allow_paths)
        except CheckpointError:
            fetch_repository(DIFFUSION, Path(dirs[0]), on_step)
    return locate.resolve_diffusion(name, dirs, allow_paths)


def check_diffusion(name: str, dirs: Sequence[Path]) -> None:
    """CheckpointError for what `obtain_diffusion` could not give, as far as it shows without the network."""
    if name != DIFFUSION_MODEL or not dirs or hub.is_offline():
        locate.resolve_diffusion(name, dirs)


def check(name_or_url: str, dirs: Sequence[Path]) -> None:
    """CheckpointError for what `obtain` and `obtain_weights` could not give, as far as it shows without the network."""
    if is_url(name_or_url):
        check_url(name_or_url, Path(dirs[0]) if dirs else Path())
    elif name_or_url not in KNOWN or not dirs or hub.is_offline() or locate.is_installed(name_or_url, dirs):
        locate.resolve(name_or_url, dirs)


def open_model(path: Path, dirs: Sequence[Path], on_step: OnStep | None) -> Checkpoint:
    """The checkpoint at `path`; the published codec, if it only names that and it is absent, is downloaded first.

    `on_step` None: nothing is downloaded.
    """
    try:
        return open_checkpoint(path, codec_dirs=dirs)
    except MissingCodecError as error:
        if error.name != CODEC or on_step is None or not dirs or hub.is_offline():
            raise
    fetch_repository(CODEC, Path(dirs[0]), on_step)
    return open_checkpoint(path, codec_dirs=dirs)


def fetch_repository(name: str, root: Path, on_step: OnStep, transport: Transport | None = None) -> Path:
    """Download what is needed of the published repository `name` into root/name, and return that folder.

    Files that are there already are kept. CheckpointError names the files, the address and the folder where
    downloads are switched off (HF_HUB_OFFLINE) or the hub cannot be reached.
    """
    folder, files = Path(root) / name, files_of(name)
    if hub.is_offline():
        raise CheckpointError(f"HF_HUB_OFFLINE forbids the download of {name}. {_by_hand(name, folder)}")
    endpoint = hub.endpoint()
    # An endpoint of the user's own may well be a mirror inside the house.
    trusted = "" if endpoint == hub.DEFAULT_ENDPOINT else endpoint
    web = Web(allowed_hosts(Path(root)), trusted, transport)
    try:
        remotes = _remotes(web, name, folder, [file for file in files if not (folder / file).is_file()])
    except BrokenTransferError as error:
        raise CheckpointError(
            f"{endpoint} cannot be reached to download {name} ({error}). {_by_hand(name, folder)}"
        ) from error
    total, before = sum(remote.size for remote in remotes.values()), 0
    logger.info("downloading %s (%.2f GB) into %s", name, total / 1e9, folder)
    for file, remote in remotes.items():
        done = before

        def on_bytes(there: int, done: int = done) -> None:
            on_step(done + there, total)

        fetch(web, remote, folder / file, on_bytes)
        before += remote.size
    return folder


def _remotes(web: Web, name: str, folder: Path, files: Sequence[str]) -> dict[str, Remote]:
    """Address, size and checksum of each file, all of one commit, which is kept to by later calls."""
    record = _read_record(folder)
    revision = REVISIONS.get(name) or record.get("commit") or "main"
    token = os.environ.get("HF_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    remotes = {}
    for file in files:
        url = f"{hub.endpoint()}/{name}/resolve/{revision}/{file}"
        response = web.request(url, headers, "HEAD", follow=False)
        response.close()
        if response.status >= 400:
            raise refusal(url, response.status)
        found = response.headers
        commit = found.get("x-repo-commit", "")
        if not re.fullmatch(r"[0-9a-f]{40}", commit) or revision not in ("main", commit):
            raise CheckpointError(
                f"{shown(url)}: the server does not say of which commit the file is. Is it a hub at all?"
            )
        url = f"{hub.endpoint()}/{name}/resolve/{commit}/{file}"
        size = found.get("x-linked-size") or found.get("content-length", "")
        digest = (found.get("x-linked-etag") or found.get("etag", "")).removeprefix("W/").strip('"')
        if not size.isdecimal() or not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", digest):
            raise CheckpointError(
                f"{shown(url)}: the server gives no size and checksum, without which nothing is downloaded"
            )
        revision = commit
        remotes[file] = Remote(url, int(size), digest, headers=headers)
    _write_record(folder, name, revision, record, remotes)
    return remotes


def _read_record(folder: Path) -> dict:
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    commit = record.get("commit") if isinstance(record, dict) else None
    return record if isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}", commit) else {}


def _write_record(folder: Path, name: str, commit: str, record: dict, remotes: dict[str, Remote]) -> None:
    files = record.get("files") if record.get("commit") == commit else None
    files = {**(files if isinstance(files, dict) else {})}
    files |= {file: {"size": remote.size, "checksum": remote.digest} for file, remote in remotes.items()}
    table = {"repository": name, "commit": commit, "files": files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD_FILE).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written to ({error}). Downloads need a folder of models to go to."
        ) from error


def _by_hand(name: str, folder: Path) -> str:
    return f"Download {' and '.join(files_of(name))} from {hub.endpoint()}/{name} into {folder}"
