"""What every training run shares: a time box, checkpoints that appear whole, a log that a spreadsheet opens."""

import csv
import ctypes
import math
import os
import signal
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch

CHECKPOINT_S = 170.0  # seconds between two checkpoints
_PAUSE_S = 120.0


class TimeBox:
    """Says when to stop: after so many minutes, or when the process is asked to end (SIGTERM, SIGINT).

    Time is counted from one look at the clock to the next, and a longer gap than _PAUSE_S counts as that: a process that
    was stopped for a while, on a machine that slept or was needed for something else, makes up for it.
    """

    def __init__(self, minutes: float) -> None:
        self.elapsed_s = self._saved_s = 0.0
        self._looked = time.monotonic()
        self._limit_s = 60 * minutes
        self._asked = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._ask)

    @property
    def over(self) -> bool:
        """To be asked at every step."""
        now = time.monotonic()
        self.elapsed_s += min(now - self._looked, _PAUSE_S)
        self._looked = now
        return self._asked or self.elapsed_s >= self._limit_s

    def checkpoint_due(self) -> bool:
        """True once every CHECKPOINT_S."""
        if self.elapsed_s - self._saved_s < CHECKPOINT_S:
            return False
        self._saved_s = self.elapsed_s
        return True

    def _ask(self, *_: object) -> None:
        self._asked = True


class Means:
    """Of numbers by name, since they were last taken."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[float]] = defaultdict(list)

    def add(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._numbers[name].append(value)

    def taken(self) -> dict[str, float]:
        numbers, self._numbers = self._numbers, defaultdict(list)
        return {name: sum(values) / len(values) for name, values in numbers.items()}


class Log:
    """Appends rows to a CSV file, and prints them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, row: Mapping[str, float]) -> None:
        new = not self._path.exists()
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(row)
            writer.writerow(f"{value:.6g}" for value in row.values())
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


def learning_rate(peak: float, done: float, step: int, warm_up_steps: int) -> float:
    """Rises over the first steps, falls along a cosine as `done` goes from 0 to 1, and then stays at a twentieth."""
    cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return peak * cosine * min(1.0, (step + 1) / warm_up_steps)


def save(path: Path, table: Mapping) -> None:
    """torch.save that leaves the file of before, or the new one, but never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(draft, "wb") as file:
            torch.save(dict(table), file)
            file.flush()
            os.fsync(file.fileno())  # or a machine that loses power may keep the name and not the bytes
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def keep_memory() -> None:
    """Have glibc keep freed memory for the next step, where it would hand large blocks back and clear them anew.

    On a CPU this makes the codec's training a tenth faster, and coding half as fast again. Nothing elsewhere.
    """
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in ((-3, 32 * 2**20), (-1, 2**31 - 1), (-2, 256 * 2**20)):  # mmap threshold, trim, top pad
        mallopt(parameter, value)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether matrices are multiplied faster in bfloat16 than in float32 there. A processor without instructions for it is slower."""
    if device.type != "cpu":
        return device.type == "cuda"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public name says it
    return torch.backends.mkldnn.is_available() and supported is not None and supported()


def pick_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
