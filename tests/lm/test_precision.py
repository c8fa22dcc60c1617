"""Weights kept in fewer bits, and the step that CPUs take them through: near float32, whole when they travel."""

import sys

import pytest
import torch
from comfyui_musicgen.musicgen.lm import cpu_step, linear, resolve_precision
from comfyui_musicgen.tests.lm import tiny_lm
from torch.nn import functional as F

needs_fbgemm = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("x86", "fbgemm"), reason="torch has no FBGEMM on this processor"
)
PRECISIONS = [
    "float32",
    "bfloat16",
    pytest.param("float16", marks=needs_fbgemm),
    pytest.param("int8", marks=needs_fbgemm),
]


@torch.inference_mode()
def logits_of(lm, lengths=(5,), n=12):
    """Of n columns one by one, [R, K, n, cardinality]."""
    codes = torch.randint(96, (len(lengths), 4, n), generator=torch.Generator().manual_seed(3))
    state = lm.start(tiny_lm.streams(lm, lengths), n)
    return torch.stack([lm.step(state, codes[..., i : i + 1]) for i in range(n)], dim=2)


@pytest.mark.parametrize(("precision", "closeness"), [("bfloat16", 0.999), ("float16", 0.999999), ("int8", 0.997)])
def test_fewer_bits_are_close(precision, closeness):
    exact, made = logits_of(tiny_lm.make()), logits_of(tiny_lm.make(precision=precision))
    assert F.cosine_similarity(made.flatten(), exact.flatten(), dim=0) > closeness
    assert not torch.equal(made, exact)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_cpus_step_is_the_layers_own(monkeypatch, precision, cross, compiled):
    """By TorchScript and without; rows of different lengths, so that masks count."""
    lm = tiny_lm.make(cross, precision)
    lengths = (7, 2, 4)
    if not compiled:
        monkeypatch.setattr(sys, "version_info", (3, 14))
    cpu_step.compiled_step.cache_clear()
    try:
        quick = logits_of(lm, lengths)
        assert isinstance(cpu_step.compiled_step(), torch.jit.ScriptFunction) == compiled
    finally:
        cpu_step.compiled_step.cache_clear()
    monkeypatch.setattr(lm, "_cpu", lambda *run: None)
    torch.testing.assert_close(quick, logits_of(lm, lengths), atol=2e-5, rtol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_does_not_depend_on_its_batch(precision):
    lm = tiny_lm.make(precision=precision)
    together = logits_of(lm, (7, 2, 4))
    lone_codes = torch.randint(96, (3, 4, 12), generator=torch.Generator().manual_seed(3))
    for row, length in enumerate((7, 2, 4)):
        with torch.inference_mode():
            state = lm.start(tiny_lm.streams(lm, (length,)), 12)
            steps = [lm.step(state, lone_codes[row : row + 1, :, i : i + 1]) for i in range(12)]
        torch.testing.assert_close(together[row : row + 1], torch.stack(steps, dim=2), atol=2e-5, rtol=0)


@needs_fbgemm
@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
def test_packed_weights_come_back_whole(precision):
    lm = tiny_lm.make(precision=precision)
    for parameter in lm.parameters():  # FBGEMM keeps bfloat16 in float16, which has less room below
        parameter[parameter.abs() < 2**-17] = 0
    plain = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    before = logits_of(lm)
    layer = lm.layers[1].up
    assert layer.weight.numel() == 0, "packed in the place of the plain weight, not beside it"
    packed = layer.packed()
    for name, tensor in lm.state_dict().items():
        assert torch.equal(tensor, plain[name]), name
    lm.to("cpu")
    assert layer.packed() is packed, "a move to where it is costs nothing"
    lm.to("meta" if precision == "int8" else torch.float32)
    assert layer.weight.shape == plain["layers.1.up.weight"].shape
    if precision != "int8":
        dtype = getattr(torch, precision)
        assert torch.equal(layer.weight.to(dtype), plain["layers.1.up.weight"])
        for module in lm.modules():
            if isinstance(module, linear.Linear):
                module.to(dtype)
        assert torch.equal(logits_of(lm), before)


@needs_fbgemm
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_weights_loaded_in_inference_mode_are_packed_there(precision):
    """As ComfyUI's executor loads and runs them; by several threads, each of which has a mode of its own."""
    expected = logits_of(tiny_lm.make(precision=precision))
    with torch.inference_mode():
        lm = tiny_lm.make(precision=precision)
        assert lm.layers[0].up.weight.is_inference()
        assert torch.equal(logits_of(lm), expected)
    assert all(block.up.is_packed and block.qkv.is_packed for block in lm.layers)


@needs_fbgemm
def test_bfloat16_weights_are_those_that_were_given():
    """Of any size that float16 has: held as it, multiplied in float32."""
    layer = linear.Linear(48, 64).to(torch.bfloat16)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(64, 48) * 2.0 ** torch.randint(-20, 14, (64, 1)))
        exact = layer.weight.double().clone()
        x = torch.randn(2, 48)
        made = layer(x)
        assert layer.is_packed
    torch.testing.assert_close(made.double(), x.double() @ exact.t(), atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_of_few_rows(n_rows, dtype):
    x, weight = torch.randn(n_rows, 48), torch.randn(64, 48).to(dtype)
    made = linear.plain_product(x, weight)
    assert made.dtype == torch.float32 and made.is_contiguous()
    torch.testing.assert_close(made, x @ weight.float().t(), atol=0.2 if dtype == torch.bfloat16 else 1e-4, rtol=0)


@needs_fbgemm
def test_a_row_of_zeros_times_int8_is_zeros():
    layer = linear.Int8Linear(torch.randn(64, 48))
    x = torch.randn(3, 48)
    alone = layer(x[1:2])
    x[::2] = 0
    made = layer(x)
    assert (made[::2] == 0).all() and torch.equal(made[1:2], alone)


def test_auto_is_the_fastest_that_is_safe(monkeypatch):
    assert resolve_precision("auto", "cuda") == "float16"
    assert resolve_precision("auto", "mps") == "float32"
    monkeypatch.setattr(linear, "_has_fbgemm", lambda device: device.type == "cpu")
    assert resolve_precision("auto", "cpu") == "float16"
    monkeypatch.setattr(linear, "_has_fbgemm", lambda device: False)
    assert resolve_precision("auto", "cpu") == "float32"
    assert resolve_precision("int8", "cpu") == "int8"


def test_int8_in_float16_is_int8_in_float32(monkeypatch):
    """As GPUs compute it; sums that float16 could not hold unscaled."""
    monkeypatch.setattr(linear, "_has_fbgemm", lambda device: False)
    layer = linear.Int8Linear(0.01 * torch.randn(8, 4096, generator=torch.Generator().manual_seed(0)).abs())
    x = 5 + torch.randn(2, 4096, generator=torch.Generator().manual_seed(1))
    made, exact = layer(x.half()), layer(x)
    assert made.dtype == torch.float16 and exact.dtype == torch.float32
    torch.testing.assert_close(made.float(), exact, atol=0.5, rtol=2e-3)
    assert torch.isinf(x.half() @ layer.weight.half().t()).all()
