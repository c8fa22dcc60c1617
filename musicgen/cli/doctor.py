"""The command `doctor`: what is installed on this machine, and what stops or slows music.

No library is imported before its own check, and a check that fails is a finding: the command runs where torch is
broken. The engine's modules are therefore imported inside functions.
"""

import argparse
import contextlib
import importlib
import json
import os
import platform
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal
from urllib.parse import urlsplit

from ..dependencies import require
from ..errors import DependencyError
from .console import print_everywhere
from .folders import PACK, comfyui_dir, models_dir

Status = Literal["ok", "note", "stop"]

MIN_PYTHON = (3, 10)
MIN_FREE_BYTES = 2 * 2**30  # musicgen-small in float32 with its text encoder needs about this much
BANDWIDTH_S = 0.4  # time for one measurement
# Module, what needs it, name on the package index where it is another.
REQUIRED = (
    ("torch", "everything", None),
    ("numpy", "everything", None),
    ("transformers.models.t5.modeling_t5", "the text encoder", "transformers"),
    ("transformers.models.encodec.modeling_encodec", "the codec", "transformers"),
    ("av", "reading and writing audio files", None),
    ("julius", "resampling", None),
    ("pyloudnorm", "measuring loudness", None),
    ("tqdm", "the progress bar of the command line", None),
    ("yaml", "audiocraft's checkpoints", "pyyaml"),
)
NUMBA_GAIN = "on an x86 CPU, bfloat16, float16 and int8 write music in about two thirds of the time"
_MARKS = {"ok": "  ", "note": "! ", "stop": "X "}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    group: str
    name: str
    value: str
    status: Status = "ok"  # note: slower or incomplete; stop: no music can be made
    advice: str = ""  # one sentence


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """The arguments of `doctor`."""
    parser.set_defaults(run=_doctor)
    parser.add_argument("--models", type=Path, default=models, metavar="DIR", help="models folder (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(argv: Sequence[str] | None = None) -> int:
    """The command by itself, without the other commands' imports. `argv` begins with the word doctor."""
    parser = argparse.ArgumentParser(prog="python -m musicgen doctor", description="Say what stops or slows music.")
    add(parser, models_dir())
    print_everywhere()
    return _doctor(parser.parse_args((sys.argv[1:] if argv is None else argv)[1:]))


def _doctor(arguments: argparse.Namespace) -> int:
    """Print the report. Exit status: 1 if something stops music, else 0."""
    findings = examine(arguments.models)
    ok = all(finding.status != "stop" for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": ok, "advice": advice(findings), "findings": [asdict(each) for each in findings]}))
    else:
        print(report(findings))
    return 0 if ok else 1


def report(findings: Sequence[Finding]) -> str:
    """Findings as lines of text, by group; the advice is the last line."""
    lines, group = [], ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            lines += ["", group]
        lines.append(f"{_MARKS[finding.status]}{finding.name:<18} {finding.value}")
    return "\n".join([*lines, "", advice(findings)]).lstrip("\n")


def advice(findings: Sequence[Finding]) -> str:
    """The one sentence that helps most: of what stops music, else of what slows it."""
    for status in ("stop", "note"):
        for finding in findings:
            if finding.status == status and finding.advice:
                return finding.advice
    return 'All is well: python -m musicgen generate --prompt "calm piano" --out music.wav'


def examine(models: Path) -> list[Finding]:
    """All checks. One that raises is reported as a finding of its own group."""
    findings: list[Finding] = []
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("Versions", _versions),
        ("Device", _devices),
        ("Numba", _numba),
        ("Memory", _memory),
        ("Models", lambda: _models(models)),
        ("Folders", lambda: _folders(models)),
        ("Network", _network),
    )
    for group, check in checks:
        try:
            findings.extend(check())
        except Exception as error:  # a report of a broken machine must not break
            findings.append(Finding(group, "check failed", _reason(error), "note"))
    return findings


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]


def _torch() -> ModuleType | None:
    """torch, or None where it cannot be imported: `_versions` reports why."""
    with contextlib.suppress(Exception):
        return importlib.import_module("torch")
    return None


