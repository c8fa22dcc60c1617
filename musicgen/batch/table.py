"""Tables of rows: CSV as spreadsheets write it, or JSON Lines."""

import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

JSON_LINES = (".jsonl", ".ndjson")
_DELIMITERS = ",;\t"  # of English spreadsheets, of those with a decimal comma, of copied cells
_MAX_LISTED = 20  # problems in one message


@dataclass(frozen=True)
class TableRow:
    """One row: its number, the cells that are not empty, and whether these are text still to be read."""

    number: int  # as a spreadsheet counts, the header being row 1; the line of JSON Lines
    cells: dict[str, Any]
    is_text: bool


class Problems:
    """Everything that is wrong with a table, gathered so that one run shows it all."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, []

    def add(self, number: int, error: object) -> None:
        self._lines.append(f"row {number}: {error}")

    def check(self) -> None:
        """InputError that lists the problems, if there are any."""
        if not self._lines:
            return
        n_more = len(self._lines) - _MAX_LISTED
        more = [f"... and {n_more} more"] if n_more > 0 else []
        shown = "\n  ".join([*self._lines[:_MAX_LISTED], *more])
        raise InputError(f"{self._path}: nothing was made, for some rows are wrong.\n  {shown}")


def read_table(path: Path, encoding: str | None = None) -> tuple[list[str], list[TableRow]]:
    """Columns in their order, and the rows that hold something.

    encoding: None = UTF-8, or UTF-16 where the file begins with its mark. InputError for what cannot be read as a table.
    """
    text = _text_of(path, encoding)
    if path.suffix.lower() in JSON_LINES:
        return _json_lines(path, text)
    return _csv(path, text)


def check_columns(columns: Sequence[str], known: Sequence[str]) -> None:
    """InputError for a column that is not known, with the nearest that is, and for one that stands there twice."""
    for column in columns:
        if column not in known:
            nearest = difflib.get_close_matches(column.lower(), known, 1, 0.5)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise InputError(f"there is no column {column!r}.{hint} The columns are {', '.join(known)}.")
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(f"the column {twice[0]!r} stands there {columns.count(twice[0])} times. Leave one.")


def _text_of(path: Path, encoding: str | None) -> str:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if encoding is None:
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except LookupError as error:
        raise InputError(f"'--encoding {encoding}' is no encoding. Give utf-8, cp949, cp1252 or the like.") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}, is not in {encoding.removesuffix('-sig')}. Save the table as 'CSV UTF-8', or name "
            "its encoding: --encoding cp949 for Korean Excel, cp1252 for Western ones."
        ) from error
    return text.removeprefix("\ufeff")


def _csv(path: Path, text: str) -> tuple[list[str], list[TableRow]]:
    lines = _records(path, text, max(_DELIMITERS, key=lambda each: len(_header(text, each))))
    first, header = next(((number, cells) for number, cells in lines if any(map(str.strip, cells))), (0, []))
    if not header:
        raise InputError(f"{path} is empty. Its first row must name the columns.")
    columns, problems, rows = [cell.strip() for cell in header], Problems(path), []
    for number, cells in lines:
        if len(cells) > len(columns) and any(map(str.strip, cells[len(columns) :])):
            problems.add(
                number,
                f"{len(cells)} cells, but {len(columns)} columns. A text that holds the delimiter needs quotes.",
            )
            continue
        filled = [(column, cell) for column, cell in zip(columns, cells) if cell.strip()]
        nameless = [cell for column, cell in filled if not column]
        if nameless:
            problems.add(number, f"the cell {nameless[0]!r} stands in a column without a name (row {first})")
        elif filled:
            rows.append(TableRow(number, dict(filled), is_text=True))
    problems.check()
    return [column for column in columns if column], rows


def _header(text: str, delimiter: str) -> list[str]:
    """Cells of the first row that is not blank."""
    try:
        return next((cells for cells in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cells)), [])
    except csv.Error:
        return []


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of every row; cells may hold line breaks."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number, line = 0, 1
    try:
        for number, cells in enumerate(reader, start=1):
            yield number, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, row {number + 1} (line {line}), is no CSV: {error}. Look at its quotes.") from error


def _json_lines(path: Path, text: str) -> tuple[list[str], list[TableRow]]:
    columns: dict[str, None] = {}
    rows, problems = [], Problems(path)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line, object_pairs_hook=_once, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            problems.add(number, f"no JSON: {error}")
            continue
        if not isinstance(cells, dict):
            problems.add(number, 'must be an object, as in {"prompt": "calm piano", "duration": 8}')
            continue
        columns |= dict.fromkeys(cells)
        rows.append(TableRow(number, {key: value for key, value in cells.items() if value is not None}, is_text=False))
    problems.check()
    return list(columns), rows


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
