"""Jobs on lanes: each lane has one at a time, and a job whose worker went away goes to another."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from .rows import Job
from .workers import Files, Lane

TRIES = 3  # workers that may be lost on one job before it counts as what loses them
PAUSE_S = 5.0  # before a worker that is away is asked again
PATIENCE_S = 60.0  # without any worker, before the rest is given up


@dataclass(frozen=True)
class Outcome:
    """What came of a job: its files, or why there are none."""

    job: Job
    files: Files
    error: str | None
    worker: str
    made_by: dict[str, Any]
    took_s: float = 0.0


def dispatch(
    jobs: Iterable[Job], lanes: Iterable[Lane], pause_s: float = PAUSE_S, patience_s: float = PATIENCE_S
) -> Iterator[Outcome]:
    """The outcome of each job exactly once, as they end. Jobs are begun in their order."""
    waiting, free = deque(jobs), deque(lanes)
    running: dict[Future[dict[str, Any]], tuple[Lane, Job]] = {}
    resting: deque[tuple[float, Lane]] = deque()
    lost: Counter[str] = Counter()
    heard_at, reason = time.monotonic(), ""
    while waiting or running:
        while resting and resting[0][0] <= time.monotonic():
            free.append(resting.popleft()[1])
        while waiting and free:
            lane, job = free.popleft(), waiting.popleft()
            running[lane.start(job.task)] = lane, job
        if not running:
            time.sleep(max(0.0, resting[0][0] - time.monotonic()))
            continue
        for future in wait(running, pause_s if resting else None, FIRST_COMPLETED).done:
            lane, job = running.pop(future)
            answer = _answer(future)
            if "away" not in answer:
                heard_at = time.monotonic()
                free.append(lane)
                yield _outcome(job, lane, answer)
                continue
            resting.append((time.monotonic() + pause_s, lane))
            reason, heard_at = answer["away"], time.monotonic() if answer["lost"] else heard_at
            lost[job.key] += answer["lost"]
            if lost[job.key] < TRIES:
                waiting.appendleft(job)
            else:
                yield _outcome(job, lane, {"error": f"{TRIES} workers went away while they made it: {reason}"})
        if not running and not free and time.monotonic() - heard_at > patience_s:
            for job in waiting:
                yield Outcome(job, [], f"no worker is left: {reason}", "", {})
            return


def _answer(future: "Future[dict[str, Any]]") -> dict[str, Any]:
    """A lane's answer; what it raised is the job's error."""
    error = future.exception()
    return future.result() if error is None else {"error": f"{type(error).__name__}: {error}".partition("\n")[0]}


def _outcome(job: Job, lane: Lane, answer: dict[str, Any]) -> Outcome:
    if "error" in answer:
        return Outcome(job, [], answer["error"], lane.name, {})
    return Outcome(job, answer["files"], None, lane.name, answer["made_by"], answer["took_s"])
