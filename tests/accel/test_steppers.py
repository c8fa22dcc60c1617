"""The contract of every stepper: the plain model's logits, rows that are independent bit for bit, nothing left behind."""

import gc

import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.accel.cuda_graph import CudaGraphStepper
from comfyui_musicgen.musicgen.lm import PlainStepper, RowNoise, Sampling, generate_codes
from comfyui_musicgen.tests.lm import wide_lm
from comfyui_musicgen.tests.lm.wide_lm import CARD, K
from torch.nn import functional as F

FBGEMM = pytest.mark.skipif(not accel.stock.has_fbgemm(), reason="torch has no FBGEMM on this processor")


def _has_numba():
    return accel.numba.load_kernels() is not None


def case(kind, precision):
    marks = [] if precision == "float32" else [FBGEMM]
    marks += [pytest.mark.slow] if precision == "bfloat16" else []  # float16 takes the same way
    return pytest.param((kind, precision), id=f"{kind}-{precision}", marks=marks)


CASES = [
    *(case("stock", precision) for precision in ("float32", "float16", "bfloat16", "int8")),
    *(case("numba", precision) for precision in ("float16", "bfloat16", "int8")),
    case("graph", "float32"),
]
# The cosine of the logits with those of the same weights in float32 by the plain model.
CLOSENESS = {
    ("stock", "float32"): 0.9999999, ("stock", "float16"): 0.9999999, ("stock", "bfloat16"): 0.9999999,
    ("stock", "int8"): 0.998, ("numba", "float16"): 0.999999, ("numba", "bfloat16"): 0.999999,
    ("numba", "int8"): 0.9999, ("graph", "float32"): 0.9999999,
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def served(request):
    """(kind and precision, model, a function that makes a stepper)."""
    kind, precision = request.param
    if kind == "numba" and not _has_numba():
        pytest.skip("Numba is not installed")
    lm = wide_lm.make(precision, "numba" if kind == "numba" else "stock")
    steppers = {
        "stock": lambda: accel.choose(lm, 2, lm.device) or PlainStepper(lm),
        "numba": lambda: accel.choose(lm, 2, lm.device),
        "graph": lambda: CudaGraphStepper(lm, capture=lambda device: lambda step: step),
    }
    return request.param, lm, steppers[kind]


def cosine(one, other):
    return F.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0)


def codes_of(n_rows, n_columns):
    row = torch.randint(CARD, (1, K, n_columns), generator=torch.Generator().manual_seed(3))
    return row.expand(n_rows, -1, -1)


@torch.inference_mode()
def logits_of(stepper, streams, n_known=5, n=9):
    """A prompt of n_known columns, then one by one: [R, K, n - n_known + 1, cardinality]."""
    codes = codes_of(len(streams), n)
    with stepper:
        stepper.start(streams, n)
        logits = [stepper.take_in(codes[..., :n_known]).clone()]
        logits += [stepper.take_in(codes[..., i : i + 1]).clone() for i in range(n_known, n)]
    return torch.stack(logits, dim=2)


def test_the_stepper_is_the_one_that_is_meant(served):
    (kind, _), _, stepper = served
    names = {"stock": "PlainStepper", "numba": "NumbaStepper", "graph": "CudaGraphStepper"}
    assert type(stepper()).__name__ == names[kind]


def test_logits_are_those_of_the_plain_model(served):
    """Rows with a short text, a long one, and none."""
    case, lm, stepper = served
    streams = [*wide_lm.streams(lm, (6, 45)), *wide_lm.nulls(2)]
    logits = logits_of(stepper(), streams)
    exact = wide_lm.widened(lm)
    with torch.inference_mode():
        expected = exact(codes_of(4, 9), streams)[:, :, 4:]
    for row in range(4):
        assert cosine(logits[row], expected[row]) > CLOSENESS[case]
    assert cosine(logits[0], expected[1]) < 0.99, "texts are told apart"


@pytest.mark.parametrize("n_clips", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 8)), 4, 16])
def test_a_row_of_a_batch_is_the_row_alone_bit_for_bit(served, n_clips):
    """Guided takes of one text. Once int8 from three takes on, and float16 from eight, were computed in another way."""
    _, lm, stepper = served
    streams = [*wide_lm.streams(lm, (6,) * n_clips), *wide_lm.nulls(n_clips)]
    batch, alone = logits_of(stepper(), streams), logits_of(stepper(), [streams[0], streams[-1]])
    for row in range(n_clips):
        assert torch.equal(batch[row], alone[0]) and torch.equal(batch[n_clips + row], alone[1])


