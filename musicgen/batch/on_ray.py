"""Lanes that are actors of Ray, which places them, restarts dead ones, and gives the task of a dead one to its successor."""

import contextlib
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..dependencies import require
from ..errors import InputError
from .workers import Lane

_PACK = Path(__file__).resolve().parents[2]
_NOT_SENT = (
    ".git",
    ".venv*",
    "/models",
    "/demo",
    "/build",
    "/docs",
    "/tests",
    "/training",
    "/benchmarks",
    "/web",
    "*.jpg",
)
_CORES = 2  # of a worker without a GPU
_STARTS = 3  # of Ray on a machine too busy for the 30 s that it gives itself
_RETRIES = 2  # of a row whose worker dies on it
# Of Ray 2.60 and later. A cluster that is given a token wants it from all; `ray.init` with an address does not look for one.
_AUTH, _TOKEN, _TOKEN_FILE = "RAY_AUTH_MODE", ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"), Path(".ray", "auth_token")
# The copy that a cluster's machine works with lasts for one run: kernels are kept in its user's own folder.
_KERNELS = {"NUMBA_CACHE_DIR": "${HOME}/.cache/musicgen-pansori"}


@dataclass(frozen=True)
class RayLane:
    """One actor."""

    name: str
    actor: Any

    def start(self, task: dict[str, Any]) -> "Future[dict[str, Any]]":
        return self.actor.run.remote(task).future()


@contextlib.contextmanager
def engine_lanes(address: str, workers: int | None, threads: int | None, **options: Any) -> Iterator[Sequence[Lane]]:
    """Workers that load the model themselves: one a GPU, or one for some cores. `options` of EngineWorker."""
    with _connected(address) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        kind = "GPU" if any(node.get("GPU") for node in nodes) else "CPU"
        wanted = 1 if kind == "GPU" else threads or _CORES
        count, share = share_out([int(node.get(kind, 0)) for node in nodes], workers, wanted)
        options["threads"] = threads or (_CORES if kind == "GPU" else max(1, int(share)))
        resources = {f"num_{kind.lower()}s": share}
        yield _lanes(ray, "musicgen.batch.workers", "EngineWorker", [options] * count, resources)


def share_out(sizes: Sequence[int], workers: int | None, wanted: int) -> tuple[int, float]:
    """(workers, cores or GPUs of each) for machines of these sizes, so that every worker finds room on one of them.

    workers: None = as many as have room with `wanted` each. Else all of them, with less each where they need it: a
    whole number, or a part of one.
    """
    if workers is None:
        wanted = min(wanted, max(sizes))
        return sum(size // wanted for size in sizes), wanted
    for each in range(wanted, 0, -1):
        if sum(size // each for size in sizes) >= workers:
            return workers, each
    return workers, 1 / math.ceil(workers / sum(sizes))


@contextlib.contextmanager
def server_lanes(address: str, servers: Sequence[str]) -> Iterator[Sequence[Lane]]:
    """Workers that each queue rows on one ComfyUI, and compute nothing themselves."""
    with _connected(address) as ray:
        options = [{"address": server} for server in servers]
        yield _lanes(ray, "clients.batch", "ServerWorker", options, {"num_cpus": 0})


@contextlib.contextmanager
def _connected(address: str) -> Iterator[ModuleType]:
    """Ray, on this machine for the time of the block ("") or at an address; DependencyError, InputError."""
    if address:
        _show_token()
    ray = require("ray", "'--ray'")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:  # the pack goes to the cluster's machines by Ray
        sent = {"working_dir": str(_PACK), "excludes": list(_NOT_SENT), "env_vars": _KERNELS}
        options |= {"address": address, "runtime_env": sent}
    else:
        path = os.pathsep.join(filter(None, [str(_PACK), os.environ.get("PYTHONPATH")]))
        options |= {"include_dashboard": False, "runtime_env": {"env_vars": {"PYTHONPATH": path}}}
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(**options)
            break
        except Exception as error:  # a bare one where Ray's own processes do not start
            ray.shutdown()
            reason = str(error).partition("\n")[0]
            if address or attempt == _STARTS:
                where = f"at '{address}'" if address else "on this machine"
                raise InputError(f"Ray cannot be used {where}: {reason}") from error
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ray tells of dead workers on standard output
            yield ray
    finally:
        ray.shutdown()


def _show_token() -> None:
    """Let Ray, which reads this when it is imported, show a cluster the user's token where there is one; it harms no cluster without."""
    if _AUTH not in os.environ and (any(map(os.environ.get, _TOKEN)) or (Path.home() / _TOKEN_FILE).is_file()):
        os.environ[_AUTH] = "token"


def _lanes(
    ray: ModuleType, module: str, name: str, options: Sequence[Mapping[str, Any]], share: Mapping[str, float]
) -> Sequence[Lane]:
    """An actor for each of `options`, the worker `module`.`name` in it."""

    class Actor:  # sent by value: its machine imports the pack under the pack's own names
        def __init__(self, options: Mapping[str, Any]) -> None:
            import importlib

            self._worker = getattr(importlib.import_module(module), name)(**options)

        def run(self, task: dict[str, Any]) -> dict[str, Any]:
            return self._worker.run(task)

    actor = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **share)(Actor)
    return [RayLane(f"ray-{number}", actor.remote(each)) for number, each in enumerate(options, start=1)]
