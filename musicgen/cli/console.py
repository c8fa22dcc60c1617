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
    """Let standard output replace what its encoding lacks, as standard error does, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
