"""The language model on a CUDA card: captured steps, the batch promise, precisions, Cancel, memory."""

import gc

import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.accel.cuda_graph import CudaGraphStepper
from comfyui_musicgen.musicgen.lm import PlainStepper, RowNoise, Sampling, generate_codes
from comfyui_musicgen.tests.lm import wide_lm
from comfyui_musicgen.tests.lm.wide_lm import CARD, K
from torch.nn import functional as F

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
SAMPLINGS = {
    "top-k": Sampling(50),
    "top-p": Sampling(0, 0.8),
    "all": Sampling(0, 0.0, 1.3),
    "greedy": Sampling(temperature=0.0),
}
# Cosine of the logits with float32's, and the largest difference in units of the logits' standard deviation.
BOUNDS = {"float16": (0.9999, 0.1), "bfloat16": (0.999, 0.5), "int8": (0.999, 0.5)}


@pytest.fixture(scope="module")
def models(device):
    """models(precision) -> a model of width 1,024 on the device, the same weights each time; one is kept."""
    kept = {}

    def model(precision, cross=True):
        if (precision, cross) not in kept:
            kept.clear()
            kept[precision, cross] = wide_lm.make(precision, cross=cross).to(device)
        return kept[precision, cross]

    yield model
    kept.clear()


def codes(lm, n_rows=1, n_frames=40, sampling=SAMPLINGS["top-k"], plain=False, lengths=None, **options):
    """Codes of rows that all have the same text, unless lengths gives each one's number of tokens."""
    lengths = lengths or [7] * n_rows
    options.setdefault("noise", RowNoise(3, len(lengths), K, CARD))
    stepper = None if plain else accel.choose(lm, 2 * len(lengths), lm.device)
    with stepper or PlainStepper(lm) as stepper:
        return generate_codes(
            lm, wide_lm.streams(lm, lengths), wide_lm.nulls(len(lengths)), n_frames, sampling, cfg=3.0, stepper=stepper,
            **options,
        )  # fmt: skip


@torch.inference_mode()
def logits(lm, n_columns=24):
    """Logits of each of 16 columns after a prompt, [16, K, cardinality] on the CPU."""
    known = torch.randint(CARD, (1, K, n_columns), generator=torch.Generator().manual_seed(1)).to(lm.device)
    with PlainStepper(lm) as stepper:
        stepper.start(wide_lm.streams(lm, [7]), n_columns)
        columns = [stepper.take_in(known[..., :8])]
        columns += [stepper.take_in(known[..., i : i + 1]) for i in range(8, n_columns)]
    return torch.cat(columns).float().cpu()


def share_equal(one, other):
    return f"{100 * (one == other).float().mean():.2f} % of the codes are equal"


def test_cuda_is_served_by_captured_steps(models, cuda):
    assert isinstance(accel.choose(models("float32"), 2, cuda), CudaGraphStepper)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_step_is_really_captured(models, cuda, precision, caplog):
    codes(models(precision), n_frames=10)
    assert "could not be captured" not in caplog.text


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_captured_steps_write_the_codes_of_eager_ones(models, precision, cross):
    lm = models(precision, cross)
    captured, eager = codes(lm, lengths=[7, 3]), codes(lm, lengths=[7, 3], plain=True)
    assert torch.equal(captured, eager), share_equal(captured, eager)


@pytest.mark.parametrize("mode", SAMPLINGS)
def test_every_way_of_drawing_is_that_of_eager_steps(models, mode):
    lm = models("float32")
    captured, eager = (codes(lm, sampling=SAMPLINGS[mode], plain=plain) for plain in (False, True))
    assert torch.equal(captured, eager), share_equal(captured, eager)


def test_a_long_piece_passes_from_bucket_to_bucket(models):
    lm = models("float32")
    captured, eager = (codes(lm, n_frames=300, plain=plain) for plain in (False, True))
    assert torch.equal(captured, eager), share_equal(captured, eager)


@pytest.mark.parametrize("n_rows", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_of_a_batch_is_the_row_alone(models, precision, n_rows):
    """The first row is the take of a batch of one with the same seed: the tooltip of the sampler promises it."""
    lm = models(precision)
    batch, alone = codes(lm, n_rows)[:1], codes(lm, 1)
    assert torch.equal(batch, alone), share_equal(batch, alone)


@pytest.mark.parametrize("precision", BOUNDS)
def test_logits_are_close_to_float32s(models, precision):
    exact = logits(models("float32"))
    rounded = logits(models(precision))
    least_cosine, most_off = BOUNDS[precision]
    cosine = F.cosine_similarity(exact.flatten().double(), rounded.flatten().double(), dim=0).item()
    off = ((exact - rounded).abs().max() / exact.std()).item()
    assert cosine >= least_cosine and off <= most_off, f"cosine {cosine:.6f}, largest difference {off:.4f} deviations"


def test_float32_is_the_cpus(models):
    exact = logits(wide_lm.make("float32"))
    torch.testing.assert_close(logits(models("float32")), exact, atol=1e-3 * exact.std().item(), rtol=0)


class CancelledError(Exception):
    """What ComfyUI raises, say."""


def test_cancel_and_then_the_same_seed(models):
    lm = models("float16")
    before = codes(lm)

    def cancel(done, total):
        if done > 12:
            raise CancelledError

    with pytest.raises(CancelledError):
        codes(lm, on_step=cancel)
    assert torch.equal(codes(lm), before)


def test_progress_counts_every_step(models):
    seen = []
    codes(models("float16"), on_step=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_run_gives_its_memory_back(models, cuda):
    lm = models("float16")
    codes(lm)
    gc.collect()
    before = torch.cuda.memory_allocated()
    codes(lm, 4, 300)
    gc.collect()
    assert torch.cuda.memory_allocated() <= before + 2**16


def test_an_unloaded_model_gives_its_memory_back(cuda):
    gc.collect()
    before = torch.cuda.memory_allocated()
    lm = wide_lm.make("float16").to(cuda)
    codes(lm)
    assert torch.cuda.memory_allocated() > before + 2**20
    lm.to("cpu")
    gc.collect()
    assert torch.cuda.memory_allocated() <= before + 2**16
