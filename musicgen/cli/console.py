"""Progress bars of the commands, and a check of the folders that they write to."""

import sys
from pathlib import Path

from ..dependencies import require
from ..errors import InputError


class Progress:
    """Progress bars on standard error, one a stage, as an on_progress(stage, done, total) callback."""

    def __init__(self) -> None:
        self._tqdm = require("tqdm", "The progress bar").tqdm
        self._stage, self._bar = "", None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.__exit__()
            self._stage = stage
            self._bar = self._tqdm(desc=stage, total=total, file=sys.stderr, dynamic_ncols=True)
        self._bar.total = total  # a stage may be several downloads
        self._bar.update(done - self._bar.n)


def require_folder(file: Path) -> None:
    """InputError, before any work is done, if `file` has no folder to be written in."""
    if not file.parent.is_dir():
        raise InputError(f"the folder of '{file}' does not exist: make {file.parent}, or choose another")
    if file.is_dir():
        raise InputError(f"'{file}' is a folder; give the name of a file")
