"""The step by the kernels on narrow models of every kind: near float32, bit for bit whatever the batch and the threads."""

import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.accel.numba import NumbaStepper
from comfyui_musicgen.musicgen.lm import Int8Linear, Linear, PlainStepper
from comfyui_musicgen.tests.lm import tiny_lm
from torch.nn import functional as F

pytestmark = pytest.mark.skipif(accel.numba.load_kernels() is None, reason="there are no kernels for this processor")


@pytest.fixture(params=["int8", "float16", "bfloat16"])
def make_lm(request):
    return lambda cross=True, **options: tiny_lm.make(cross, request.param, **options)


def cosine(one, other):
    return F.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0)


def logits_of(lm, lengths, n_known=1, n=70, **options):
    return tiny_lm.logits_of(NumbaStepper(lm, **options), tiny_lm.streams(lm, lengths), n_known, n)


@pytest.mark.parametrize("lengths", [(5,), (7, 2), (7, 2, 12)])
@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
def test_logits_are_near_to_float32(make_lm, cross, lengths):
    """Texts of different lengths: folded, attended to, or in front with padding."""
    lm = make_lm(cross)
    logits = logits_of(lm, lengths)
    exact = tiny_lm.widened(lm)
    expected = tiny_lm.logits_of(PlainStepper(exact), tiny_lm.streams(exact, lengths), n=70)
    is_int8 = isinstance(lm.layers[0].up, Int8Linear)
    for row in range(len(lengths)):
        assert cosine(logits[row], expected[row]) > (0.9999 if is_int8 else 0.999999)
    if is_int8:
        accel.stock.replace_linears(lm)
        stock = tiny_lm.logits_of(PlainStepper(lm), tiny_lm.streams(lm, lengths), n=70)
        assert 1 - cosine(logits, expected) < 0.5 * (1 - cosine(stock, expected)), "nearer than torch's operators"


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
def test_a_row_beside_rows_of_other_lengths_is_the_row_alone_bit_for_bit(make_lm, cross):
    """Padding of a prefix too: a row's columns are its own."""
    lm, lengths = make_lm(cross), (7, 2, 12, 5)
    batch = logits_of(lm, lengths, 20)
    for row, length in enumerate(lengths):
        assert torch.equal(batch[row], logits_of(lm, (length,), 20)[0])


@pytest.mark.parametrize("text", ["folded", "attended", "prefix"])
@pytest.mark.parametrize("n_known", [20, 64, 69])
def test_a_prompt_gives_what_its_columns_do_one_by_one(make_lm, text, n_known):
    lm = make_lm(text != "prefix")
    options = {"max_folded": 0.0 if text == "attended" else 0.5}
    one_by_one = logits_of(lm, (6, 4), **options)
    for prefill_cells in (40, 128):
        prompt = logits_of(lm, (6, 4), n_known, prefill_cells=prefill_cells, **options)
        assert torch.equal(prompt, one_by_one[:, :, n_known - 1 :])


@pytest.mark.parametrize(("n_rows", "n_passes"), [(1, 3), (2, 5), (4, 8)])
def test_a_long_prompt_is_taken_in_pass_by_pass(n_rows, n_passes):
    """Fewer columns the more rows there are, but not so few that the weights are read for next to nothing."""
    lm, passes = tiny_lm.make(cross=False, precision="float16"), []
    with NumbaStepper(lm, prefill_cells=40) as stepper, torch.inference_mode():
        stepper.start(tiny_lm.streams(lm, (7, 2, 3, 4)[:n_rows]), 60)
        stepper.take_in(tiny_lm.codes_of(n_rows, 60), lambda: passes.append(1))
        assert len(passes) == n_passes


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
def test_the_number_of_threads_changes_nothing(make_lm, cross):
    lm, before, logits = make_lm(cross), torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3, 5):  # of 3 heads
            torch.set_num_threads(n_threads)
            logits.append(logits_of(lm, (7, 12), 20, 30))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, logits[0]) for each in logits)


def test_weights_that_are_not_numbers_give_no_codes_that_look_like_some(make_lm):
    lm = make_lm()
    lm.layers[1].norm_ffn.weight.data[3] = torch.nan
    assert logits_of(lm, (5,), n=4).isnan().all()


def test_weights_loaded_in_inference_mode_are_the_same(make_lm):
    """As ComfyUI's executor loads and runs them."""
    expected = logits_of(make_lm(), (5,), n=8)
    with torch.inference_mode():
        lm = make_lm()
        assert torch.equal(logits_of(lm, (5,), n=8), expected)
    assert torch.equal(logits_of(lm, (5,), n=8), expected)


# --- when


def test_the_kernels_serve_plain_weights_of_8_or_16_bits(make_lm):
    lm = make_lm()
    assert accel.numba.serves(lm, min_width=0)
    assert not accel.numba.serves(lm), "narrower than the threads' barriers are worth"
    accel.stock.replace_linears(lm)
    assert not accel.numba.serves(lm, min_width=0)


@pytest.mark.parametrize(("precision", "min_width"), [("int8", 49), ("float16", 49), ("bfloat16", 49), ("float32", 49)])
def test_narrow_models_need_no_kernels(monkeypatch, precision, min_width):
    monkeypatch.setattr(accel.numba, "load_kernels", lambda: pytest.fail("asked for"))
    assert not accel.numba.serves(tiny_lm.make(precision=precision), min_width)


def test_float32_needs_no_kernels(monkeypatch):
    monkeypatch.setattr(accel.numba, "load_kernels", lambda: pytest.fail("asked for"))
    assert not accel.numba.serves(tiny_lm.make(), min_width=0)


@pytest.mark.parametrize("mixed", ["heads", "layer"])
def test_models_of_mixed_types_are_left_to_the_plain_model(mixed):
    """The kernels would read one type's bytes as the other's."""
    lm = tiny_lm.make(precision="float16")
    if mixed == "heads":
        lm.heads = Int8Linear(lm.heads.dequantized())
    else:
        lm.layers[1].up.to(torch.bfloat16)
    assert not accel.numba.serves(lm, min_width=0)


@pytest.mark.parametrize("n_heads", [1, 3, 8])
def test_heads_whose_width_the_kernels_take_are_served(n_heads):
    """Widths of 48, 16 and 6: the last is no multiple of four."""
    lm = tiny_lm.make(precision="float16", n_heads=n_heads)
    assert accel.numba.serves(lm, min_width=0) == (n_heads != 8)


@pytest.mark.parametrize(("n_in", "n_out"), [(1048, 48), (48, 1048)])
def test_sizes_that_are_no_multiple_of_16_are_not_the_kernels(n_in, n_out):
    lm = tiny_lm.make(precision="float16")
    object.__setattr__(lm, "config", type(lm.config)(**{**vars(lm.config), "ffn_dim": 1048}))
    assert not accel.numba.fits(lm.config, Linear(n_in, n_out).half(), min_width=0)
