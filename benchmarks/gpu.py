"""One command for whoever has a CUDA card: checks first, then speed beside audiocraft and transformers.

    python benchmarks/gpu.py --out gpu-report.md

Takes under 8 minutes; what there is no time left for is left out, and said to be. Writes one Markdown file to paste into an
issue. Exit status: 0 all checks passed, 1 some failed, 2 there is no CUDA device.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import ROOT

BUDGET_S = 470.0
CHECKS_S = 270.0  # of it, at most
# Options of lm.py, the most useful first.
TABLES = (
    ("--sizes", "small", "--seconds", "8", "--steps", "150"),
    ("--sizes", "medium", "--seconds", "8", "--steps", "100", "--precisions", "float16"),
    ("--sizes", "small", "--seconds", "30", "--steps", "100", "--batches", "4", "--precisions", "float16"),
)
LEAST_S = 40.0  # a table is not begun with less


@dataclass(frozen=True)
class Check:
    """One test: passed, failed or skipped, and why."""

    name: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0


def run(command: list[str], timeout_s: float) -> tuple[int | None, str]:
    """(exit status, output) of a command in the project's folder; None where its time was up."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "HF_HUB_OFFLINE": "1"}, start_new_session=os.name != "nt",
    )  # fmt: skip
    try:
        return (process.communicate(timeout=timeout_s)[0], process.returncode)[::-1]
    except subprocess.TimeoutExpired:
        stop(process)
        return None, process.communicate()[0]


def stop(process: subprocess.Popen) -> None:
    """End a process and those that it began."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
    else:
        os.killpg(process.pid, 9)


def checks(timeout_s: float) -> tuple[list[Check], str]:
    """The tests of tests/gpu, and what pytest printed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", f"--junitxml={file}"]
        status, output = run([*command, "-p", "no:cacheprovider"], timeout_s)
        found = read(file) if file.exists() else []
    if status is None:
        found.append(Check("all checks", "failed", f"not finished in {timeout_s:.0f} s"))
    elif status not in (0, 1) or not found:
        found.append(Check("all checks", "failed", f"pytest ended with status {status}"))
    return found, output


def read(file: Path) -> list[Check]:
    """The checks in a JUnit file."""
    found = []
    for case in ElementTree.parse(file).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}: {case.get('name', '')}"
        outcome, reason = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if child.tag == "skipped" else "failed"
                reason = (child.get("message") or "").strip().partition("\n")[0]
        found.append(Check(name, outcome, reason, float(case.get("time", 0))))
    return found


def check_lines(found: list[Check], output: str) -> list[str]:
    """The checks as Markdown: counts, what failed with pytest's words, what was skipped and why."""
    counts = Counter(check.outcome for check in found)
    lines = ["## Checks", "", ", ".join(f"{counts[kind]} {kind}" for kind in ("passed", "failed", "skipped"))]
    for outcome in ("failed", "skipped"):
        chosen = [check for check in found if check.outcome == outcome]
        if chosen:
            lines += ["", f"{outcome.capitalize()}:", ""]
            lines += [f"- {check.name}: {check.reason[:300]}" for check in chosen]
    if counts["failed"]:
        lines += ["", "<details><summary>pytest</summary>", "", "```", output[-12_000:].strip(), "```", "</details>"]
    return lines


def table_lines(deadline: float) -> list[str]:
    """Speed tables until the deadline, a moment of `time.monotonic()`."""
    lines = ["## Speed"]
    for options in TABLES:
        command = ["benchmarks/lm.py", "--device", "cuda", "--rounds", "1", *options]
        left = deadline - time.monotonic()
        if left < LEAST_S:
            lines += ["", f"No time left for `python {' '.join(command)}`"]
            continue
        status, output = run([sys.executable, *command], left)
        lines += ["", output.strip().replace("\n# ", "\n### ").removeprefix("# ")]
        if status:
            lines += ["", f"It ended with status {status}."]
        elif status is None:
            lines += ["", "Its time was up before it was finished."]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-report.md"), metavar="FILE.md", help="(%(default)s)")
    arguments = parser.parse_args()
    begun = time.monotonic()
    import torch

    if not torch.cuda.is_available():
        print(
            "There is no CUDA device here, so nothing was checked. `python -m musicgen doctor` says what torch finds."
        )
        return 2
    lines = [f"# {torch.cuda.get_device_name()}, {time.strftime('%Y-%m-%d')}", ""]
    found, output = checks(CHECKS_S)
    lines += [*check_lines(found, output), "", *table_lines(begun + BUDGET_S - 15)]
    _, doctor = run([sys.executable, "-m", "musicgen", "doctor"], 60)
    lines += ["", "## Machine", "", "```", doctor.strip(), "```", "", f"{time.monotonic() - begun:.0f} s in all"]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines), f"\n\nThe report is in {arguments.out.resolve()}", sep="\n")
    return 1 if any(check.outcome == "failed" for check in found) else 0


if __name__ == "__main__":
    sys.exit(main())
