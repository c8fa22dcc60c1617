"""Weights kept in fewer bits by the plain model: near float32, whatever the batch."""

import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.lm import Int8Linear, Linear, PlainStepper, quantize_linears, storage_dtype
from comfyui_musicgen.musicgen.loading import resolve_precision
from comfyui_musicgen.tests.lm import tiny_lm
from torch import nn
from torch.nn import functional as F

needs_fbgemm = pytest.mark.skipif(not accel.stock.has_fbgemm(), reason="torch has no FBGEMM on this processor")
CLOSENESS = {
    ("plain", "bfloat16"): 0.999, ("plain", "float16"): 0.99999, ("plain", "int8"): 0.997,
    ("stock", "bfloat16"): 0.999, ("stock", "float16"): 0.999999, ("stock", "int8"): 0.997,
}  # fmt: skip


def logits_of(lm, lengths=(5,)):
    return tiny_lm.logits_of(PlainStepper(lm), tiny_lm.streams(lm, lengths))


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
@pytest.mark.parametrize("layout", ["plain", pytest.param("stock", marks=needs_fbgemm)])
def test_fewer_bits_are_close(precision, layout, cross):
    """Rows of different lengths, so that masks count."""
    exact = logits_of(tiny_lm.make(cross), (7, 2, 4))
    rounded = logits_of(tiny_lm.make(cross, precision, layout=layout), (7, 2, 4))
    for row in range(3):
        closeness = F.cosine_similarity(rounded[row].flatten(), exact[row].flatten(), dim=0)
        assert closeness > CLOSENESS[layout, precision]
    assert not torch.equal(rounded, exact)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16", "int8"])
@pytest.mark.parametrize("layout", ["plain", pytest.param("stock", marks=needs_fbgemm)])
def test_a_row_does_not_depend_on_its_batch(precision, layout):
    """Beyond rounding: torch's attention sums over the longest text of the batch."""
    lm = tiny_lm.make(precision=precision, layout=layout)
    batch = logits_of(lm, (7, 2, 4))
    coarse = layout == "stock" and precision == "int8"  # a last bit may tip a row's 7 bits over
    wide = layout == "stock" or precision in ("float32", "int8")
    for row, length in enumerate((7, 2, 4)):
        alone = logits_of(lm, (length,))[0]
        if wide and not coarse:
            torch.testing.assert_close(batch[row], alone, atol=2e-3 if precision == "int8" else 2e-5, rtol=0)
        else:
            assert F.cosine_similarity(batch[row].flatten(), alone.flatten(), dim=0) > 0.999


def test_layers_are_replaced_by_int8_below_any_module():
    lm = tiny_lm.make()
    quantize_linears(lm.layers)
    assert all(isinstance(block.up, Int8Linear) and isinstance(block.qkv, Int8Linear) for block in lm.layers)
    assert isinstance(lm.heads, Linear)
    holder = nn.ModuleList([Linear(4, 4)])
    nn.init.normal_(holder[0].weight)
    exact = holder[0].dequantized()
    quantize_linears(holder)
    scale = exact.abs().amax(dim=1, keepdim=True) / 127
    assert ((holder[0].dequantized() - exact).abs() <= 0.5001 * scale).all()


@torch.inference_mode()
def test_a_row_of_zeros_times_int8_is_zeros():
    layer = Int8Linear(torch.randn(64, 48))
    x = torch.randn(3, 48)
    alone = layer(x[1:2])
    x[::2] = 0
    product = layer(x)
    assert (product[::2] == 0).all()
    torch.testing.assert_close(product[1:2], alone)


@torch.inference_mode()
def test_a_weight_of_zeros_is_kept():
    layer = Int8Linear(torch.zeros(8, 16))
    assert (layer(torch.ones(2, 16)) == 0).all() and (layer.dequantized() == 0).all()


def test_auto_is_the_fastest_that_is_safe(monkeypatch):
    assert resolve_precision("auto", "cuda") == "float16"
    assert resolve_precision("auto", "mps") == "float32"
    monkeypatch.setattr(accel.stock, "has_fbgemm", lambda: True)
    assert resolve_precision("auto", "cpu") == "float16"
    monkeypatch.setattr(accel.stock, "has_fbgemm", lambda: False)
    assert resolve_precision("auto", "cpu") == "float32"
    assert resolve_precision("int8", "cpu") == "int8"
    with pytest.raises(InputError, match="float8"):
        resolve_precision("float8", "cpu")


def test_int8_is_quantized_from_float32():
    assert storage_dtype("int8") == torch.float32 and storage_dtype("bfloat16") == torch.bfloat16


def test_int8_in_float16_is_int8_in_float32():
    """As GPUs compute it; sums that float16 could not hold unscaled."""
    weight = 0.01 * torch.randn(8, 4096, generator=torch.Generator().manual_seed(0)).abs()
    x = 5 + torch.randn(2, 4096, generator=torch.Generator().manual_seed(1))
    half, exact = Int8Linear(weight, torch.float16), Int8Linear(weight)
    product = half(x)
    assert product.dtype == torch.float16 and exact(x).dtype == torch.float32
    torch.testing.assert_close(product.float(), exact(x), atol=0.5, rtol=2e-3)
    assert torch.isinf(x.half() @ half.weight.half().t()).all()
