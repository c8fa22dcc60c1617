"""Progress bars of the commands, and output on consoles that cannot show every character."""

import io
import sys

from ..dependencies import require


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


def print_everywhere() -> None:
    """Let the console show what its encoding lacks as escapes, where printing would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
