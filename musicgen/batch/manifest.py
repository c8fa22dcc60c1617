"""The folder of a batch: its files, and the manifest that says what each is.

`manifest.jsonl` has a line a row that was made: key, seed, files with their checksums, fields, versions. A line is written before
its files: what a crash leaves between the two is seen by the checksum, and made again.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outputs import atomic_file, lock
from .rows import Job

FILE = "manifest.jsonl"
_LOCK = ".musicgen-batch.lock"


class Manifest:
    """The manifest of one folder, which no other run works in meanwhile. Use as `with Manifest.open(folder)`."""

    def __init__(self, folder: Path, entries: dict[str, dict[str, Any]]) -> None:
        self._folder, self._entries = folder, entries
        self._owners = {file["name"]: entry["key"] for entry in entries.values() for file in entry["files"]}

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator["Manifest"]:
        """InputError for a folder that cannot be written, and for one that another run works in."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(folder / _LOCK, "ab")  # noqa: SIM115  closed below
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"'--out {folder}' cannot be written: {reason}. Choose another folder.") from error
        with file:
            if not lock(file, default=True):
                raise InputError(
                    f"another run of 'batch' works in {folder}. Wait for its end, or choose another --out."
                )
            yield cls(folder, _read(folder / FILE))

    def done(self, job: Job) -> list[Path] | None:
        """The files of a job that an earlier run made, if all are there unharmed."""
        entry = self._entries.get(job.key)
        if entry is None:
            return None
        files = [(self._folder / file["name"], file) for file in entry["files"]]
        named = bool(files) and files[0][0].stem == job.stem  # `name` may have changed
        return [path for path, _ in files] if named and all(_is_whole(*file) for file in files) else None

    def check_free(self, jobs: Sequence[Job]) -> None:
        """InputError for a job whose name a file has that no batch made."""
        stems = {job.stem: job for job in jobs}
        for path in sorted(self._folder.iterdir()):
            job = stems.get(path.stem)
            if job and path.name not in self._owners and path.suffix.lower() in (".wav", ".mp3", ".flac", ".opus"):
                raise InputError(
                    f"row {job.row} would replace {path}, which no batch made. Move it away, or choose another name or --out."
                )

    def save(self, job: Job, files: Sequence[tuple[str, bytes]], **details: Any) -> list[Path]:
        """Write the files of a job, (suffix, content) each, and their line; their paths."""
        names = [
            f"{job.stem}{suffix}" if number == 1 else f"{job.stem}-{number}{suffix}"
            for number, (suffix, _) in enumerate(files, start=1)
        ]
        described = [
            {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, (_, content) in zip(names, files)
        ]
        entry = {"key": job.key, "row": job.row, "seed": job.seed, "files": described, "task": job.task, **details}
        entry["finished"] = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        try:
            self._append(entry)
            for name, (_, content) in zip(names, files):
                with atomic_file(self._folder / name) as file:
                    file.write(content)
        except OSError as error:
            raise InputError(f"nothing more can be written into {self._folder}: {error.strerror or error}") from error
        return [self._folder / name for name in names]

    def _append(self, entry: dict[str, Any]) -> None:
        with open(self._folder / FILE, "ab") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())
        self._entries[entry["key"]] = entry
        self._owners |= {file["name"]: entry["key"] for file in entry["files"]}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Entries by key, the last line of each. What a crash left of a line is taken out of the file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    lines = content.split(b"\n")
    latest = {entry["key"]: entry for entry in map(_entry, lines) if entry}
    if len(latest) != len(lines) - 1 or lines[-1]:
        with atomic_file(path) as file:
            file.writelines(_line(entry) for entry in latest.values())
    return latest


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
        whole = isinstance(entry["key"], str) and all(
            isinstance(file["name"], str)
            and file["name"] == Path(file["name"]).name
            and isinstance(file["sha256"], str)
            for file in entry["files"]
        )
    except (ValueError, KeyError, TypeError):
        return None
    return entry if whole else None


def _line(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="surrogatepass")


def _is_whole(path: Path, file: dict[str, Any]) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
    except OSError:
        return False
