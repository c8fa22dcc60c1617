"""What Numba compiles for a processor, where it is kept, and what serves without it."""

import importlib
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.accel.numba import load_kernels
from comfyui_musicgen.musicgen.accel.numba.compile import cache_folder, digest
from comfyui_musicgen.musicgen.lm import PlainStepper
from comfyui_musicgen.tests.lm import wide_lm

pytestmark = pytest.mark.skipif(not accel.stock.has_fbgemm(), reason="there are no kernels for this processor")
SOURCES = Path(accel.numba.__file__).parent
ROOT = SOURCES.parents[2]
REGISTER = f"""
    import importlib.util, sys, torch
    spec = importlib.util.spec_from_file_location(
        "comfyui_musicgen", {str(ROOT / "__init__.py")!r}, submodule_search_locations=[{str(ROOT)!r}]
    )
    module = sys.modules["comfyui_musicgen"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
"""


def python(code, **environment):
    """The output of a new process."""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


# --- without Numba


@pytest.fixture
def forgotten():
    """Kernels are looked for anew, before the test and after it."""
    load_kernels.cache_clear()
    yield
    load_kernels.cache_clear()


@pytest.mark.parametrize("broken", ["absent", "compiler", "switched off"])
def test_without_numba_music_is_made_and_the_log_says_what_helps(monkeypatch, caplog, forgotten, broken):
    if broken != "absent":
        numba = pytest.importorskip("numba")
    lm = wide_lm.make("float16", n_layers=1)
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        if broken == "absent":
            patch.setitem(sys.modules, "numba", None)
        elif broken == "compiler":
            patch.setattr(importlib, "import_module", lambda name: 1 / 0)
        else:
            patch.setattr(numba.config, "DISABLE_JIT", 1)
        accel.prepare(lm, lm.config, "cpu")
        assert accel.choose(lm, 2, lm.device) is None
        assert type(lm.layers[0].up) is accel.stock.PackedHalfLinear
        with torch.inference_mode(), PlainStepper(lm) as stepper:
            stepper.start(wide_lm.streams(lm, (5,)), 4)
            assert stepper.take_in(torch.zeros(1, wide_lm.K, 2, dtype=torch.long)).isfinite().all()
    message = {"absent": "pip install numba", "compiler": "torch's slower operators take over", "switched off": ""}
    assert message[broken] in caplog.text
    assert caplog.text.count(message[broken] or "Numba") == (broken != "switched off"), "once"


# --- other processors


def test_processors_without_avx512_make_the_same_products():
    """What is compiled for them, on this one: its instructions for bytes and 512 bits are kept from Numba."""
    pytest.importorskip("numba")
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    plain = ",".join(("+" if has and "avx512" not in name else "-") + name for name, has in features.items())
    code = (
        REGISTER
        + """
    from comfyui_musicgen.musicgen.accel.numba import load_kernels
    from comfyui_musicgen.musicgen.accel.numba.products import product
    from comfyui_musicgen.musicgen.lm import Int8Linear, Linear
    torch.manual_seed(0)
    for n_rows in (1, 2, 5, 19):
        weight, x = torch.randn(1232, 1104), torch.randn(n_rows, 1104)
        for layer in (Int8Linear(weight), Linear(1104, 1232).half(), Linear(1104, 1232).bfloat16()):
            if isinstance(layer, Linear):
                layer.requires_grad_(False).weight.copy_(weight)
            result, exact = product(layer, x), x.double() @ layer.dequantized().double().t()
            assert all(torch.equal(result[i : i + 1], product(layer, x[i : i + 1])) for i in range(n_rows))
            print((result - exact).abs().max().item())
    assert load_kernels().SUMS == 1
    """
    )
    errors = [float(line) for line in python(textwrap.dedent(code), NUMBA_CPU_FEATURES=plain)]
    assert len(errors) == 12 and max(errors[::3]) < 0.02 and max(errors[1::3] + errors[2::3]) < 2e-4


# --- where compiled code is kept


@pytest.fixture
def sources(tmp_path):
    """A copy of the kernels' sources."""
    shutil.copytree(SOURCES, tmp_path / "numba", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "numba"


@pytest.mark.parametrize("name", ["intrinsics", "dot_products", "ops", "kernels"])
def test_a_change_of_a_source_changes_the_digest(sources, name):
    """Numba looks at a function's own file only: it would go on with what it has compiled of an imported one."""
    before = digest(sources)
    assert before == digest(SOURCES), "whatever the folder and the time of its files"
    with (sources / f"{name}.py").open("a") as file:
        file.write("# changed\n")
    assert digest(sources) != before


def test_every_module_that_kernels_are_made_of_counts(sources):
    """A source that the digest forgot would be kept compiled when it changes."""
    kernels = pytest.importorskip("numba") and load_kernels()
    package = kernels.__name__.rpartition(".")[0]
    compiled = {name for name in sys.modules if name.startswith(package + ".")}
    for name in (name.rpartition(".")[2] for name in compiled):
        if "njit" in (sources / f"{name}.py").read_text() or "@intrinsic" in (sources / f"{name}.py").read_text():
            before = digest(sources)
            (sources / f"{name}.py").write_text("")
            assert digest(sources) != before, name


def test_packages_of_another_name_have_folders_of_their_own():
    """ComfyUI calls the package by its path, `python -m musicgen` by its name; compiled code refers to the name."""
    assert digest(package="one_name") != digest(package="another")


def test_compiled_code_lies_where_the_user_says_else_beside_the_sources_else_in_the_users_cache(
    monkeypatch, sources, tmp_path
):
    name = f"kernels-{digest(sources)}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert cache_folder(str(tmp_path / "own"), sources) == tmp_path / "own" / name
    assert cache_folder("", sources) == sources / "__pycache__" / name
    shutil.rmtree(sources / "__pycache__")
    (sources / "__pycache__").touch()  # a file: no directory can be made there
    assert cache_folder("", sources) == tmp_path / "home" / "musicgen-pansori" / name
    assert cache_folder("", sources).is_dir()


@pytest.mark.slow
def test_where_nothing_can_be_kept_kernels_are_compiled_all_the_same(tmp_path):
    """A read-only installation of a user without a home."""
    pytest.importorskip("numba")
    root = tmp_path / "pack"
    shutil.copytree(ROOT / "musicgen", root / "musicgen", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "__init__.py").touch()
    (root / "musicgen/accel/numba/__pycache__").touch()  # a file: no directory can be made there
    code = """
        import tempfile, torch
        from pack.musicgen.accel.numba.products import product
        from pack.musicgen.lm import Int8Linear
        print(product(Int8Linear(torch.ones(16, 16)), torch.ones(1, 16))[0, 0].item(), tempfile.gettempdir())
    """
    (tmp_path / "tmp").mkdir()
    result, temporary = python(
        textwrap.dedent(code), HOME="/dev/null", XDG_CACHE_HOME="/dev/null/cache", PYTHONPATH=str(tmp_path),
        TMPDIR=str(tmp_path / "tmp"), NUMBA_CACHE_DIR="",
    )  # fmt: skip
    assert abs(float(result) - 16) < 0.01 and temporary == str(tmp_path / "tmp")
    assert not list((tmp_path / "tmp").glob("musicgen-kernels-*")), "nothing is left"
