"""Workers: what makes the files of one task. A task is plain values, and so is what comes back: both cross processes."""

import contextlib
import functools
import logging
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import torch

from ..audio import write
from ..errors import MusicGenError
from ..render import OnProgress, find_device
from ..replicate.contracts import PansoriRequest
from ..replicate.predict import Predictor

logger = logging.getLogger(__name__)

Files = list[tuple[str, bytes]]  # (suffix, content) of each


class WorkerAwayError(Exception):
    """The worker does not answer. `lost`: it took the task before it went."""

    def __init__(self, message: str, lost: bool) -> None:
        super().__init__(message)
        self.lost = lost


class Lane(Protocol):
    """A worker as the dispatcher sees it: one task at a time, answered by the dictionary that `EngineWorker.run` returns."""

    @property
    def name(self) -> str: ...

    def start(self, task: dict[str, Any]) -> "Future[dict[str, Any]]": ...


def failure(error: Exception) -> dict[str, Any]:
    """The answer of a task that failed: {"error"} of the row, or {"away", "lost"} of the worker."""
    if isinstance(error, WorkerAwayError):
        return {"away": str(error), "lost": error.lost}
    if isinstance(error, MusicGenError):
        return {"error": str(error)}
    logger.info("a row failed", exc_info=error)
    return {"error": f"{type(error).__name__}: {error}"}


class EngineWorker:
    """Makes tasks of fields in this process; the model stays loaded."""

    def __init__(
        self,
        models: str,
        device: str = "auto",
        threads: int | None = None,
        on_progress: OnProgress = lambda stage, done, total: None,
    ) -> None:
        """threads: on a CPU; None = all that torch takes. The last bits of the sound depend on their number."""
        if threads:
            torch.set_num_threads(threads)
        self._models, self._device, self._on_progress = models, device, on_progress
        self._options, self._predictor = None, None

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        """{"files", "made_by", "took_s"}, or that of `failure`."""
        begun = time.perf_counter()
        try:
            files, made_by = self._make(task)
        except Exception as error:  # a row that fails must not stop the others
            return failure(error)
        return {"files": files, "made_by": made_by, "took_s": round(time.perf_counter() - begun, 3)}

    def _make(self, task: dict[str, Any]) -> tuple[Files, dict[str, Any]]:
        request = PansoriRequest.of(task["fields"])
        options = {name: task[name] for name in ("precision", "diffusion") if name in task}
        if self._predictor is None or options != self._options:
            self._predictor, self._options = None, options
            self._predictor = Predictor(
                Path(self._models), device=self._device, on_progress=self._on_progress, **options
            )
        audio = self._predictor.audio(request, task["model"])
        suffix = f".{request.output_format}"
        with tempfile.TemporaryDirectory(prefix="musicgen-") as folder:
            content = write(audio, Path(folder) / f"clip{suffix}").read_bytes()
        device = {"device": str(find_device(self._device)), "threads": torch.get_num_threads()}
        made_by = {**versions(), **device, "host": platform.node(), "pid": os.getpid()}
        return [(suffix, content)], made_by


class EngineLane:
    """The worker of this process. A task has ended when `start` returns."""

    name = "this process"

    def __init__(self, worker: EngineWorker) -> None:
        self._worker = worker

    def start(self, task: dict[str, Any]) -> "Future[dict[str, Any]]":
        future: Future[dict[str, Any]] = Future()
        future.set_result(self._worker.run(task))
        return future


@contextlib.contextmanager
def engine_lanes(**options: Any) -> Iterator[list[Lane]]:
    """The one lane of this process; options of EngineWorker."""
    yield [EngineLane(EngineWorker(**options))]


@functools.cache
def versions() -> dict[str, str]:
    """Versions that a clip's last bits may depend on."""
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    pack = re.search(r'^version = "(.+?)"', text, re.MULTILINE)
    return {
        "musicgen_pansori": pack[1] if pack else "unknown",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
