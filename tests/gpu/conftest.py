"""Tests of a CUDA card (make gpu). Without one they are skipped; MUSICGEN_GPU_DEVICE=cpu rehearses them on a CPU."""

import os

import pytest
import torch


def pytest_collection_modifyitems(items):
    for item in items:
        if "gpu" in item.path.parts:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device():
    """The device that is tested."""
    if name := os.environ.get("MUSICGEN_GPU_DEVICE"):
        return torch.device(name)
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    torch.backends.cuda.matmul.allow_tf32 = False  # else float32 could not be compared with a CPU's
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture()
def cuda(device):
    """The device, for what only a real card shows."""
    if device.type != "cuda":
        pytest.skip("only a CUDA device shows this")
    return device
