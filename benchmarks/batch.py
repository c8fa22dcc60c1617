"""Throughput of `python -m musicgen batch`: one process, one worker on Ray, two workers; and what a cluster would give.

    python benchmarks/batch.py [--rows 40] [--seconds 1] [--workers 1 2] [--out DIR]

Each run is a process of its own with one thread a worker. "Start" is the time to the first clip. The rate counts the clips after
the first one of each worker, until the last one. "Lost" is what is missing to the rate of one process times the workers. Prints
tables, asserts nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(table, out, options):
    """One run -> (seconds to the first clip, clips a second after the start, median seconds of a clip, median seconds between a
    worker's clips that it did not compute in, entries of the manifest)."""
    begun = time.time()
    command = [sys.executable, "-m", "musicgen", "batch", str(table), "--out", str(out), "--threads", "1", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise SystemExit(done.stderr)
    entries = [json.loads(line) for line in (out / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    by_worker, times, idle = {}, [], []
    for entry in entries:
        finished = datetime.fromisoformat(entry["finished"]).timestamp()
        times.append(finished)
        earlier = by_worker.setdefault(entry["worker"], [])
        if earlier:
            idle.append(finished - earlier[-1] - entry["took_s"])
        earlier.append(finished)
    started = max(finished[0] for finished in by_worker.values())
    later = [finished for finished in times if finished > started]
    took_s = statistics.median(entry["took_s"] for entry in entries)
    rate = len(later) / (max(times) - started)
    return min(times) - begun, rate, took_s, statistics.median(idle), entries


def model(rate, start_s, idle_s, rows):
    """The table of a cluster: minutes for `rows` clips on n equal workers, from the rates measured here."""
    print(f"\n{rows} clips on n workers, a core each, on machines with nothing else to do (derived):\n")
    print("| workers | minutes | clips a minute |\n|---|---|---|")
    for workers in (1, 2, 8, 32):
        seconds = start_s + max(rows / workers / rate, rows * idle_s)
        print(f"| {workers} | {seconds / 60:.1f} | {60 * rows / seconds:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, help="folder to keep the clips in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / "rows.csv"
        lines = [f"slow pansori number {number},{arguments.seconds}" for number in range(arguments.rows)]
        table.write_text("\n".join(["prompt,duration", *lines]), encoding="utf-8")
        runs = {"one process": (1, [])}
        runs |= {f"Ray, {count} workers": (count, ["--ray", "--workers", str(count)]) for count in arguments.workers}
        print(
            "| run | start, s | clips a minute | a clip in its worker, s | between clips, s | lost |\n|---|---|---|---|---|---|"
        )
        single, clips = None, set()
        for number, (name, (count, options)) in enumerate(runs.items()):
            start_s, rate, took_s, idle_s, entries = run(table, folder / str(number), options)
            single = single or rate
            clips.add(tuple(sorted(entry["files"][0]["sha256"] for entry in entries)))
            lost = f"{100 * (1 - rate / single / count):.0f} %"
            print(f"| {name} | {start_s:.1f} | {60 * rate:.1f} | {took_s:.2f} | {idle_s:.3f} | {lost} |", flush=True)
        print("\nthe same bytes in every run" if len(clips) == 1 else "\nTHE BYTES DIFFER")
        model(single, start_s, idle_s, 1000)


if __name__ == "__main__":
    main()
