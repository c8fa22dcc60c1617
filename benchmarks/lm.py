"""Decoding speed and peak memory of this engine, audiocraft and transformers: one model, one run, one table.

    python benchmarks/lm.py [--sizes small] [--batches 1] [--seconds 8 30] [--steps 40] [--rounds 3] [--device cpu]
                            [--precisions float32 float16 int8] [--save NAME]

Random weights; see engines.py. A piece of 8 or 30 seconds is represented by the steps in its middle. Every engine runs
in a process of its own, in turn, `rounds` times; the median counts. The floor of a step is the time to read all weights
and the used part of the cache once, at the bandwidth that memory has then: on a CPU it is measured before and after every
ten steps, for neighbours on the machine may halve it from one second to the next, and steps between two measures that
differ are left out of the ratio. 50 steps are a second of music. Peak memory on a CPU is what comes on top of Python, its
libraries and what they set up for a tiny model. What this machine has no memory for is left out. Prints tables, asserts
nothing; --save keeps them in benchmarks/results/.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import CFG, ENGINES, N_TEXT, RATE_HZ, SIZES
from harness import PRECISIONS, Failed, free_bytes, in_turn, machine, measured, peak_bytes, save, wait


class Steps:
    """Takes the time of steps, as their `on_step`; on a CPU, and of a large tensor's reading now and then."""

    EVERY = 10  # steps between two readings
    SKIPPED = 2  # steps after a reading, until all is as before
    SAME = 1.15  # how far two readings may differ

    def __init__(self, device):
        import torch

        self._big = None if device == "cuda" else torch.ones(2**26)
        self._n_threads = torch.get_num_threads()
        self.first = None  # when the first one was done
        self._left, self._chunks, self._readings = None, [[]], []

    def __call__(self, done, total):
        now = time.perf_counter()
        if self.first is None:
            self.first = now
        elif self._left is not None:
            self._chunks[-1].append(now - self._left)
        if self._big is not None and (done - 1) % self.EVERY == 0:
            self._readings.append(self._read())
            self._chunks.append([])
        self._left = time.perf_counter()

    def _read(self):
        """Bytes a second, the median of five."""
        import torch

        n_threads, times = torch.get_num_threads(), []
        torch.set_num_threads(self._n_threads)
        for _ in range(5):
            begun = time.perf_counter()
            self._big.sum()
            times.append(time.perf_counter() - begun)
        torch.set_num_threads(n_threads)
        time.sleep(0.02)  # its threads look out for work meanwhile
        return self._big.nbytes / statistics.median(times)

    @property
    def seconds(self):
        """A step's."""
        return statistics.median(step for chunk in self._chunks for step in chunk[self.SKIPPED :])

    def to_floor(self, n_bytes):
        """Steps over the time that n_bytes take, and at which bandwidth; None where it changed all the time."""
        made = []
        for chunk, before, after in zip(self._chunks[1:], self._readings, self._readings[1:], strict=False):
            if max(before, after) <= self.SAME * min(before, after):
                memory = (before + after) / 2
                made.append((statistics.median(chunk[self.SKIPPED :]) * memory / n_bytes, memory))
        return [statistics.median(column) for column in zip(*made, strict=True)] if made else None


