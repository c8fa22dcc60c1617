"""The nodes on a CUDA card through ComfyUI's model management: as it is, under --lowvram and --novram, and after /free.

COMFYUI_PATH names the ComfyUI, COMFYUI_PYTHON its interpreter; without one these are skipped.
"""

from pathlib import Path

import pytest
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.tests.comfyui import comfy_server

API = Path(__file__).resolve().parents[2] / "workflows" / "api"


@pytest.fixture(
    scope="module", params=[(), ("--lowvram",), ("--novram",)], ids=lambda arguments: " ".join(arguments) or "default"
)
def server(request, cuda_module, tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    comfy_server.write_toys(base / "models" / "musicgen", ("toy",))
    server = comfy_server.ComfyUI(base, device_arguments=request.param)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cuda_module(device):
    if device.type != "cuda":
        pytest.skip("only a CUDA device shows this")


def sound(server, seed):
    prompt = client.load_workflow(API / "text_to_music.json")
    for target, value in (
        ("MusicGenLoader.model", "toy"),
        ("MusicGenSampler.duration_s", 0.6),
        ("MusicGenSampler.seed", seed),
    ):
        prompt = client.with_input(prompt, target, value)
    (saved,) = server.run(prompt).saved
    return server.path_of(saved).read_bytes()


def torch_bytes(server):
    (device,) = server.get("/system_stats")["devices"]
    assert device["type"] == "cuda"
    return device["torch_vram_total"] - device["torch_vram_free"]


def test_music_is_made_and_freed_and_made_again(server):
    first = sound(server, 11)
    assert sound(server, 12) != first
    server.post("/free", {"unload_models": True, "free_memory": True})
    server.wait_for("/queue", {"queue_running": [], "queue_pending": []})
    assert sound(server, 11) == first
    for trouble in ("Traceback", "memory leak", "could not be captured"):
        assert trouble not in server.log


def test_free_gives_the_gpus_memory_back(server):
    sound(server, 13)
    server.post("/free", {"unload_models": True, "free_memory": True})
    server.wait_for("/probe/engine", {"modules": 0, "bytes": 0})
    assert torch_bytes(server) < 64 * 2**20
