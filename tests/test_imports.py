"""The direction of imports, the size of files, and what loading the pack costs."""

import ast
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("musicgen", "nodes", "reference", "clients", "training", "benchmarks", "tests")
COMFYUI = {
    "comfy", "comfy_api", "comfy_api_nodes", "comfy_config", "comfy_execution", "comfy_extras", "execution",
    "folder_paths", "latent_preview", "node_helpers", "nodes", "server",
}  # fmt: skip
HEAVY = (
    "audiocraft", "av", "beat_this", "demucs", "julius", "llvmlite", "mido", "numba", "pyloudnorm", "soundfile", "torchaudio", "transformers",
    "triton",
)  # fmt: skip
MAX_LINES = 400
MAX_LOAD_S = 0.45  # 0.22 to 0.26 measured on a free processor, up to 0.39 with its sibling busy

# The arrows of the engine: a module imports its own package, or one on a lower floor. On floor 0 files may import one
# another. A dotted name is of one part of a package that lies elsewhere than the package itself.
FLOORS = {
    "errors": 0, "config": 0, "seeds": 0, "windows": 0, "memory": 0, "modules": 0, "dependencies": 0, "outputs": 0, "foreign": 0, "units": 0, "tempo": 0,
    "audio": 1, "score": 1, "codes": 2, "separation": 2, "codec": 3, "conditioning": 3, "lm": 3, "faults": 3, "silence": 4, "beats": 4, "guidance": 4, "live": 4, "handover": 4,
    "checkpoints": 5, "diffusion": 6, "card": 6, "accel": 7, "store": 7, "pipeline": 8, "multiband": 8, "analysis": 9, "loading": 9, "render": 10, "checkpoints.tools": 10,
    "finetuning": 11, "remix": 11, "replicate": 12, "batch": 13, "cli": 14, "__main__": 15,
}  # fmt: skip


def sources(*parts: str) -> list[Path]:
    return [path for part in parts for path in sorted((ROOT / part).rglob("*.py")) if ".venv" not in path.parts]


def imports(path: Path) -> Iterator[tuple[str, bool, bool]]:
    """(imported module, whether it is the pack's, whether it is imported inside a function) of a file.

    The pack's modules are given as dotted paths below its root.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(outer)
    }
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, False, id(node) in inside
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, False, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level - 1 <= len(package), f"{path}:{node.lineno} leads out of the pack"
            base = package[: len(package) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                yield ".".join([*base, *name.split(".")]), True, id(node) in inside


def floor(module: str) -> int:
    """The floor of a module of the engine, "musicgen.lm.model" say; 0 for the engine's own docstring."""
    parts = module.split(".")
    if len(parts) == 1:
        return 0
    return FLOORS.get(".".join(parts[1:3]), FLOORS[parts[1]])


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", sources("musicgen"), ids=name_of)
def test_the_engine_only_imports_downwards(path):
    here = name_of(path)
    for module, ours, _ in imports(path):
        if not ours:
            continue
        assert module.split(".")[0] == "musicgen", f"{here} imports {module}: the engine knows nothing of what uses it"
        same_package = here.split(".")[1] == module.split(".")[1]
        assert same_package or floor(module) < floor(here) or floor(module) == floor(here) == 0, (
            f"{here} imports {module}, which lies beside or above it"
        )


@pytest.mark.parametrize("path", sources("musicgen", "nodes", "reference", "clients"), ids=name_of)
def test_only_the_host_names_comfyui(path):
    for module, ours, inside_function in imports(path):
        if ours or module.split(".")[0] not in COMFYUI:
            continue
        assert path == ROOT / "nodes" / "host.py", f"{name_of(path)} imports {module}"
        assert inside_function, f"{name_of(path)} imports {module} before it is needed"


@pytest.mark.parametrize("path", sources("musicgen", "nodes", "reference", "training"), ids=name_of)
def test_the_pack_is_only_imported_relatively(path):
    own = {"comfyui_musicgen", "musicgen", "nodes", "reference", "clients", "training"}
    for module, ours, _ in imports(path):
        assert ours or module.split(".")[0] not in own, f"{name_of(path)} imports {module} absolutely"


@pytest.mark.parametrize("path", sources("musicgen/lm"), ids=name_of)
def test_the_plain_model_names_no_device_thread_or_kernel(path):
    """What is faster on some machine stands behind `accel`."""
    threads = {"threading", "concurrent", "multiprocessing", "_thread", "ctypes", "numba", "triton"}
    for module, ours, _ in imports(path):
        assert module.split(".")[0] not in threads, f"{name_of(path)} imports {module}"
        assert not ours or module.split(".")[1] != "accel", f"{name_of(path)} imports {module}"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
    }
    for node in ast.walk(tree):
        here = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            assert node.value.split(":")[0] not in ("cuda", "cpu", "mps", "xpu"), f"{here} names a device"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("cuda", "mps", "backends", "set_num_threads", "get_num_threads", "jit", "ops"), (
                here
            )


@pytest.mark.parametrize("path", sources("training"), ids=name_of)
def test_the_recipe_stands_on_the_engine_alone(path):
    for module, ours, _ in imports(path):
        assert not ours or module.split(".")[0] in ("training", "musicgen"), f"{name_of(path)} imports {module}"


def test_the_client_needs_nothing_of_the_pack():
    assert not [module for module, ours, _ in imports(ROOT / "clients" / "comfyui.py") if ours]


def test_the_reference_engine_is_imported_only_when_chosen():
    for path in sources("nodes"):
        for module, ours, inside_function in imports(path):
            assert not (ours and module.startswith("reference")) or inside_function, name_of(path)


def test_no_file_is_too_long():
    scripts = [*sources(*PARTS), *(ROOT / "web").rglob("*.*js"), ROOT / "__init__.py"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in scripts}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


LOAD = """
import importlib.util, json, sys, time
from pathlib import Path
import numpy, torch

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in heavy:
            raise RuntimeError(f"{name} is broken on this machine")

root, heavy = Path(sys.argv[1]), set(json.loads(sys.argv[2]))
sys.meta_path.insert(0, Broken())
before = set(sys.modules)
start = time.process_time()
name = str(root).replace(".", "_x_")  # what ComfyUI calls it
spec = importlib.util.spec_from_file_location(name, root / "__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
taken_s = time.process_time() - start
for node in module.NODE_CLASS_MAPPINGS.values():
    node.INPUT_TYPES()
new = sorted({name.split(".")[0] for name in set(sys.modules) - before} & heavy)
print(json.dumps([taken_s, len(module.NODE_CLASS_MAPPINGS), new]))
"""


def test_loading_the_pack_is_quick_and_needs_no_heavy_library():
    command = [sys.executable, "-c", textwrap.dedent(LOAD), str(ROOT), json.dumps(HEAVY)]
    env = {**os.environ, "PYTHONPATH": ""}
    taken_s = []
    for _ in range(10):  # processor time; the quickest counts, for the first one compiles
        run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
        assert run.returncode == 0, run.stderr
        seconds, n_nodes, heavy = json.loads(run.stdout)
        assert n_nodes >= 8 and heavy == []
        taken_s.append(seconds)
        if min(taken_s) < MAX_LOAD_S:
            break
    assert min(taken_s) < MAX_LOAD_S