def worker(engine, size, batch, seconds, steps, precision, device):
    """One measurement: steps a second in the middle of a piece, the time to the first step, and memory."""
    import torch

    torch.manual_seed(0)
    timed = Steps(device)
    run, _ = ENGINES[engine]("tiny", 1, precision, device)
    with torch.inference_mode():
        run(8, 4, lambda done, total: None)  # loads and compiles what it needs
    del run, _
    libraries = peak_bytes()
    run, lm = ENGINES[engine](size, batch, precision, device)
    weights = sum(t.nbytes for t in lm.state_dict().values())
    before = max(0, int(seconds * RATE_HZ / 2) - steps // 2)
    marks = []
    with torch.inference_mode():
        run(8, 4, lambda done, total: None)  # what is set up once a process
        wait(device)
        begun = time.perf_counter()
        run(steps, before, lambda done, total: marks.append((done, time.perf_counter())))  # captures, and peak memory
        first = marks[0][1] - begun
        if device == "cuda":
            marks.clear()
            begun = time.perf_counter()
            run(steps, before, lambda done, total: marks.append((done, time.perf_counter())))
            wait(device)
            again, peak = marks[0][1] - begun, peak_bytes(device)
            speed = (marks[-1][0] - marks[0][0]) / (time.perf_counter() - marks[0][1])
            del run, lm
            memory = copy_bandwidth(device)
            to_floor = memory / speed / floor(size, batch, seconds, precision, device)
        else:
            begun = time.perf_counter()
            run(steps, before, timed)
            again, peak, speed = timed.first - begun, peak_bytes() - libraries, 1 / timed.seconds
            to_floor, memory = timed.to_floor(floor(size, batch, seconds, precision, device)) or (None, None)
    print(json.dumps({
        "speed": speed, "first": first, "again": again, "peak": peak, "weights": weights, "memory": memory,
        "to floor": to_floor,
    }))  # fmt: skip


def copy_bandwidth(device):
    """Bytes a second that are read or written where a large tensor is copied."""
    import torch

    big = torch.ones(2**29, device=device)
    other, best = torch.empty_like(big), 1e9
    for _ in range(8):
        wait(device)
        begun = time.perf_counter()
        other.copy_(big)
        wait(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * big.nbytes / best


def floor(size, batch, seconds, precision, device):
    """Bytes that a step has to read: matrices, keys and values."""
    dim, _, layers = SIZES[size]
    n_bytes = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}[precision]
    other_bytes = 4 if precision == "float32" else 2  # of heads and cache
    # int8 on a CPU: 72 bytes for 64 values, 40 for 32 keys.
    cached = (72 / 64 + 40 / 32) / 2 if precision == "int8" and device == "cpu" else other_bytes
    matrices = layers * 14 * dim * dim * n_bytes + 4 * 2048 * dim * other_bytes
    return matrices + 2 * layers * 2 * batch * dim * (int(seconds * RATE_HZ / 2) + N_TEXT) * cached


def fits(size, batch, seconds, precision, device):
    """Whether the weights and the cache do, and half as much of the cache once more for engines that copy theirs."""
    weights = floor(size, 0, seconds, precision, device)
    cache = floor(size, batch, seconds, precision, device) - weights
    return 1.15 * weights + 1.5 * cache < free_bytes(device)


def measure(arguments, *what):
    if not fits(*what[1:4], what[5], arguments.device):
        return None
    try:
        return measured(__file__, "--worker", *what, "--device", arguments.device)
    except Failed as error:
        print(error, file=sys.stderr)
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--seconds", nargs="+", type=float, default=[8, 30], help="of music")
    parser.add_argument("--steps", type=int, default=40, help="that are measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["float32", "float16", "int8"], help="of this engine"
    )
    parser.add_argument("--save", metavar="NAME", help="keep the table as benchmarks/results/NAME.md")
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        engine, size, batch, seconds, steps, precision = arguments.worker
        worker(engine, size, int(batch), float(seconds), int(steps), precision, arguments.device)
        return
    out = head(arguments)
    print("\n".join(out), flush=True)
    for size, batch, seconds in itertools.product(arguments.sizes, arguments.batches, arguments.seconds):
        lines = table(arguments, size, batch, seconds)
        print("\n".join(lines), flush=True)
        out += lines
    if arguments.save:
        save(arguments.save, out)


def head(arguments):
    import torch
    import transformers

    return [
        f"# Decoding, {machine(arguments.device)}", "", time.strftime("%Y-%m-%d") + f"; torch {torch.__version__}, transformers "
        f"{transformers.__version__}, audiocraft 1.3.0, Python {platform.python_version()}; guidance {CFG:g}; median of "
        f"{arguments.rounds} rounds of {arguments.steps} steps", "", f"`python benchmarks/lm.py {' '.join(sys.argv[1:])}`",
    ]  # fmt: skip


def table(arguments, size, batch, seconds):
    reference = "float16" if arguments.device == "cuda" else "float32"
    contenders = [("audiocraft", reference), ("transformers", reference)]
    contenders += [("native", precision) for precision in arguments.precisions]
    runs = in_turn(
        contenders,
        arguments.rounds,
        lambda contender: measure(arguments, contender[0], size, batch, seconds, arguments.steps, contender[1]),
    )
    runs = {contender: [run for run in made if run] for contender, made in runs.items()}
    speeds = {key: statistics.median(run["speed"] for run in made) for key, made in runs.items() if made}
    lines = ["", f"## {size}, batch {batch}, {seconds:g} s", ""]
    lines.append("| engine | precision | steps/s | over audiocraft | over transformers | step over the floor | memory, GB/s | "
                 "prompt to first step, s | in a new process, s | peak memory, MB | over the weights |")  # fmt: skip
    lines.append("|---|---|---|---|---|---|---|---|---|---|---|")
    for (engine, precision), made in runs.items():
        if not made:
            lines.append(f"| {engine} | {precision} | no memory for it, or failed | | | | | | | | |")
            continue
        steps = speeds[engine, precision]
        over = [f"{steps / speeds[key]:.2f}" if key in speeds else "-" for key in contenders[:2]]
        peak, weights = max(run["peak"] for run in made), made[0]["weights"]
        again, first = (statistics.median(run[key] for run in made) for key in ("again", "first"))
        ratios, memory = ([run[key] for run in made if run[key]] for key in ("to floor", "memory"))
        to_floor = f"{statistics.median(ratios):.2f}" if ratios else "-"
        memory = (
            " to ".join(f"{each / 1e9:.0f}" for each in sorted({min(memory), max(memory)})) if memory else "changing"
        )
        lines.append(f"| {engine} | {precision} | {steps:.2f} | {over[0]} | {over[1]} | {to_floor} | {memory} | "
                     f"{again:.2f} | {first:.2f} | {peak / 1e6:.0f} | {peak / weights:.2f} |")  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
