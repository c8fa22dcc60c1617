"""Layers by torch's own operators: float64's products, a row that is the row alone, weights that come back plain."""

import pytest
import torch
from comfyui_musicgen.musicgen.accel import stock
from comfyui_musicgen.musicgen.lm import Int8Linear, Linear, PlainStepper
from comfyui_musicgen.tests.lm import tiny_lm
from torch import nn

needs_fbgemm = pytest.mark.skipif(not stock.has_fbgemm(), reason="torch has no FBGEMM on this processor")
PACKED = ["float16", "bfloat16", "int8"]
PRECISIONS = ["float32", *(pytest.param(precision, marks=needs_fbgemm) for precision in PACKED)]


def plain_layer(precision, weight):
    """weight: [out, in] float32."""
    if precision == "int8":
        return Int8Linear(weight)
    layer = Linear(weight.shape[1], weight.shape[0]).to(getattr(torch, precision)).requires_grad_(False)
    layer.weight.copy_(weight)
    return layer


def replaced(layer):
    """The layer of `stock` in the place of this one."""
    holder = nn.Sequential(layer)
    stock.replace_linears(holder)
    return holder[0]


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 15, 17, 33, 65])
@pytest.mark.parametrize("precision", PRECISIONS)
@torch.inference_mode()
def test_products_are_those_of_float64_and_rows_are_alone(precision, n_rows):
    generator = torch.Generator().manual_seed(n_rows)
    plain = plain_layer(precision, torch.randn(96, 80, generator=generator))
    x = torch.randn(n_rows, 80, generator=generator)
    layer = replaced(plain)
    product = layer(x)
    exact = x.double() @ plain.dequantized().double().t()
    # int8: a row is quantized to 63 steps either way; what is lost is a random half step an input.
    step = x.double().abs().amax(dim=1, keepdim=True) / 63
    allowed = 6 * 0.29 * step * plain.dequantized().double().norm(dim=1) if precision == "int8" else 1e-4
    assert product.dtype == torch.float32 and product.is_contiguous()
    assert ((product - exact).abs() <= allowed).all()
    assert layer(x[:, None]).shape == (n_rows, 1, 96)
    if n_rows < 64:  # from there on a float32 prompt's rows are the left factor
        assert all(torch.equal(product[i : i + 1], layer(x[i : i + 1])) for i in range(n_rows))


@pytest.mark.parametrize("precision", PRECISIONS)
@torch.inference_mode()
def test_rows_of_zeros_and_of_what_is_not_a_number_stay_so(precision):
    layer = replaced(plain_layer(precision, torch.randn(64, 48)))
    x = torch.randn(4, 48)
    alone = layer(x[1:2])
    x[::2] = 0
    x[3, 7] = torch.nan
    product = layer(x)
    assert (product[::2] == 0).all() and torch.equal(product[1:2], alone) and product[3].isnan().all()


@needs_fbgemm
@torch.inference_mode()
def test_bfloat16_weights_are_those_that_were_given():
    """Of any size that float16 has: held as it, multiplied in float32. The bound is on the terms of a sum, which may cancel."""
    generator = torch.Generator().manual_seed(0)
    sizes = 2.0 ** torch.randint(-20, 14, (64, 1), generator=generator)
    plain = plain_layer("bfloat16", torch.randn(64, 48, generator=generator) * sizes)
    x = torch.randn(2, 48, generator=generator)
    layer = replaced(plain)
    weight = plain.weight.double()
    error = (layer(x).double() - x.double() @ weight.t()).abs()
    assert (error <= 1e-6 * (x.double().abs() @ weight.abs().t()) + 2e-6).all()
    assert (layer.dequantized() - plain.dequantized()).abs().max() <= 2**-25


@needs_fbgemm
@pytest.mark.parametrize("precision", PACKED)
def test_the_state_of_packed_layers_is_the_plain_weights(precision):
    lm = tiny_lm.make(precision=precision)
    for parameter in lm.parameters():  # bfloat16 is kept in float16, which has less room below
        parameter[parameter.abs() < 2**-17] = 0
    weights = {f"{name}.weight" for name, each in lm.named_modules() if hasattr(each, "dequantized")}
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    stock.replace_linears(lm)
    state = lm.state_dict()
    assert state.keys() == before.keys()
    for name, tensor in before.items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor), name
    assert not [name for name, _ in lm.named_parameters() if name in weights], "packed in place of the plain weight"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_laid_out_once_stay_as_they_are(precision):
    lm = tiny_lm.make(precision=precision, layout="stock")
    before = tiny_lm.logits_of(PlainStepper(lm), tiny_lm.streams(lm, (5,)))
    layer = lm.layers[1].up
    stock.replace_linears(lm)
    lm.to("cpu")
    assert type(lm.layers[1].up) is type(layer)
    assert torch.equal(tiny_lm.logits_of(PlainStepper(lm), tiny_lm.streams(lm, (5,))), before)


@needs_fbgemm
@pytest.mark.parametrize("precision", PACKED)
def test_packed_layers_refuse_another_device_and_say_what_to_do(precision):
    layer = replaced(plain_layer(precision, torch.randn(64, 48)))
    x = torch.randn(2, 48)
    before = layer(x)
    with pytest.raises(RuntimeError, match="loaded for the CPU; load it with the device"):
        layer.to("meta")
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_loaded_in_inference_mode_are_the_same(precision):
    """As ComfyUI's executor loads and runs them; by several threads, each of which has a mode of its own."""
    lm = tiny_lm.make(precision=precision, layout="stock")
    expected = tiny_lm.logits_of(PlainStepper(lm), tiny_lm.streams(lm, (5,)))
    with torch.inference_mode():
        loaded = tiny_lm.make(precision=precision, layout="stock")
        logits = tiny_lm.logits_of(PlainStepper(loaded), tiny_lm.streams(loaded, (5,)))
    assert torch.equal(logits, expected)
    assert torch.equal(tiny_lm.logits_of(PlainStepper(loaded), tiny_lm.streams(loaded, (5,))), expected)


def test_without_fbgemm_layers_of_fewer_bits_stay_plain(monkeypatch):
    monkeypatch.setattr(stock, "has_fbgemm", lambda: False)
    for precision in PACKED:
        layer = plain_layer(precision, torch.randn(64, 48))
        assert replaced(layer) is layer