def test_texts_of_other_rows_change_no_bit(served):
    """Beyond rounding for torch's own attention, which sums over the longest text of the batch."""
    (kind, _), lm, stepper = served
    streams = [*wide_lm.streams(lm, (6, 45, 3, 33)), *wide_lm.nulls(4)]
    batch = logits_of(stepper(), streams)
    for row, stream in enumerate(streams):
        alone = logits_of(stepper(), [stream])[0]
        if kind == "numba":
            assert torch.equal(batch[row], alone)
        else:
            assert cosine(batch[row], alone) > 0.9999


def test_a_batch_of_codes_holds_the_codes_of_one(served):
    _, lm, stepper = served

    def codes(n_clips):
        streams, noise = wide_lm.streams(lm, (6,) * n_clips), RowNoise(7, n_clips, K, CARD)
        with stepper() as run:
            return generate_codes(lm, streams, wide_lm.nulls(n_clips), 12, Sampling(50), noise, 3.0, stepper=run)

    one, three = codes(1), codes(3)
    assert torch.equal(three[0], one[0])
    assert not torch.equal(three[1], three[0]), "takes differ"


def test_a_prompt_is_its_columns_one_by_one(served):
    (kind, _), lm, stepper = served
    streams = [*wide_lm.streams(lm, (6,)), *wide_lm.nulls(1)]
    one_by_one, prompt = (logits_of(stepper(), streams, n_known, 40) for n_known in (1, 36))
    if kind == "numba":
        assert torch.equal(prompt, one_by_one[:, :, 35:])
    else:
        assert cosine(prompt, one_by_one[:, :, 35:]) > 0.9999


def live_bytes():
    gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def test_cancel_leaves_weights_threads_and_memory_as_they_were(served):
    _, lm, stepper = served
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    streams, nulls = wide_lm.streams(lm, (6, 45)), wide_lm.nulls(2)
    n_threads, n_bytes = torch.get_num_threads(), live_bytes()

    def codes(on_step=None):
        noise = RowNoise(7, 2, K, CARD)
        with stepper() as run:
            return generate_codes(lm, streams, nulls, 8, Sampling(50), noise, 3.0, on_step=on_step, stepper=run)

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        if done == 3:
            raise Cancelled

    first = codes()
    with pytest.raises(Cancelled):
        codes(cancel)
    assert torch.get_num_threads() == n_threads
    assert live_bytes() <= n_bytes + 10_000
    assert torch.equal(codes(), first)
    for name, tensor in lm.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@torch.inference_mode()
def test_a_run_can_be_cancelled_before_each_layer_is_prepared(served):
    """Texts' keys and the empty caches of all layers took a second and more, in which Cancel was not heard."""
    _, lm, stepper = served
    streams, passes = wide_lm.streams(lm, (6, 45)), []
    with stepper() as run:
        run.start(streams, 4, lambda: passes.append(None))
        assert len(passes) >= lm.config.n_layers
        with pytest.raises(KeyboardInterrupt):
            run.start(streams, 4, raise_interrupt)


def raise_interrupt():
    raise KeyboardInterrupt


def test_a_long_prompt_can_be_cancelled_between_its_passes(served):
    _, lm, stepper = served
    passes = []
    prompt = codes_of(1, 600)
    noise = RowNoise(0, 1, K, CARD)
    with stepper() as run:
        generate_codes(
            lm, wide_lm.streams(lm, (6,)), None, 601, Sampling(), noise, prompt=prompt, stepper=run,
            on_step=lambda done, total: passes.append(done),
        )  # fmt: skip
    assert passes.count(0) >= 3 and passes[-1] == 4


def test_windows_of_one_run_are_the_runs_of_each(served):
    """A stepper is started again for each window of a long piece; shorter, longer, and of another number of rows."""
    _, lm, stepper = served
    shared = stepper()
    with shared, torch.inference_mode():
        for lengths, n in (((6,), 9), ((6,), 9), ((6, 6), 9), ((6,), 300)):
            streams = wide_lm.streams(lm, lengths)
            shared.start(streams, n)
            logits = [shared.take_in(codes_of(len(lengths), 9)[..., i : i + 1]).clone() for i in range(3)]
            assert torch.equal(torch.stack(logits, dim=2), logits_of(stepper(), streams, 1, 9)[:, :, :3])