def _versions() -> Iterator[Finding]:
    group, version = "Versions", platform.python_version()
    old = sys.version_info[:2] < MIN_PYTHON
    needed = ".".join(map(str, MIN_PYTHON))
    remedy = f"Use Python {needed} or newer: this is {version}."
    yield Finding(group, "Python", f"{version}, {sys.executable}", "stop" if old else "ok", remedy if old else "")
    yield Finding(group, "system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield Finding(group, "musicgen-pansori", _pack_version())
    root = comfyui_dir()
    yield Finding(
        group, "ComfyUI", _comfyui_version(root) if root else "not found; it is not needed for this command line"
    )
    for name, purpose, package in REQUIRED:
        yield _library(name, purpose, package or name)


def _library(module: str, purpose: str, package: str) -> Finding:
    try:
        require(module, purpose, package)
    except DependencyError as error:
        cause = error.__cause__ or error
        remedy = f"Install or repair {package}: {sys.executable} -m pip install {package}"
        return Finding("Versions", package, f"needed for {purpose}: {_reason(cause)}", "stop", remedy)
    version = getattr(sys.modules[module.partition(".")[0]], "__version__", "installed")
    return Finding("Versions", package, f"{version}, for {purpose}")


def _pack_version() -> str:
    text = (PACK / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+?)"', text, re.MULTILINE)
    return found[1] if found else "unknown"


def _comfyui_version(root: Path) -> str:
    try:
        text = (root / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        return f"unknown version, {root}"
    found = re.search(r'__version__ = "(.+?)"', text)
    return f"{found[1] if found else 'unknown version'}, {root}"


def _devices() -> Iterator[Finding]:
    group, torch = "Device", _torch()
    if torch is None:
        return
    from .. import accel

    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    for name in names:
        free, total = torch.cuda.mem_get_info(name)
        what = f"{torch.cuda.get_device_name(name)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        yield Finding(group, name, what)
    if torch.backends.mps.is_available():
        names.append("mps")
        yield Finding(group, "mps", "Apple's GPU")
    yield Finding(group, "cpu", f"{_cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch")
    device = names[0] if names else "cpu"
    precision = accel.default_precision(device)
    yield Finding(group, "precision auto", f"{precision} on {device}: {_why(device, precision)}")
    if not names and torch.version.cuda is None and _has_nvidia_driver():
        remedy = "Install a torch built for CUDA: this one is for CPUs, and the machine has an NVIDIA driver."
        yield Finding(group, "CUDA", f"torch {torch.__version__} is built without it", "note", remedy)


def _why(device: str, precision: str) -> str:
    if device.startswith("cuda"):
        return "half the memory to read, as the reference runs there"
    if precision == "float16":
        return "weights are rounded to it, sums are in float32; half the memory to read"
    return "torch has no packed 16-bit weights for this processor"


def _has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia").exists() or Path("C:/Windows/System32/nvcuda.dll").exists()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _numba() -> Iterator[Finding]:
    group = "Numba"
    try:
        numba = importlib.import_module("numba")
    except ModuleNotFoundError as error:
        if error.name != "numba":
            yield Finding(group, "Numba", _reason(error), "note", _numba_advice())
            return
        yield Finding(group, "Numba", f"not installed; with it, {NUMBA_GAIN}", "note", _numba_advice())
        return
    except Exception as error:
        yield Finding(group, "Numba", f"cannot be imported: {_reason(error)}", "note", _numba_advice())
        return
    if numba.config.DISABLE_JIT:
        yield Finding(group, "Numba", f"{numba.__version__}, switched off", "note", "Unset NUMBA_DISABLE_JIT.")
        return
    try:
        compiled = numba.njit(lambda x: x + 1)(1)
    except Exception as error:  # a compiler raises anything
        yield Finding(group, "Numba", f"{numba.__version__} cannot compile: {_reason(error)}", "note", _numba_advice())
        return
    assert compiled == 2
    yield Finding(group, "Numba", f"{numba.__version__}, compiles; {NUMBA_GAIN}")


def _numba_advice() -> str:
    return f"Install or repair Numba for more speed: {sys.executable} -m pip install --upgrade numba"


def _memory() -> Iterator[Finding]:
    group, free = "Memory", free_ram_bytes()
    low = free is not None and free < MIN_FREE_BYTES
    remedy = "Close other programs: musicgen-small needs about 2 GB of free memory." if low else ""
    value = "unknown" if free is None else f"{free / 1e9:.1f} GB"
    yield Finding(group, "free RAM", value, "note" if low else "ok", remedy)
    torch = _torch()
    if torch is None:
        return
    n_bytes = 2**28 if free is None or free > 2**31 else 2**26
    yield Finding(group, "bandwidth, cpu", f"{bandwidth(torch, 'cpu', n_bytes) / 1e9:.1f} GB/s")
    if torch.cuda.is_available():
        yield Finding(group, "bandwidth, cuda", f"{bandwidth(torch, 'cuda', n_bytes) / 1e9:.0f} GB/s")


def free_ram_bytes() -> int | None:
    """Memory that a program may take without swapping; None where the system does not say."""
    with contextlib.suppress(Exception):
        return int(importlib.import_module("psutil").virtual_memory().available)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return None


def bandwidth(torch: ModuleType, device: str, n_bytes: int) -> float:
    """Bytes a second at which a tensor larger than the caches is read."""
    tensor = torch.ones(n_bytes // 4, device=device)
    tensor.sum()
    best, end = float("inf"), time.perf_counter() + BANDWIDTH_S
    while time.perf_counter() < end:
        begun = time.perf_counter()
        tensor.sum().item()  # waits for the device
        best = min(best, time.perf_counter() - begun)
    return n_bytes / best


def _models(models: Path) -> Iterator[Finding]:
    group = "Models"
    if _torch() is None:
        return
    from ..checkpoints.open import detect
    from ..store.published import SHIPPED

    found = list(_checkpoints(models / "musicgen"))
    found += [file for file in SHIPPED.values() if file.is_file()]
    for path in found:
        kind = detect(path) if path.is_dir() else "one file"
        yield Finding(group, path.name, f"{_size(path) / 1e9:.3f} GB, {kind}, {path}")
    if not found:
        remedy = "Download a model: python -m musicgen generate --model facebook/musicgen-small --out music.wav"
        yield Finding(group, "none", f"neither in {models / 'musicgen'} nor in the pack", "stop", remedy)


def _checkpoints(folder: Path) -> Iterator[Path]:
    """Models and MultiBand Diffusion files below the folder."""
    from ..store import ModelStore

    store = ModelStore([folder])
    for kind in ("model", "diffusion"):
        for name in store.list(kind):
            yield store.find(name, kind)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _folders(models: Path) -> Iterator[Finding]:
    root = comfyui_dir()
    for name, folder in (("models", models / "musicgen"), ("text encoders", models / "text_encoders")):
        reason = unwritable(folder)
        remedy = f"Make {folder} writable: downloaded models are kept there." if reason else ""
        yield Finding("Folders", name, f"{folder}: {reason or 'writable'}", "note" if reason else "ok", remedy)
    output = root / "output" if root else Path.cwd()
    reason = unwritable(output)
    remedy = f"Make {output} writable: music is saved there." if reason else ""
    yield Finding("Folders", "output", f"{output}: {reason or 'writable'}", "note" if reason else "ok", remedy)


def unwritable(folder: Path) -> str:
    """Why no file can be made in the folder, or in the nearest one above it that exists; empty if one can."""
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as error:
        return f"not writable ({_reason(error)})"


def _network() -> Iterator[Finding]:
    group = "Network"
    proxies = {scheme: _without_password(url) for scheme, url in urllib.request.getproxies().items()}
    yield Finding(group, "proxy", ", ".join(f"{scheme}: {url}" for scheme, url in proxies.items()) or "none")
    endpoint = os.environ.get("HF_ENDPOINT") or ""
    yield Finding(group, "HF_ENDPOINT", _without_password(endpoint) or "not set: the hub itself")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    remedy = "Unset HF_HUB_OFFLINE to download models." if offline else ""
    yield Finding(group, "offline", "yes: HF_HUB_OFFLINE" if offline else "no", "note" if offline else "ok", remedy)


def _without_password(url: str) -> str:
    """The address without user name, password and query: reports are pasted in public."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "not a usable address" if url else ""
    scheme = f"{parts.scheme}://" if parts.scheme else ""
    return f"{scheme}{parts.hostname or ''}{port}{parts.path}" if url else ""
