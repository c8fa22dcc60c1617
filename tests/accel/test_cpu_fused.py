"""int8 and halves by Numba's kernels: the products that float32 makes, whatever the batch and the threads; and how threads meet."""

import logging
import sys
import threading

import pytest
import torch
from comfyui_musicgen.musicgen.lm import Stream, cpu_fused, generate_codes, linear, model
from comfyui_musicgen.musicgen.lm.cpu_fused import FusedStep, crew
from comfyui_musicgen.musicgen.lm.cpu_step import TorchStep
from comfyui_musicgen.musicgen.lm.sampling import RowNoise, Sampling
from comfyui_musicgen.tests.lm import tiny_lm
from torch.nn import functional as F

pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("x86", "fbgemm"), reason="torch has no FBGEMM on this processor"
)


@pytest.fixture(params=["int8", "float16", "bfloat16"])
def make_lm(request, monkeypatch):
    """A model that the kernels serve, though it is narrow."""
    monkeypatch.setattr(model, "_TABLES_FROM", 0)
    return lambda cross=True, **options: tiny_lm.make(cross, request.param, **options)


def most_rows(lm):
    return cpu_fused.MAX_ROWS[lm._tables_of]


@pytest.fixture
def threads():
    """Call it with the number that torch is to have."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@torch.inference_mode()
def logits_of(lm, lengths, n_known=1, n=70, streams=None):
    """Of a prompt of n_known columns and of those after it, one by one: [R, K, n - n_known + 1, cardinality]."""
    streams = streams or tiny_lm.streams(lm, lengths)
    codes = torch.randint(96, (1, 4, n), generator=torch.Generator().manual_seed(3)).expand(len(streams), -1, -1)
    state = lm.start(streams, n)
    made = [lm.step(state, codes[..., :n_known])]
    made += [lm.step(state, codes[..., i : i + 1]) for i in range(n_known, n)]
    return torch.stack(made, dim=2), state


def widened(lm):
    """The same weights, in float32."""
    exact = tiny_lm.make(lm.config.cross_attention, n_heads=lm.config.n_heads)
    for (_, ours), (_, theirs) in zip(lm.named_modules(), exact.named_modules(), strict=True):
        if isinstance(ours, linear.Linear | linear.Int8Linear):
            theirs.weight.data = ours.plain()
    return exact


def cosine(one, other):
    return F.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0)


# --- products


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 8, 23, 33])
@pytest.mark.parametrize(("n_in", "n_out"), [(16, 16), (48, 144), (1040, 64), (4096, 80), (80, 1232)])
def test_a_product_is_that_of_float64(n_rows, n_in, n_out):
    generator = torch.Generator().manual_seed(n_rows)
    layer = linear.Int8Linear(torch.randn(n_out, n_in, generator=generator))
    x = torch.randn(n_rows, n_in, generator=generator) * torch.tensor([[1e-3], [1.0], [1e3]]).repeat(11, 1)[:n_rows]
    layer.fuse(layer.can_fuse)
    made = layer(x)
    exact = x.double() @ layer.plain().double().t()
    # A row is quantized to 2^31 / (127 n_in) steps or 32767: what is lost is a random half step an input.
    peak = x.double().abs().amax(dim=1, keepdim=True)
    step = peak / min(32767, (2**31 - 1) // (127 * n_in))
    assert ((made - exact).abs() <= 6 * 0.29 * step * layer.plain().double().norm(dim=1) + 1e-6 * exact.abs()).all()
    assert torch.equal(made[-1:], layer(x[-1:])), "a row never sees its neighbours"
    assert layer(x[:, None]).shape == (n_rows, 1, n_out)


def test_the_largest_sums_fit():
    layer = linear.Int8Linear(torch.ones(16, 4096))
    layer.fuse(True)
    x = torch.tensor([[1.0], [-1.0], [0.0]]).expand(3, 4096).contiguous()
    torch.testing.assert_close(layer(x), (x.sum(dim=1, keepdim=True)).expand(3, 16), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_rows", [1, 2, 4, 5, 19])
def test_those_of_halves_too(n_rows, dtype):
    layer = linear.Linear(1048, 48).to(dtype).requires_grad_(False)
    layer.weight.normal_(0, 0.1)
    assert not layer.can_fuse  # 1048 is no multiple of 16
    layer = linear.Linear(1072, 1232).to(dtype).requires_grad_(False)
    layer.weight.normal_(0, 0.1)
    x = torch.randn(n_rows, 1072)
    layer.fuse(layer.can_fuse)
    torch.testing.assert_close(layer(x).double(), x.double() @ layer.weight.double().t(), atol=2e-5, rtol=1e-5)
    assert not layer.is_packed


def test_what_is_not_a_number_stays_so():
    layer = linear.Int8Linear(torch.randn(32, 48))
    layer.fuse(True)
    x = torch.randn(3, 48)
    x[1, 7] = torch.nan
    made = layer(x)
    assert made[1].isnan().all() and made[0].isfinite().all() and made[2].isfinite().all()


# --- the step


@pytest.mark.parametrize("lengths", [(5,), (7, 2), (7, 2, 4)])
@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
def test_logits_are_nearer_to_float32_than_operators_are(make_lm, monkeypatch, cross, lengths):
    """Texts of different lengths: folded, attended to with a mask, or in front with padding."""
    lm = make_lm(cross)
    made, state = logits_of(lm, lengths)
    assert isinstance(state.cpu, FusedStep) and lm.heads.is_fused == (lm.heads.weight.dtype != torch.float32)
    exact, _ = logits_of(widened(lm), lengths)
    monkeypatch.setattr(model, "kernels", lambda: None)
    operators, state = logits_of(lm, lengths)
    assert isinstance(state.cpu, TorchStep)
    int8 = state.layers[0].values.dtype == torch.uint8
    assert cosine(made, exact) > (0.99995 if int8 else 0.9999999)
    assert 1 - cosine(made, exact) < (0.5 if int8 else 1.0) * (1 - cosine(operators, exact))


def test_a_folded_text_and_guidance(make_lm):
    lm = make_lm(n_heads=4)
    streams = tiny_lm.streams(lm, (6,)) + tiny_lm.nulls((0,))
    made, state = logits_of(lm, None, streams=streams)
    assert state.layers[0].n_folded == 1
    exact, _ = logits_of(widened(lm), None, streams=streams)
    assert cosine(made[0], exact[0]) > 0.9999 and cosine(made[1], exact[1]) > 0.9999
    assert cosine(made[0], exact[1]) < 0.99


@pytest.mark.parametrize("streams", ["folded", "attended", "prefix"])
def test_a_prompt_gives_what_its_columns_do_one_by_one(make_lm, monkeypatch, streams):
    lm = make_lm(streams != "prefix")
    if streams == "attended":
        monkeypatch.setattr(model, "_FOLDED_TEXT", 0.0)
    one_by_one, state = logits_of(lm, (6, 6))
    assert (state.layers[0].n_folded > 0) == (streams == "folded")
    for n_known in (20, 64, 69):
        prompt, _ = logits_of(lm, (6, 6), n_known)
        assert torch.equal(prompt, one_by_one[:, :, n_known - 1 :])
    monkeypatch.setattr(model, "_FUSED_CELLS", 40)
    pieces, _ = logits_of(lm, (6, 6), 69)
    assert torch.equal(pieces, one_by_one[:, :, 68:])


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
def test_the_number_of_threads_changes_nothing(make_lm, threads, cross):
    lm = make_lm(cross)
    made = []
    for n in (1, 2, 3, 5):  # of 3 heads
        threads(n)
        made.append(logits_of(lm, (7, 2), 20)[0])
    assert all(torch.equal(each, made[0]) for each in made)


def test_the_tables_are_those_that_operators_write(make_lm, monkeypatch):
    """In the first layer, whose input is the same; to within the roundings of the projection and of a byte."""
    lm = make_lm(False)
    caches = [logits_of(lm, (7, 2), 20)[1].layers[0]]
    monkeypatch.setattr(model, "kernels", lambda: None)
    caches.append(logits_of(lm, (7, 2), 20)[1].layers[0])
    for ours, theirs in zip(*(cache.read(7 + 70) for cache in caches), strict=True):
        assert cosine(ours[0], theirs[0]) > 0.999 and cosine(ours[1, :, 5:], theirs[1, :, 5:]) > 0.999
    assert caches[0].values[:, :, 77:].eq(0).all(), "what is not yet written is zeros"


def test_weights_that_are_not_numbers_give_no_codes_that_look_like_some(make_lm):
    lm = make_lm()
    lm.layers[1].norm_ffn.weight.data[3] = torch.nan
    assert logits_of(lm, (5,), n=4)[0].isnan().all()


# --- when, and beside what


def test_many_rows_are_left_to_fbgemm_and_nothing_is_lost(make_lm):
    lm = make_lm()
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    few, _ = logits_of(lm, (5, 5))
    assert not any(layer.up.is_packed for layer in lm.layers)
    _, state = logits_of(lm, (5,) * (most_rows(lm) + 1), n=3)
    assert isinstance(state.cpu, TorchStep) and all(layer.up.is_packed for layer in lm.layers)
    again, state = logits_of(lm, (5, 5))
    assert isinstance(state.cpu, FusedStep)
    if lm.layers[0].up.weight.dtype == torch.bfloat16:  # FBGEMM keeps it as float16: see `linear.Linear`
        torch.testing.assert_close(again, few, atol=1e-6, rtol=1e-6)
        assert all((tensor - before[name]).abs().max() <= 2**-25 for name, tensor in lm.state_dict().items())
    else:
        assert torch.equal(again, few)
        assert all(torch.equal(tensor, before[name]) for name, tensor in lm.state_dict().items())


def test_a_run_goes_on_though_its_weights_are_packed_for_another(make_lm):
    lm = make_lm()
    expected, _ = logits_of(lm, (5,), n=6)
    codes = torch.randint(96, (1, 4, 6), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        state = lm.start(tiny_lm.streams(lm, (5,)), 6)
        first = [lm.step(state, codes[..., i : i + 1]) for i in range(3)]
        lm.start(tiny_lm.streams(lm, (5,) * (most_rows(lm) + 1)), 6)  # packs
        torch.full((10**6,), torch.nan)  # where the weights have been, for all one knows
        last = [lm.step(state, codes[..., i : i + 1]) for i in range(3, 6)]
    assert cosine(torch.stack(first + last, dim=2), expected) > 0.99999  # the heads are another product meanwhile


@pytest.mark.parametrize(("width", "precision"), [(49, "int8"), (49, "float16"), (49, "bfloat16"), (0, "float32")])
def test_narrow_models_and_other_precisions_need_no_kernels(monkeypatch, width, precision):
    monkeypatch.setattr(model, "_TABLES_FROM", width)
    monkeypatch.setattr(model, "kernels", lambda: pytest.fail("asked for"))
    lm = tiny_lm.make(precision=precision)
    assert isinstance(lm.start(tiny_lm.streams(lm, (3,)), 8).cpu, TorchStep)


@pytest.mark.parametrize("broken", ["absent", "compiler"])
def test_without_numba_music_is_made_and_the_log_says_what_helps(make_lm, monkeypatch, caplog, broken):
    cpu_fused.kernels.cache_clear()
    with monkeypatch.context() as m, caplog.at_level(logging.INFO):
        if broken == "absent":
            m.setitem(sys.modules, "numba", None)
        else:
            m.setattr(cpu_fused.importlib.util, "module_from_spec", lambda spec: 1 / 0)
        try:
            _, state = logits_of(make_lm(), (5,), n=3)
        finally:
            cpu_fused.kernels.cache_clear()
    assert isinstance(state.cpu, TorchStep)
    assert ("pip install numba" if broken == "absent" else "going on without them") in caplog.text


def test_torch_has_its_threads_back_after_a_run_and_after_a_cancelled_one(make_lm, threads):
    threads(2)
    lm, seen = make_lm(), []

    def on_step(done, total):
        seen.append(torch.get_num_threads())
        if total == 11 and done == 3:
            raise InterruptedError

    def generate(n_frames):
        streams, nulls = tiny_lm.streams(lm, (5,)), [Stream(torch.zeros(0, 48), torch.zeros(0, 48))]
        return generate_codes(lm, streams, nulls, n_frames, Sampling(), RowNoise(0, 1, 4, 96), 3.0, on_step=on_step)

    assert generate(6).shape == (1, 4, 6)
    assert set(seen) == {1} and torch.get_num_threads() == 2
    with pytest.raises(InterruptedError):
        generate(8)
    assert torch.get_num_threads() == 2 and crew.n_threads == 2


def test_noise_is_drawn_ahead_and_not_beyond_a_run(make_lm):
    """The next window of a longer piece goes on with the noise where this one has left it."""
    lm, steps, noise = make_lm(), [], RowNoise(7, 2, 4, 96)
    streams, nulls = tiny_lm.streams(lm, (5, 5)), [Stream(torch.zeros(0, 48), torch.zeros(0, 48))] * 2
    options = {"cfg": 3.0, "on_step": lambda done, total: steps.append(done)}
    made = generate_codes(lm, streams, nulls, 9, Sampling(), noise, **options)
    expected = RowNoise(7, 2, 4, 96)
    drawn = [expected.draw() for _ in steps]
    assert torch.equal(noise.draw(), expected.draw())
    replayed = iter(drawn)
    expected.draw = lambda: next(replayed)
    assert torch.equal(generate_codes(lm, streams, nulls, 9, Sampling(), expected, **options), made)
    assert next(replayed, None) is None


# --- threads


@pytest.mark.parametrize("who", [0, 2])
def test_an_error_ends_all_threads(threads, who):
    """One thread that fails must not leave the others at the barrier."""
    threads(3)
    kernels, seen = cpu_fused.kernels(), []

    def kernel(thread, n_threads, barrier, fails):
        seen.append(thread)
        if thread == fails:
            raise KeyboardInterrupt
        kernels.meet(barrier, n_threads)

    kernel.signatures = [None]
    with pytest.raises(KeyboardInterrupt):
        crew.run(kernel, who)
    assert sorted(seen) == [0, 1, 2]
    crew.run(kernel, None)
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]


def test_two_callers_take_turns(threads):
    """Of two kernels at once, each with some of the threads, neither would end."""
    threads(2)
    layer = linear.Int8Linear(torch.randn(64, 64))
    layer.fuse(True)
    x = torch.randn(6, 64)
    expected, made = layer(x), []
    callers = [threading.Thread(target=lambda: made.extend(layer(x) for _ in range(50))) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(made) == 150 and all(torch.equal(each, expected) for each in made)
