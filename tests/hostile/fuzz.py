"""Reads hostile inputs, one seed after the other: no foreign exception, no panic, 20 s and 300 MB at most.

    python tests/hostile/fuzz.py --seconds 60 [--seed N] [--kind tokenizer]

A process of its own reads them, so that even its death is seen. What fails is written to tests/hostile/corpus, which
the tests read from then on. Exit code 1 if anything failed.
"""

import argparse
import collections
import importlib
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).resolve().parent / "corpus"
PACK = "comfyui_musicgen"
KINDS = ("tokenizer", "pickle", "yaml", "safetensors", "config", "adapter")
HANG_S = 60  # of processor time for one input; a busy machine is no fault of the input
SILENT_S = 600  # without a word from the reading process


def load_kinds() -> types.ModuleType:
    """`kinds`, under the name that the pack has in the tests."""
    if PACK not in sys.modules:
        pack = types.ModuleType(PACK)
        pack.__path__ = [str(ROOT)]
        sys.modules[PACK] = pack
    return importlib.import_module(f"{PACK}.tests.hostile.kinds")


def read_all(names: list[str], seed: int, seconds: float) -> None:
    """The reading process: a line before and after each input, "kind seed outcome"."""
    kinds = load_kinds()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name in names:
            print(name, seed, "begins", flush=True)
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_PROF, HANG_S)  # SIGPROF, unhandled, ends the process
            data = kinds.from_seed(name, seed)
            try:
                outcome = kinds.attempt(name, data)
            except BaseException as error:
                traceback.print_exc()
                outcome = f"FAILED {type(error).__name__}"
                keep(name, seed, data)
            print(name, seed, outcome, flush=True)
        seed += 1


def keep(name: str, seed: int, data: bytes) -> None:
    (CORPUS / f"{name}-{seed}").write_bytes(data)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python tests/hostile/fuzz.py")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = options.kind or list(KINDS)
    if options.child:
        read_all(names, options.seed, options.seconds)
        return 0
    command = [sys.executable, __file__, "--child", "--seconds", str(options.seconds)]
    command += ["--seed", str(options.seed), *(part for name in names for part in ("--kind", name))]
    outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        watch = threading.Timer(SILENT_S, child.kill)
        for line in child.stdout:
            watch.cancel()
            watch = threading.Timer(SILENT_S, child.kill)
            watch.start()
            name, seed, outcome = last.split(maxsplit=2) if (last := line.strip()) else ("", "", "")
            if outcome != "begins":
                outcomes[name, outcome] += 1
        watch.cancel()
    if child.returncode and last.endswith("begins"):
        name, seed, _ = last.split()
        outcomes[name, f"FAILED: the process ended with {child.returncode} at seed {seed}"] += 1
        keep(name, int(seed), load_kinds().from_seed(name, int(seed)))
    for (name, outcome), n in sorted(outcomes.items()):
        print(f"{name:12} {outcome:12} {n}")
    return int(child.returncode != 0 or any("FAILED" in outcome for _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
