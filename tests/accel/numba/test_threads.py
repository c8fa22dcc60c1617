"""Threads that run one kernel together: an error ends all, callers take turns, torch has its threads back."""

import threading

import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.accel.numba import NumbaStepper
from comfyui_musicgen.musicgen.accel.numba.products import product
from comfyui_musicgen.musicgen.accel.numba.threads import team
from comfyui_musicgen.musicgen.lm import Int8Linear, RowNoise, Sampling, generate_codes
from comfyui_musicgen.tests.lm import tiny_lm

pytestmark = pytest.mark.skipif(accel.numba.load_kernels() is None, reason="there are no kernels for this processor")


@pytest.fixture
def threads():
    """Call it with the number that torch is to have."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("failing", [0, 2])
def test_an_error_ends_all_threads(threads, failing):
    """One thread that fails must not leave the others at the barrier."""
    from comfyui_musicgen.musicgen.accel.numba.intrinsics import barrier_wait

    threads(3)
    seen = []

    def kernel(thread, n_threads, barrier, fails):
        seen.append(thread)
        if thread == fails:
            raise KeyboardInterrupt
        barrier_wait(barrier, n_threads)

    kernel.signatures = [None]
    with pytest.raises(KeyboardInterrupt):
        team.run(kernel, failing)
    assert sorted(seen) == [0, 1, 2]
    team.run(kernel, None)
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]


def test_two_callers_take_turns(threads):
    """Of two kernels at once, each with some of the threads, neither would end."""
    threads(2)
    layer, x = Int8Linear(torch.randn(64, 64)), torch.randn(6, 64)
    expected, results = product(layer, x), []
    callers = [threading.Thread(target=lambda: results.extend(product(layer, x) for _ in range(20))) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(results) == 60 and all(torch.equal(each, expected) for each in results)


@pytest.mark.parametrize("precision", ["int8", "float16", "bfloat16"])
def test_torch_has_its_threads_back_after_a_run_and_after_a_cancelled_one(threads, precision):
    threads(2)
    lm, seen = tiny_lm.make(precision=precision), []

    def on_step(done, total):
        if done > 0:  # 0: the run is being prepared, by torch
            seen.append(torch.get_num_threads())
        if total == 11 and done == 3:
            raise InterruptedError

    def generate(n_frames):
        streams, noise = tiny_lm.streams(lm, (5,)), RowNoise(0, 1, 4, tiny_lm.CARD)
        with NumbaStepper(lm) as stepper:
            return generate_codes(
                lm, streams, tiny_lm.nulls((0,)), n_frames, Sampling(), noise, 3.0, on_step=on_step, stepper=stepper
            )

    assert generate(6).shape == (1, 4, 6)
    assert set(seen) == {1} and torch.get_num_threads() == 2
    with pytest.raises(InterruptedError):
        generate(8)
    assert torch.get_num_threads() == 2 and team.n_threads == 2


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_runs_that_overlap_may_end_in_any_order(threads, first_to_end):
    """The run that outlived the one it began beside once ended in a TypeError, and torch kept a single thread."""
    threads(2)
    runs = [team.alone(), team.alone()]
    for run in runs:
        run.__enter__()
    assert torch.get_num_threads() == 1 and team.n_threads == 2
    runs.pop(first_to_end).__exit__(None, None, None)
    assert torch.get_num_threads() == 1 and team.n_threads == 2
    runs.pop().__exit__(None, None, None)
    assert torch.get_num_threads() == 2 and team.n_threads == 2
