"""The fuzzer runs by itself, and notices what fails."""

import subprocess
import sys

import pytest
from comfyui_musicgen.tests.hostile import fuzz, kinds


def test_the_fuzzer_runs_stand_alone():
    command = [sys.executable, fuzz.__file__, "--seconds", "1", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == set(fuzz.KINDS) == set(kinds.KINDS)


def test_what_is_made_of_a_seed_is_always_the_same():
    for kind in kinds.KINDS:
        assert kinds.from_seed(kind, 3) == kinds.from_seed(kind, 3)


def test_a_foreign_exception_and_a_panic_are_noticed(monkeypatch, tmp_path, capsys):
    def fail(_: bytes) -> None:
        raise PanicException

    class PanicException(BaseException):
        pass

    monkeypatch.setitem(kinds.KINDS, "yaml", kinds.Kind(kinds.make_yaml, fail))
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path)
    fuzz.read_all(["yaml"], 5, 0.01)
    assert "yaml 5 FAILED PanicException" in capsys.readouterr().out
    assert (tmp_path / "yaml-5").read_bytes() == kinds.from_seed("yaml", 5)
    with pytest.raises(PanicException):
        kinds.attempt("yaml", b"a: 1")
