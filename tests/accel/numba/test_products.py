"""Products by the kernels: those of float64, whatever the sizes; a row never sees its neighbours."""

import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.accel.numba.products import product
from comfyui_musicgen.musicgen.lm import Int8Linear, Linear

pytestmark = pytest.mark.skipif(accel.numba.load_kernels() is None, reason="there are no kernels for this processor")
SIZES = [(16, 16), (48, 144), (1040, 64), (4096, 80), (80, 1232)]


def half_layer(n_in, n_out, dtype, generator=None):
    layer = Linear(n_in, n_out).to(dtype).requires_grad_(False)
    layer.weight.copy_(0.1 * torch.randn(n_out, n_in, generator=generator))
    return layer


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 8, 23, 33])
@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_a_product_with_int8_is_that_of_float64(n_rows, n_in, n_out):
    generator = torch.Generator().manual_seed(n_rows)
    layer = Int8Linear(torch.randn(n_out, n_in, generator=generator))
    x = torch.randn(n_rows, n_in, generator=generator) * torch.tensor([[1e-3], [1.0], [1e3]]).repeat(11, 1)[:n_rows]
    result = product(layer, x)
    exact = x.double() @ layer.dequantized().double().t()
    # A row is quantized to 2^31 / (127 n_in) steps or 32767: what is lost is a random half step an input.
    peak = x.double().abs().amax(dim=1, keepdim=True)
    step = peak / min(32767, (2**31 - 1) // (127 * n_in))
    allowed = 6 * 0.29 * step * layer.dequantized().double().norm(dim=1) + 1e-6 * exact.abs()
    assert ((result - exact).abs() <= allowed).all()
    for row in range(n_rows):
        assert torch.equal(result[row : row + 1], product(layer, x[row : row + 1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 8, 19, 33])
@pytest.mark.parametrize(("n_in", "n_out"), [*SIZES, (1072, 1232)])
def test_a_product_with_16_bits_is_that_of_float64(n_rows, n_in, n_out, dtype):
    generator = torch.Generator().manual_seed(n_rows)
    layer = half_layer(n_in, n_out, dtype, generator)
    x = torch.randn(n_rows, n_in, generator=generator)
    result = product(layer, x)
    torch.testing.assert_close(result.double(), x.double() @ layer.weight.double().t(), atol=4e-5, rtol=1e-5)
    for row in range(n_rows):
        assert torch.equal(result[row : row + 1], product(layer, x[row : row + 1]))


def test_the_largest_sums_fit():
    layer = Int8Linear(torch.ones(16, 4096))
    x = torch.tensor([[1.0], [-1.0], [0.0]]).expand(3, 4096).contiguous()
    torch.testing.assert_close(product(layer, x), x.sum(dim=1, keepdim=True).expand(3, 16), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.bfloat16])
def test_what_is_not_a_number_stays_so(dtype):
    layer = Int8Linear(torch.randn(32, 48)) if dtype == torch.int8 else half_layer(48, 32, dtype)
    x = torch.randn(3, 48)
    x[1, 7] = torch.nan
    result = product(layer, x)
    assert result[1].isnan().all() and result[0].isfinite().all() and result[2].isfinite().all()


def test_a_row_of_zeros_is_zeros():
    x = torch.randn(3, 48)
    x[::2] = 0
    assert (product(Int8Linear(torch.randn(32, 48)), x)[::2] == 0).all()


def test_rows_may_be_strided_or_of_another_type():
    layer, x = half_layer(48, 32, torch.float16), torch.randn(48, 3)
    expected = product(layer, x.t().contiguous())
    assert torch.equal(product(layer, x.t()), expected)
    assert torch.equal(product(layer, x.t().double()), expected)
