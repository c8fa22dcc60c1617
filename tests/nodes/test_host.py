"""nodes/host.py against stand-ins for ComfyUI's modules: memory, progress, Cancel."""

import sys
from types import SimpleNamespace

import pytest
import torch
from comfyui_musicgen.nodes import host
from torch import nn


class Interrupted(Exception):
    pass


class OutOfMemory(Exception):
    pass


@pytest.fixture
def comfy(monkeypatch):
    """Fake comfy modules; `state` says what they saw and steers them."""
    state = SimpleNamespace(updates=[], loads=[], unloads=0, interrupt=False, now=0.0)

    class ModelPatcher:
        def __init__(self, model, load_device, offload_device):
            self.model = model

        def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
            return full_load

        def partially_unload(self, device_to, memory_to_free=0):
            return memory_to_free

    class ProgressBar:
        def __init__(self, total):
            pass

        def update_absolute(self, value, total=None):
            state.updates.append((value, total))

    def throw_if_interrupted():
        if state.interrupt:
            raise Interrupted

    cpu = lambda: torch.device("cpu")  # noqa: E731
    devices = dict.fromkeys(
        ("get_torch_device", "unet_offload_device", "text_encoder_device", "text_encoder_offload_device",
         "vae_device", "vae_offload_device", "intermediate_device"), cpu,
    )  # fmt: skip
    mm = SimpleNamespace(
        OOM_EXCEPTION=OutOfMemory,
        throw_exception_if_processing_interrupted=throw_if_interrupted,
        load_models_gpu=lambda models, **options: state.loads.append((models, options)),
        unload_all_models=lambda: setattr(state, "unloads", state.unloads + 1),
        soft_empty_cache=lambda: None,
        **devices,
    )
    utils, patcher = SimpleNamespace(ProgressBar=ProgressBar), SimpleNamespace(ModelPatcher=ModelPatcher)
    package = SimpleNamespace(model_management=mm, utils=utils, model_patcher=patcher)
    for name, module in {
        "comfy": package, "comfy.model_management": mm, "comfy.utils": utils, "comfy.model_patcher": patcher,
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(host, "_whole_patcher", host._whole_patcher.__wrapped__)
    monkeypatch.setattr(host.time, "monotonic", lambda: state.now)
    return state


def test_progress_is_shown_at_most_ten_times_a_second_and_always_at_the_end(comfy):
    on_step = host.progress()
    for step in range(1, 501):
        comfy.now += 0.001
        on_step(step, 500)
    assert len(comfy.updates) <= 6
    assert comfy.updates[-1] == (500, 500)


def test_cancel_is_looked_for_at_every_step(comfy):
    on_step = host.progress()
    on_step(1, 500)
    comfy.interrupt = True
    with pytest.raises(Interrupted):
        on_step(2, 500)


@pytest.fixture
def engine():
    return nn.Linear(2, 2)


def test_models_are_loaded_whole_and_with_the_memory_they_need(comfy, engine):
    managed = host.Managed(engine, "model")
    assert managed.run(lambda module: module, memory_bytes=123) is engine
    assert comfy.loads == [([managed.patcher], {"memory_required": 123, "force_full_load": True})]
    assert managed.patcher.load(full_load=False) is True, "whole, whatever the core asks for"
    assert managed.patcher.partially_unload("cpu", 1000) == 0, "whole, or not at all"


def test_out_of_memory_is_tried_once_more_with_everything_else_unloaded(comfy, engine):
    attempts = []

    def task(module):
        attempts.append(module)
        if len(attempts) == 1:
            raise OutOfMemory
        return "done"

    assert host.Managed(engine, "model").run(task) == "done"
    assert comfy.unloads == 1 and len(comfy.loads) == 2


def test_lasting_lack_of_memory_is_left_to_comfyui(comfy, engine):
    def task(module):
        raise OutOfMemory

    with pytest.raises(OutOfMemory):
        host.Managed(engine, "model").run(task)


def test_other_errors_are_not_tried_again(comfy, engine):
    def task(module):
        raise Interrupted

    with pytest.raises(Interrupted):
        host.Managed(engine, "model").run(task)
    assert comfy.unloads == 0


def test_metadata_is_what_comfyui_embeds_unless_it_is_told_not_to(comfy, monkeypatch):
    arguments = SimpleNamespace(disable_metadata=False)
    monkeypatch.setitem(sys.modules, "comfy.cli_args", SimpleNamespace(args=arguments))
    workflow = {"note": "한국어"}
    metadata = host.file_metadata({"1": {}}, {"workflow": workflow})
    assert metadata == {"prompt": '{"1": {}}', "workflow": '{"note": "\\ud55c\\uad6d\\uc5b4"}'}, (
        "the page reads Latin-1"
    )
    assert host.file_metadata(None, None) == {}
    arguments.disable_metadata = True
    assert host.file_metadata({"1": {}}, {"workflow": workflow}) == {}
