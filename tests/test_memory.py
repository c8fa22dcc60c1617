"""Memory of what is dropped goes back to the system."""

import gc
import threading

import torch
from comfyui_musicgen.musicgen import memory
from comfyui_musicgen.nodes import host


def test_a_dropped_model_has_its_memory_released_once_its_tensors_are_gone(monkeypatch):
    released, module = threading.Event(), torch.nn.Linear(4, 4)
    monkeypatch.setattr(memory, "_DELAY_S", 0.01)
    monkeypatch.setattr(memory, "release_freed_memory", released.set)
    managed = host.Managed(module, "codec")
    gc.collect()
    assert not released.wait(0.1), "it is still in use"
    del managed, module
    gc.collect()
    assert released.wait(5)
