"""Every job ends exactly once, whatever happens to the workers."""

import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from comfyui_musicgen.musicgen.batch.dispatch import TRIES, dispatch
from comfyui_musicgen.musicgen.batch.rows import Job

JOBS = [Job(row, f"key-{row}", f"clip-{row}", row, "", {"row": row}) for row in range(2, 14)]
AWAY, LOST = {"away": "no answer", "lost": False}, {"away": "no answer", "lost": True}


def made(task):
    return {"files": [(".wav", str(task["row"]).encode())], "made_by": {}, "took_s": 0.1}


class Lane:
    """Answers by a function of the task, in a thread."""

    def __init__(self, name, reply):
        self.name, self._reply, self._pool = name, reply, ThreadPoolExecutor(1)

    def start(self, task):
        return self._pool.submit(self._reply, task)


def run(*lanes, jobs=JOBS, patience_s=0.2):
    outcomes = list(dispatch(jobs, lanes, pause_s=0.02, patience_s=patience_s))
    assert Counter(outcome.job.row for outcome in outcomes) == Counter(job.row for job in jobs)
    return {outcome.job.row: outcome for outcome in outcomes}


def test_all_lanes_take_part():
    together = threading.Barrier(3, timeout=10)

    def reply(task):
        together.wait()
        return made(task)

    outcomes = run(*(Lane(name, reply) for name in "abc"))
    assert {outcome.worker for outcome in outcomes.values()} == {"a", "b", "c"}
    assert all(outcome.files == [(".wav", str(row).encode())] for row, outcome in outcomes.items())


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("reply", [AWAY, LOST])
def test_the_rows_of_a_worker_that_died_go_to_another(after, reply):
    seen = Counter()

    def dying(task):
        seen["dying"] += 1
        return made(task) if seen["dying"] <= after else reply

    outcomes = run(Lane("dying", dying), Lane("other", made))
    assert all(outcome.error is None for outcome in outcomes.values())


def test_a_worker_that_comes_back_is_used_again():
    seen = Counter()

    def reply(task):
        seen["asked"] += 1
        return AWAY if 2 <= seen["asked"] <= 4 else made(task)

    assert all(outcome.error is None for outcome in run(Lane("only", reply)).values())


def test_a_row_that_loses_its_workers_fails_alone():
    seen = Counter()

    def reply(task):
        seen[task["row"]] += 1
        return LOST if task["row"] == 4 else made(task)

    outcomes = run(Lane("a", reply), Lane("b", reply), patience_s=10)
    assert [row for row, outcome in outcomes.items() if outcome.error] == [4] and seen[4] == TRIES
    assert "no answer" in outcomes[4].error


def test_a_row_that_fails_stops_no_other():
    def reply(task):
        if task["row"] == 5:
            raise ValueError("odd\nand long")
        return {"error": "wrong clip"} if task["row"] == 4 else made(task)

    outcomes = run(Lane("a", reply))
    assert {row: outcome.error for row, outcome in outcomes.items() if outcome.error} == {
        4: "wrong clip",
        5: "ValueError: odd",
    }


def test_without_workers_the_rest_is_given_up():
    outcomes = run(Lane("a", lambda task: made(task) if task["row"] < 4 else AWAY))
    assert [row for row, outcome in outcomes.items() if outcome.error is None] == [2, 3]
    assert outcomes[9].error == "no worker is left: no answer"


def test_rows_begin_in_their_order():
    begun = []

    class Here:
        name = "here"

        def start(self, task):
            begun.append(task["row"])
            future = Future()
            future.set_result(made(task))
            return future

    run(Here())
    assert begun == [job.row for job in JOBS]
