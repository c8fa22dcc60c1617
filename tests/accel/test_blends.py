"""Blends through the accelerated steppers: the plain model's mixed logits, and takes that do not depend on the batch."""

import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.accel.cuda_graph import CudaGraphStepper
from comfyui_musicgen.musicgen.guidance import Mix
from comfyui_musicgen.musicgen.lm import PlainStepper, RowNoise, Sampling, generate_codes
from comfyui_musicgen.tests.lm import wide_lm
from comfyui_musicgen.tests.lm.wide_lm import CARD, K
from torch.nn import functional as F

MIX = Mix((0.6, 0.4), (1.0,))
CLOSENESS = {"numba": 0.9999, "graph": 0.9999999}


@pytest.fixture(scope="module", params=["numba", "graph"])
def served(request):
    """(kind, model, a function that makes a stepper)."""
    if request.param == "graph":
        lm = wide_lm.make("float32", "stock")
        return request.param, lm, lambda: CudaGraphStepper(lm, capture=lambda device: lambda step: step)
    if accel.numba.load_kernels() is None or not accel.stock.has_fbgemm():
        pytest.skip("Numba does not serve here")
    lm = wide_lm.make("int8")
    return request.param, lm, lambda: accel.choose(lm, 3, lm.device)


def streams(lm, n_rows):
    """A short text and a long one for each row, then the null rows."""
    short, long = wide_lm.streams(lm, (6, 45))
    return [short] * n_rows + [long] * n_rows, wide_lm.nulls(n_rows)


def codes(lm, stepper, n_rows):
    texts, null = streams(lm, n_rows)
    with stepper() as run:
        noise = RowNoise(7, n_rows, K, CARD)
        return generate_codes(lm, texts, null, 6, Sampling(50), noise, 3.0, stepper=run, mix=MIX, n_texts=2)


def test_takes_of_a_blend_hold_the_take_of_one_bit_for_bit(served):
    _, lm, stepper = served
    one, three = codes(lm, stepper, 1), codes(lm, stepper, 3)
    assert torch.equal(three[0], one[0]) and not torch.equal(three[1], three[0])


def test_mixed_logits_are_those_of_the_plain_model(served):
    kind, lm, stepper = served
    texts, null = streams(lm, 1)
    column = torch.randint(CARD, (1, K, 5), generator=torch.Generator().manual_seed(3))
    exact = wide_lm.widened(lm)
    mixed = []
    for run in (stepper(), PlainStepper(exact)):
        with run, torch.inference_mode():
            run.start([*texts, *null], 5)
            mixed.append(MIX(run.take_in(column.repeat(3, 1, 1)).clone()))
    for ours, plain in zip(*mixed, strict=True):
        assert F.cosine_similarity(ours.flatten().double(), plain.flatten().double(), dim=0) > CLOSENESS[kind]
    assert F.cosine_similarity(mixed[1][0].flatten(), mixed[1][1].flatten(), dim=0) < 0.999
