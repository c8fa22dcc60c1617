"""Progress bars of the commands, and output on consoles that cannot show every character."""

import io
import sys
import time
from typing import Any

from ..dependencies import require


class Progress:
    """Progress bars on standard error, one a stage, as an on_progress(stage, done, total) callback."""

    def __init__(self) -> None:
        self._tqdm = require("tqdm", "The progress bar").tqdm
        self._stage = ""
        self._bar: Any = None  # of tqdm, for this stage

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

    def note(self, text: str) -> None:
        """A text behind the bar of this stage."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)


class RowProgress:
    """One bar of rows with the time left; beside it how many failed, and on a terminal the stage of the row at work."""

    def __init__(self, n_rows: int, n_done: int) -> None:
        tqdm = require("tqdm", "The progress bar").tqdm
        # Of the whole run, not of the last rows: several workers end theirs together.
        self._bar = tqdm(
            desc="rows", total=n_rows, initial=n_done, unit="row", file=sys.stderr, dynamic_ncols=True, smoothing=0
        )
        self._shown_at, self._out = 0.0, sys.stdout

    def __enter__(self) -> "RowProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def row(self, n_failed: int) -> None:
        """One row has ended."""
        self._bar.set_postfix_str(f"{n_failed} failed" if n_failed else "", refresh=False)
        self._bar.update()

    def stage(self, stage: str, done: int, total: int) -> None:
        """An on_progress callback."""
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._shown_at > 0.2:
            self._shown_at = now
            self._bar.set_postfix_str(f"{stage} {100 * done // max(total, 1)} %")

    def print(self, text: object) -> None:
        """A line on standard output, above the bar."""
        with self._bar.external_write_mode():
            print(text, file=self._out, flush=True)


def print_everywhere() -> None:
    """Let the console show what its encoding lacks as escapes, where printing would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
