"""benchmarks/gpu.py where there is no GPU, and what it makes of pytest's results."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.gpu.test_pipeline" name="test_a" time="1.5"/>
<testcase classname="tests.gpu.test_pipeline" name="test_b[int8]"><failure message="99 % are equal&#10;more">trace</failure></testcase>
<testcase classname="tests.gpu.test_comfyui" name="test_c"><skipped message="no ComfyUI in /root"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture()
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("gpu")
    for name in ("gpu", "harness"):
        sys.modules.pop(name, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_card_it_says_so(tmp_path):
    run = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--out", str(tmp_path / "report.md")],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 2 and "no CUDA device" in run.stdout and not (tmp_path / "report.md").exists()


def test_the_report_tells_what_failed_and_what_was_skipped_and_why(gpu, tmp_path):
    (tmp_path / "junit.xml").write_text(JUNIT)
    checks = gpu.read(tmp_path / "junit.xml")
    assert [check.outcome for check in checks] == ["passed", "failed", "skipped"]
    text = "\n".join(gpu.check_lines(checks, "what pytest said"))
    assert "1 passed, 1 failed, 1 skipped" in text and "what pytest said" in text
    assert (
        "- test_pipeline: test_b[int8]: 99 % are equal\n" in text
        and "- test_comfyui: test_c: no ComfyUI in /root" in text
    )


def test_a_command_that_does_not_end_is_ended(gpu):
    status, output = gpu.run([sys.executable, "-u", "-c", "import time; print('begun'); time.sleep(60)"], 5)
    assert status is None and "begun" in output
