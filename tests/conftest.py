"""Registers the pack under an importable name, and shared fixtures.

ComfyUI imports a pack by file location under a name of its own choosing; so do the tests. The pack's root is
never on sys.path, where its `nodes` would be mistaken for ComfyUI's.
"""

import gc
import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PACK = "comfyui_musicgen"


def _register_pack() -> None:
    if PACK in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)


_register_pack()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too (make test-all)")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests are skipped unless asked for. Tests of the page come last: while Playwright's loop runs, asyncio cannot."""
    items.sort(key=lambda item: "page" in getattr(item, "fixturenames", ()))
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: make test-all"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of tests and their modules stay until the end: no collection of garbage need look at them again."""
    gc.collect()
    gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """With pytest-xdist, a file's tests stay in one process, and those of the one ComfyUI too."""
    in_comfyui = "comfy" in getattr(item, "fixturenames", ())
    item.add_marker(pytest.mark.xdist_group("comfyui" if in_comfyui else item.path.name))


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    """Toy sizes gain nothing from more threads, which on a busy machine wait for one another."""
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


@pytest.fixture(scope="session")
def audiocraft():
    """Meta's audiocraft 1.3.0, with stand-ins for the libraries it imports but does not need here."""
    reference = importlib.import_module(f"{PACK}.reference.audiocraft")
    try:
        return reference.import_audiocraft()
    except ImportError as error:
        pytest.skip(f"audiocraft cannot be imported, so nothing is compared with it: {error}")


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """A real ComfyUI with toy checkpoints; the one that all tests share."""
    from comfyui_musicgen.tests.comfyui import comfy_server

    return comfy_server.shared(tmp_path_factory)


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """Factory of toy checkpoints, each written once a session: toys(stereo=True, format="huggingface") -> folder."""
    from comfyui_musicgen.tests.toy import write_toy

    made: dict[tuple, Path] = {}

    def toy(**options) -> Path:
        key = tuple(sorted(options.items()))
        if key not in made:
            name = "-".join(f"{k}={v}" for k, v in key) or "toy"
            made[key] = tmp_path_factory.mktemp("toys") / name.replace("/", "_")
            write_toy(made[key], **options)
        return made[key]

    return toy


@pytest.fixture(scope="session")
def tokenizer():
    """The recipe's tokenizer, trained on few texts."""
    from comfyui_musicgen.training.lm import text

    text._N_TEXTS, kept = 300, text._N_TEXTS
    yield text.train_tokenizer()
    text._N_TEXTS = kept
