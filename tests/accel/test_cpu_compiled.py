"""What Numba compiles for a processor, and where it is kept."""

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen.lm import cpu_fused

pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("x86", "fbgemm"), reason="torch has no FBGEMM on this processor"
)
LM_DIR = Path(cpu_fused.__file__).parent


def test_processors_without_avx512_make_the_same_products():
    """What is compiled for them, on this one: its instructions for bytes and 512 bits are kept from Numba."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    plain = ",".join(("+" if has and "avx512" not in name else "-") + name for name, has in features.items())
    code = f"""
        import importlib.util, sys, torch
        root = {str(LM_DIR.parent.parent)!r}
        spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
        module = sys.modules["pack"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        from pack.musicgen.lm import cpu_fused, linear
        torch.manual_seed(0)
        for n_rows in (1, 2, 5, 19):
            weight, x = torch.randn(1232, 1104), torch.randn(n_rows, 1104)
            for layer in (linear.Int8Linear(weight), linear.Linear(1104, 1232).half(), linear.Linear(1104, 1232).bfloat16()):
                if isinstance(layer, linear.Linear):
                    layer.requires_grad_(False).weight.copy_(weight)
                layer.fuse(True)
                exact = x.double() @ layer.plain().double().t()
                print((layer(x) - exact).abs().max().item())
        assert cpu_fused.kernels().SUMS == 1
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "NUMBA_CPU_FEATURES": plain},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    errors = [float(line) for line in ran.stdout.split()]
    assert len(errors) == 12 and max(errors[::3]) < 0.02 and max(errors[1::3] + errors[2::3]) < 2e-4


@pytest.mark.parametrize(
    ("part", "of"), [("cpu_vectors", "cpu_basics"), ("cpu_parts", "cpu_vectors"), ("cpu_kernels", "cpu_parts")]
)
def test_a_change_is_seen_where_compiled_code_is_kept(part, of):
    """Put the new digest into MADE_OF: Numba would go on with what it has compiled from the old file."""
    digest = hashlib.sha256((LM_DIR / f"{of}.py").read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:16]
    assert f'MADE_OF = "{digest}"' in (LM_DIR / f"{part}.py").read_text(encoding="utf-8")


def test_where_nothing_can_be_kept_kernels_are_compiled_all_the_same(tmp_path):
    """A read-only installation of a user without a home."""
    root = tmp_path / "pack"
    shutil.copytree(LM_DIR.parent, root / "musicgen", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "__init__.py").touch()
    (root / "musicgen/lm/__pycache__").touch()  # a file: no directory can be made there
    code = """
        import sys, torch
        from pack.musicgen.lm import cpu_fused, linear
        layer = linear.Int8Linear(torch.ones(16, 16))
        layer.fuse(True)
        print(layer(torch.ones(1, 16))[0, 0].item(), cpu_fused.tempfile.gettempdir())
    """
    (tmp_path / "tmp").mkdir()
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache", "PYTHONPATH": str(tmp_path)}
    environment = {**os.environ, **nowhere, "TMPDIR": str(tmp_path / "tmp")}
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=environment)
    made, place = ran.stdout.split()
    assert abs(float(made) - 16) < 0.01 and place == str(tmp_path / "tmp")
    assert not list((tmp_path / "tmp").glob("musicgen-kernels-*")), "nothing is left"


def test_compiled_code_serves_the_pack_under_any_name():
    """ComfyUI calls the package by its path, `python -m musicgen` by its name; what one has compiled, the other loads."""
    code = """
        import importlib.util, sys, torch
        spec = importlib.util.spec_from_file_location({name!r}, {root!r} + "/__init__.py", submodule_search_locations=[{root!r}])
        module = sys.modules[{name!r}] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        linear = importlib.import_module({name!r} + ".musicgen.lm.linear")
        layer = linear.Int8Linear(torch.ones(16, 16))
        layer.fuse(True)
        print(layer(torch.ones(1, 16))[0, 0].item())
    """
    for name in ("one_name", "another"):
        filled = textwrap.dedent(code).format(name=name, root=str(LM_DIR.parent.parent))
        ran = subprocess.run([sys.executable, "-c", filled], capture_output=True, text=True, timeout=300, check=True)
        assert abs(float(ran.stdout) - 16) < 0.01
