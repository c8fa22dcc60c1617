"""What the benchmarks share: the pack under a name, one process for each measurement, the clock, memory, the machine."""

import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PRECISIONS = ("float32", "bfloat16", "float16", "int8")  # of this engine
FLOATS = PRECISIONS[:-1]


class Failed(Exception):
    """A process that was to measure ended with an error; the end of what it said."""


def load_pack():
    """The pack under an importable name, as ComfyUI would load it."""
    if "pack" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        sys.modules["pack"] = importlib.util.module_from_spec(spec)


def measured(file, *options, environment=None):
    """Run `file` with these options in a process of its own; the JSON of its last line."""
    command = [sys.executable, file, *map(str, options)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise Failed(f"{' '.join(map(str, options))} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def in_turn(contenders, rounds, measure):
    """{contender: its results}: each contender once a round, so that all meet the same weather."""
    results = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            results[contender].append(measure(contender))
    return results


def wait(device):
    """Until the GPU has done what it was given."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device="cpu"):
    """The most memory that this process has had so far. (Linux counts a parent's into ru_maxrss.)"""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_bytes(device):
    """Memory that is not in use; without end where that is not told."""
    import torch

    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), float("inf"))


def save(name, lines):
    """Keep these lines among the results."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def machine(device):
    """The GPU's name, or the processor's with the instructions that matter here."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    kinds = [kind for kind in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if kind in flags]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.machine()} ({', '.join(kinds)})"
