"""Run a fast part of the tests in a fresh environment of the given Python, torch and transformers.

    python tests/matrix.py --python 3.10 --torch 2.8.0 --transformers 4 --no-numba
    python tests/matrix.py --all

Needs uv (python -m pip install uv), which finds or downloads the Python and shares its cache between environments. The
environment is made in a temporary folder and deleted afterwards. What is not installed there (audiocraft, demucs,
ComfyUI, a browser) is skipped by the tests that need it, with the reason. Exit status: pytest's, or 1 where the
environment cannot be installed; with --all the largest of them.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TORCHES = ("2.8.0", "2.11.0")
FAST = (
    "tests/accel", "tests/audio", "tests/cli", "tests/codec", "tests/conditioning", "tests/lm", "tests/nodes",
    "tests/store", "tests/test_imports.py", "tests/test_pipeline.py",
)  # fmt: skip
TRANSFORMERS = {"4": "transformers>=4.37.2,<5", "5": "transformers>=5,<6"}
TEST_LIBRARIES = ("pytest>=8", "pytest-timeout", "pytest-xdist", "jsonschema", "soundfile")
VERSIONS = "import numpy, sys, torch, transformers; from importlib.util import find_spec; print('Python', \
sys.version.split()[0], '| torch', torch.__version__, '| transformers', transformers.__version__, '| numpy', \
numpy.__version__, '| Numba', __import__('numba').__version__ if find_spec('numba') else 'absent')"


@dataclass(frozen=True)
class Environment:
    """One point of the matrix."""

    python: str  # a version, or the path of an interpreter
    torch: str  # a version, or "newest"
    transformers: str  # a major version
    numba: bool

    @property
    def requirements(self) -> list[str]:
        """What is installed; torch's version is ours, not that of requirements-standalone.txt."""
        lines = [
            line.strip()
            for name in ("requirements-standalone.txt", "requirements.txt")
            for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
        ]
        chosen = [line for line in lines if line and not line.startswith(("#", "torch=", "transformers"))]
        torch = "torch" if self.torch == "newest" else f"torch=={self.torch}"
        return [
            torch,
            TRANSFORMERS[self.transformers],
            *chosen,
            *TEST_LIBRARIES,
            *(["numba>=0.60"] if self.numba else []),
        ]

    def __str__(self) -> str:
        numba = "with" if self.numba else "without"
        return f"Python {self.python}, torch {self.torch}, transformers {self.transformers}, {numba} Numba"


def find_python(version: str) -> str:
    """An interpreter of this version that runs, pyenv's included; else the version itself, which uv looks for."""
    installed = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, reversed(installed))):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return version


def run(environment: Environment, backend: str | None, pytest_arguments: list[str]) -> tuple[int, str, float]:
    """(exit status, pytest's last line, seconds) of the tests in this environment."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="musicgen-matrix-", ignore_cleanup_errors=True) as folder:
        venv = Path(folder) / "venv"
        python = str(venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
        install = [uv, "pip", "install", "--quiet", "--python", python, *environment.requirements]
        if backend:
            install += ["--torch-backend", backend]
        for command in ([uv, "venv", "--quiet", "--python", find_python(environment.python), str(venv)], install):
            if subprocess.run(command, check=False).returncode:
                return 1, "cannot be installed", time.monotonic() - begun
        subprocess.run([python, "-c", VERSIONS], check=False)
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "NUMBA_CACHE_DIR": str(Path(folder) / "numba")}
        tests = subprocess.Popen(
            [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", *pytest_arguments],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        last = ""
        for line in tests.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
        return tests.wait(), last, time.monotonic() - begun


def combinations() -> list[Environment]:
    """Every Python with both torches, both transformers, with and without Numba."""
    return [Environment(*values) for values in itertools.product(PYTHONS, TORCHES, TRANSFORMERS, (True, False))]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}", metavar="X.Y_OR_PATH")
    parser.add_argument("--torch", default="newest", metavar="X.Y.Z", help="or newest (%(default)s)")
    parser.add_argument("--transformers", choices=TRANSFORMERS, default="5", help="major version (%(default)s)")
    parser.add_argument("--no-numba", dest="numba", action="store_false", help="leave Numba out")
    parser.add_argument("--all", action="store_true", help="every combination, one after the other")
    parser.add_argument("--torch-backend", metavar="NAME", help="uv's option: cpu takes torch's CPU-only wheels")
    parser.add_argument("pytest", nargs="*", default=list(FAST), help="arguments of pytest, after -- (the fast part)")
    return parser


def main() -> int:
    arguments = parser().parse_args()
    chosen = Environment(arguments.python, arguments.torch, arguments.transformers, arguments.numba)
    results = []
    for environment in combinations() if arguments.all else [chosen]:
        print(f"\n## {environment}", flush=True)
        status, last, seconds = run(environment, arguments.torch_backend, arguments.pytest)
        results.append((environment, status, last, seconds))
        print(f"{environment}: {'passed' if status == 0 else 'FAILED'}, {seconds:.0f} s: {last}", flush=True)
    if len(results) > 1:
        print("\n| environment | result | s |\n|---|---|---|")
        for environment, status, last, seconds in results:
            print(f"| {environment} | {'passed' if status == 0 else 'FAILED'}: {last} | {seconds:.0f} |")
    return max(status for _, status, _, _ in results)


if __name__ == "__main__":
    sys.exit(main())
