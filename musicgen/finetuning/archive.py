"""Archives of music, as the published trainer takes them: unpacked without trust into a folder of its own."""

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..errors import InputError
from ..outputs import atomic_file

SUFFIXES = (".zip", ".tar", ".gz", ".tgz")
MAX_FILES, MAX_BYTES = 20_000, 20 * 2**30  # of an archive, unpacked
MAX_NAME = 200  # characters of a file's path
_CHUNK = 2**20
_DONE = ".unpacked"


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_link: bool
    entry: Any


def unpack(archive: Path, below: Path, suffixes: tuple[str, ...]) -> tuple[Path, list[tuple[str, str]]]:
    """The folder below `below` with the archive's files of these suffixes, and (name, reason) of what was left out.

    An archive that was unpacked before is not unpacked again. Names that lead out of the folder, links and devices are left out.
    InputError: no archive, a damaged one, or one of more than 20,000 files or 20 GB.
    """
    target = below / digest_of(archive)[:32]
    try:
        with _opened(archive) as source:
            members = list(_members(source))
            if len(members) > MAX_FILES or sum(member.size for member in members) > MAX_BYTES:
                raise InputError(
                    f"{archive} holds {len(members)} files of {sum(m.size for m in members) / 2**30:.1f} GB; at most "
                    f"{MAX_FILES} and {MAX_BYTES // 2**30} GB are unpacked. Give a folder instead."
                )
            refused = [(member.name[:MAX_NAME], reason) for member in members if (reason := _refusal(member))]
            if not (target / _DONE).exists():
                good = [m for m in members if not _refusal(m) and PurePosixPath(m.name).suffix.lower() in suffixes]
                _write(source, good, target)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
        ValueError,
    ) as error:
        raise InputError(f"{archive} cannot be unpacked ({error}). Is it a zip, tar or tar.gz, and whole?") from error
    return target, refused


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _opened(archive: Path) -> Any:
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    return tarfile.open(archive, "r:*")


def _members(source: Any) -> Iterator[_Member]:
    if isinstance(source, zipfile.ZipFile):
        for info in source.infolist():
            if not info.is_dir():
                is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
                yield _Member(info.filename, info.file_size, is_link, info)
        return
    for number, info in enumerate(source):
        if number > MAX_FILES:
            raise InputError(f"The archive holds more than {MAX_FILES} files. Give a folder instead.")
        if not info.isdir():
            yield _Member(info.name, info.size, not info.isreg(), info)


def _refusal(member: _Member) -> str:
    path = PurePosixPath(member.name.replace("\\", "/"))
    if member.is_link:
        return "is a link or a device"
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in member.name:
        return "has a name that leads out of the folder"
    if len(member.name) > MAX_NAME:
        return "has too long a name"
    return ""


def _write(source: Any, members: list[_Member], target: Path) -> None:
    written = 0
    for member in members:
        path = target / PurePosixPath(member.name.replace("\\", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        data: IO[bytes] = (
            source.open(member.entry) if isinstance(source, zipfile.ZipFile) else source.extractfile(member.entry)
        )
        with data, atomic_file(path) as file:
            while chunk := data.read(_CHUNK):
                written += len(chunk)
                if written > MAX_BYTES:  # whatever its table of contents claims
                    shutil.rmtree(target, ignore_errors=True)
                    raise InputError(
                        f"The archive unpacks to more than {MAX_BYTES // 2**30} GB. Give a folder instead."
                    )
                file.write(chunk)
    target.mkdir(parents=True, exist_ok=True)
    (target / _DONE).touch()
