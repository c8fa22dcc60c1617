"""The likelihood of codes is what the sampler would have drawn them with, in each precision, and over windows."""

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.analysis.likelihood import _windows, log_likelihood
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.lm import PlainStepper
from comfyui_musicgen.musicgen.lm.delay import delay

TEXT = "a gayageum melody"


@pytest.fixture(scope="module")
def loaded(toys):
    return loading.load(toys(), "float32")


def codes_of(loaded, n_rows=2, n_frames=12, seed=0):
    shape = (n_rows, loaded.config.lm.n_codebooks, n_frames)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, loaded.config.lm.cardinality, shape, generator=generator)
    return Codes(codes, loaded.config.codec.frame_rate_hz, loaded.config.codec.identity)


@torch.inference_mode()
def step_by_step(loaded, codes, conditioning):
    """Mean log-probability of each codebook [K] of one row, one column at a time through the sampler's stepper."""
    config = loaded.config.lm
    sequence = delay(codes.codes, config.delays, config.cardinality)
    stepper = PlainStepper(loaded.model.lm)
    stepper.start(loaded.model.streams(conditioning, 1), sequence.shape[-1])
    total = torch.zeros(config.n_codebooks)
    for column in range(1, sequence.shape[-1]):
        scores = stepper.take_in(sequence[..., column - 1 : column]).log_softmax(dim=-1)[0]
        for codebook, code in enumerate(sequence[0, :, column].tolist()):
            if code != config.cardinality:
                total[codebook] += scores[codebook, code]
    return total / codes.n_frames


def test_it_is_what_the_sampler_s_own_steps_say(loaded):
    codes = codes_of(loaded)
    conditioning = loaded.conditioner.encode_text([TEXT, "drums"])
    found = log_likelihood(loaded.model, codes, conditioning)
    for row, text in enumerate([TEXT, "drums"]):
        expected = step_by_step(loaded, codes.rows([row]), loaded.conditioner.encode_text([text]))
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=0)
    assert not torch.allclose(found, log_likelihood(loaded.model, codes, conditioning.null()), atol=1e-4)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_half_precision_is_close(loaded, toys, precision):
    other = loading.load(toys(), precision)
    codes, conditioning = codes_of(loaded), loaded.conditioner.encode_text([TEXT])
    expected = log_likelihood(loaded.model, codes, conditioning)
    torch.testing.assert_close(log_likelihood(other.model, codes, conditioning), expected, atol=0.05, rtol=0)
    before = {name: value.dtype for name, value in other.model.lm.state_dict().items()}
    log_likelihood(other.model, codes, conditioning)
    assert before == {name: value.dtype for name, value in other.model.lm.state_dict().items()}


def test_what_the_model_writes_is_likelier_than_noise(loaded):
    conditioning = loaded.conditioner.encode_text([TEXT])
    written = loaded.model.generate(conditioning, GenerationParams(duration_s=0.5, temperature=0, cfg=1))
    noise = codes_of(loaded, 1, written.n_frames)
    likelihood = [float(log_likelihood(loaded.model, codes, conditioning).mean()) for codes in (written, noise)]
    assert likelihood[0] > likelihood[1] + 0.1


@pytest.mark.parametrize(("n_frames", "longest"), [(10, 10), (11, 10), (25, 10), (100, 7), (1, 10)])
def test_windows_count_each_frame_once_and_look_back_half_a_window(n_frames, longest):
    counted = []
    for start, known, end in _windows(n_frames, longest):
        assert end - start <= longest and (start == 0 or known == longest // 2)
        counted += range(start + known, end)
    assert counted == list(range(n_frames))


def test_a_piece_longer_than_the_window_is_read_whole(loaded):
    n_frames = int(1.5 * loaded.config.segment_s * loaded.config.codec.frame_rate_hz)
    codes, calls = codes_of(loaded, 1, n_frames), []
    conditioning = loaded.conditioner.encode_text([TEXT])
    found = log_likelihood(loaded.model, codes, conditioning, lambda *step: calls.append(step))
    assert found.shape == (1, loaded.config.lm.n_codebooks) and bool((found < 0).all())
    assert {total for _, total in calls} == {2}


def test_cancel_ends_it_and_foreign_codes_are_refused(loaded):
    conditioning = loaded.conditioner.encode_text([TEXT])

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_likelihood(loaded.model, codes_of(loaded), conditioning, cancel)
    with pytest.raises(InputError, match="another|made for"):
        log_likelihood(loaded.model, Codes(codes_of(loaded).codes, 50.0, "other"), conditioning)


def test_a_row_of_a_batch_is_written_again_alone_by_the_seed_it_carries(loaded):
    conditioning = loaded.conditioner.encode_text([TEXT])
    batch = loaded.model.generate(conditioning, GenerationParams(duration_s=0.5, seed=2**40 + 5, batch_size=3))
    assert [origin.text for origin in batch.origins] == [TEXT] * 3 and batch.origins[0].seed == 2**40 + 5
    for row, origin in enumerate(batch.origins):
        alone = loaded.model.generate(conditioning, GenerationParams(duration_s=0.5, seed=origin.seed))
        assert torch.equal(alone.codes[0], batch.codes[row])
    part = batch.rows([2, 0]).trim(0.1, 0.3)
    assert part.origins == (batch.origins[2], batch.origins[0])
    with pytest.raises(InputError, match="as many origins"):
        Codes(batch.codes, 50.0, "x", batch.origins[:1])
