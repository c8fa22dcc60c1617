"""What a CPU can prove of CUDA: no tensor on the wrong device, and nothing in the loop of steps that waits for the GPU."""

import pytest
import torch
from comfyui_musicgen.musicgen import render
from comfyui_musicgen.musicgen.accel import cuda_graph
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.lm import RowNoise, Sampling, generate_codes
from comfyui_musicgen.musicgen.loading import load
from comfyui_musicgen.tests.lm import tiny_lm
from comfyui_musicgen.tests.lm.tiny_lm import CARD
from comfyui_musicgen.tests.pretended_cuda import CUDA, WaitError, pretended_cuda

LENGTHS, TOP_K = (5, 3), Sampling(20)


@pytest.fixture()
def watch(monkeypatch):
    """The pretended device; captured steps must not even copy to it."""
    with pretended_cuda() as watch:

        def new_capture(device):
            def capture(step):
                def replay():
                    with watch.forbidding("crossing"):
                        step()

                return replay

            return capture

        monkeypatch.setattr(cuda_graph, "CudaGraphs", new_capture)
        yield watch


def codes(lm, sampling=TOP_K, stepper=None, on_step=None):
    noise = RowNoise(3, len(LENGTHS), lm.config.n_codebooks, CARD)
    return generate_codes(
        lm,
        tiny_lm.streams(lm, LENGTHS),
        tiny_lm.nulls(LENGTHS),
        20,
        sampling,
        noise,
        3.0,
        on_step=on_step,
        stepper=stepper,
    )


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
@pytest.mark.parametrize("sampling", [TOP_K, Sampling(0, 0.8), Sampling(temperature=0.0)], ids=["k", "p", "greedy"])
def test_the_loop_of_steps_waits_for_nothing(watch, cross, sampling):
    lm = tiny_lm.make(cross).to(CUDA)

    def after_the_prompt(done, total):
        watch.forbids = "waiting" if 0 < done < total else "nothing"

    captured = codes(lm, sampling, cuda_graph.CudaGraphStepper(lm), after_the_prompt)
    assert watch.n_operators["waiting"] > 100 and watch.n_operators["crossing"] > 1000
    assert torch.equal(captured, codes(tiny_lm.make(cross), sampling))


@pytest.mark.parametrize("options", [{}, {"stereo": True, "melody": True}], ids=["text", "stereo melody"])
def test_the_whole_pipeline_keeps_to_its_device(toys, watch, options):
    loaded, params = load(toys(**options), "float32"), GenerationParams(duration_s=0.5, seed=3, batch_size=2)
    audio, codes = render.render(loaded, render.RenderRequest("a drum"), params, CUDA, lambda *step: None)
    assert watch.n_operators["crossing"] > 0, "the captured steps were used"
    assert audio.samples.device.type == codes.codes.device.type == "cpu"
    assert not any(parameter.is_cuda for parameter in loaded.model.parameters())


# --- the pretended device itself: else the tests above could not fail


def test_values_are_real(watch):
    numbers = torch.arange(4, device=CUDA) * 2 + 1
    assert numbers.is_cuda and numbers.cpu().tolist() == [1, 3, 5, 7]


def test_a_stray_tensor_is_found(watch):
    with pytest.raises(AssertionError, match="is on the CPU, others on cuda"):
        torch.ones(3, device=CUDA) + torch.ones(3)


@pytest.mark.parametrize(
    "waits", [torch.Tensor.item, bool, torch.nonzero, torch.Tensor.cpu, lambda tensor: tensor[tensor > 0]]
)
def test_what_waits_is_found(watch, waits):
    tensor = torch.ones(1, device=CUDA)
    waits(tensor)
    with watch.forbidding("waiting"), pytest.raises(WaitError):
        waits(tensor)


def test_a_blocking_copy_is_found_and_any_copy_in_a_captured_step(watch):
    tensor = torch.ones(3)
    with watch.forbidding("waiting"):
        tensor.to(CUDA, non_blocking=True)
        with pytest.raises(WaitError, match="waits for it"):
            tensor.to(CUDA)
    with watch.forbidding("crossing"), pytest.raises(WaitError, match="would not repeat"):
        tensor.to(CUDA, non_blocking=True)
