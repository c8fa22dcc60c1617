"""Jobs from the rows of a table: what to make, under which name, from which seed."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from .table import Problems, TableRow, read_table

NAME = "name"  # column of the file's name, for rows of every kind
_MAX_SLUG = 40  # characters
_MAX_NAME_BYTES = 200  # file systems take 255, the suffix included
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)  # of Windows
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')


@dataclass(frozen=True)
class Reading:
    """What a row asks for, checked."""

    identity: dict[str, Any]  # JSON of all that decides the music, but for the seed and the options of the command
    options: dict[str, Any]  # JSON of what the command decides for all rows: model, precision
    seed: int | None  # None: one is derived from the row
    title: str  # the file's name begins with it
    group: str  # rows of one group share a model
    task: Callable[[int], dict[str, Any]]  # of the seed: what a worker is sent, of plain values


class Recipe(Protocol):
    """What the columns of a table mean."""

    def check(self, columns: Sequence[str]) -> None:
        """InputError for a column that means nothing."""
        ...

    def read(self, row: TableRow) -> Reading:
        """InputError for a row that cannot be made."""
        ...


@dataclass(frozen=True)
class Job:
    """One row to be made."""

    row: int
    key: str  # the same for the same row, options and model; another where any of them differs
    stem: str  # of the files' names
    seed: int
    group: str
    task: dict[str, Any]


def read_jobs(path: Path, recipe: Recipe, encoding: str | None = None) -> list[Job]:
    """The jobs of all rows. InputError lists every row that is wrong.

    Equal rows are counted, so that ten of them are ten takes; adding rows below or between changes none of the others.
    """
    columns, rows = read_table(path, encoding)
    try:
        recipe.check(columns)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not rows:
        raise InputError(f"{path} has no rows below its header.")
    problems, counts, taken, jobs = Problems(path), Counter(), {}, []
    for row in rows:
        try:
            reading = recipe.read(row)
            take = _digest(reading.identity, reading.seed)
            counts[take] += 1
            job = _job(row, reading, counts[take])
            _check_free(job, taken)
        except InputError as error:
            problems.add(row.number, error)
        else:
            jobs.append(job)
    problems.check()
    return jobs


def _job(row: TableRow, reading: Reading, number: int) -> Job:
    """number: how many equal rows there are up to this one."""
    seed = reading.seed
    if seed is None:
        seed = int(_digest("seed", reading.identity, number)[:8], 16)  # 32 bits: torch's CPU generator reads no more
    key = _digest(reading.identity, reading.options, reading.seed, number)
    given = row.cells.get(NAME)
    stem = _checked_name(given) if given is not None else f"{_slug(reading.title)}-{key[:8]}"
    return Job(row.number, key, stem, seed, reading.group, reading.task(seed))


def _digest(*values: Any) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _slug(title: str) -> str:
    """Letters and digits of any script, with hyphens between the words: "Slow 판소리, voice" -> slow-판소리-voice."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", title).lower())
    slug = "-".join(words)[:_MAX_SLUG].strip("-") or "clip"
    return slug.encode()[: _MAX_NAME_BYTES // 2].decode(errors="ignore")


def _checked_name(name: Any) -> str:
    """InputError for a name that some file system does not take."""
    if not isinstance(name, str):
        raise InputError(f"'{NAME}' must be a text, got {name!r}")
    name = unicodedata.normalize("NFC", name.strip())
    wrong = _FORBIDDEN.search(name)
    if wrong:
        raise InputError(f"'{NAME}' holds {wrong[0]!a}, which no file's name may, got {name!r}")
    if not name or name[0] == "." or name[-1] == "." or _RESERVED.match(name):
        raise InputError(f"'{NAME}' of {name!r} is no usable name of a file. Choose another.")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise InputError(f"'{NAME}' must have at most {_MAX_NAME_BYTES} bytes, got {len(name.encode())}")
    return name


def _check_free(job: Job, taken: dict[str, int]) -> None:
    """InputError for a name that an earlier row has, on file systems that ignore case too."""
    other = taken.setdefault(job.stem.casefold(), job.row)
    if other != job.row:
        raise InputError(f"'{NAME}' of {job.stem!r} is that of row {other} too. Names must differ by more than case.")
