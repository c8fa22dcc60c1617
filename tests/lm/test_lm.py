"""The language model by itself: cached equals uncached, a row of a batch equals the row alone."""

import pytest
import torch
from comfyui_musicgen.musicgen.config import LMConfig, delays_for
from comfyui_musicgen.musicgen.lm import (
    LM,
    PlainStepper,
    RowNoise,
    Sampling,
    Stream,
    generate_codes,
    quantize_linears,
)
from comfyui_musicgen.musicgen.lm.model import Rows

CARD = 96


def make_lm(cross=True, n_codebooks=4, seed=0, scale=0.08):
    config = LMConfig(48, 3, 3, 192, n_codebooks, CARD, delays_for(n_codebooks, n_codebooks // 4), cross)
    lm = LM(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in lm.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.copy_(1 + 0.1 * torch.randn(parameter.shape, generator=generator))
        else:
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator) * (3 if "embed" in name else 1))
    return lm


def make_streams(lm, lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, lm.config.dim, generator=generator) for n in lengths]
    nothing = torch.zeros(0, lm.config.dim)
    cross = lm.config.cross_attention
    return [Stream(nothing, row) if cross else Stream(row, nothing) for row in rows]


def codes_for(lm, n_rows, n_columns):
    return torch.randint(
        0, CARD + 1, (n_rows, lm.config.n_codebooks, n_columns), generator=torch.Generator().manual_seed(2)
    )


@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("lengths", [[5], [7, 2, 4]])
@pytest.mark.parametrize("chunks", [[1] * 20, [6] + [1] * 14, [3, 5, 1, 11]], ids=["single", "prefill", "mixed"])
@torch.inference_mode()
def test_cached_decoding_equals_the_uncached_forward(cross, lengths, chunks):
    lm = make_lm(cross)
    streams, codes = make_streams(lm, lengths), codes_for(lm, len(lengths), 20)
    whole = lm(codes, streams)
    stepper, done = PlainStepper(lm), 0
    stepper.start(streams, 20)
    for size in chunks:
        logits = stepper.take_in(codes[..., done : done + size])
        done += size
        torch.testing.assert_close(logits, whole[:, :, done - 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("cross", [True, False])
@torch.inference_mode()
def test_logits_of_a_row_do_not_depend_on_its_neighbours(cross):
    lm = make_lm(cross)
    streams, codes = make_streams(lm, [7, 1, 4]), codes_for(lm, 3, 20)
    batch = lm(codes, streams)
    for row in range(3):
        alone = lm(codes[row : row + 1], streams[row : row + 1])
        torch.testing.assert_close(batch[row], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("cross", [True, False])
def test_codes_of_a_row_do_not_depend_on_its_neighbours(cross):
    lm = make_lm(cross)
    streams = make_streams(lm, [7, 1, 4])
    null = make_streams(lm, [7, 1, 4], seed=9)

    class OneRow(RowNoise):
        """The noise of row `row` alone."""

        def __init__(self, row):
            super().__init__(5, 3, 4, CARD)
            self.row = row

        def draw(self):
            return super().draw()[self.row : self.row + 1]

    batch = generate_codes(lm, streams, null, 40, Sampling(50), RowNoise(5, 3, 4, CARD), 3.0)
    for row in range(3):
        alone = generate_codes(lm, [streams[row]], [null[row]], 40, Sampling(50), OneRow(row), 3.0)
        assert torch.equal(batch[row], alone[0])


@torch.inference_mode()
def test_an_empty_row_of_cross_attention_adds_exactly_nothing():
    lm = make_lm()
    codes, nothing = codes_for(lm, 1, 6), torch.zeros(0, 48)
    empty = lm(codes, [Stream(nothing, nothing)])
    assert torch.equal(empty, lm(codes, [Stream(nothing, torch.zeros(9, 48))]))
    for block in lm.layers:
        block.cross_out.weight.zero_()
    assert torch.equal(empty, lm(codes, [Stream(nothing, nothing)]))


def test_a_prompt_comes_first_and_is_kept():
    lm = make_lm(n_codebooks=8)
    prompt = torch.randint(0, CARD, (2, 8, 13))
    streams = make_streams(lm, [3, 3])
    made = generate_codes(lm, streams, None, 30, Sampling(), RowNoise(0, 2, 8, CARD), prompt=prompt)
    assert made.shape == (2, 8, 30) and torch.equal(made[..., :13], prompt)
    assert made.min() >= 0 and made.max() < CARD


def test_continuing_ones_own_greedy_music_changes_nothing():
    lm = make_lm()
    streams = make_streams(lm, [4])
    whole = generate_codes(lm, streams, None, 25, Sampling(temperature=0), None)
    # The last max(delays) frames of a prompt are not yet complete columns when generation starts.
    again = generate_codes(lm, streams, None, 25, Sampling(temperature=0), None, prompt=whole[..., :10])
    assert torch.equal(whole, again)


def test_steps_are_reported_and_may_stop_the_run():
    lm, seen = make_lm(), []
    streams = make_streams(lm, [4])

    class Stop(Exception):
        pass

    def stop_at_five(done, total):
        seen.append((done, total))
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        generate_codes(lm, streams, None, 20, Sampling(), RowNoise(0, 1, 4, CARD), on_step=stop_at_five)
    preparing = 2 * len(lm.layers)  # the text and the cache of each layer
    assert seen == [(0, 23)] * preparing + [(i, 23) for i in range(1, 6)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_stays_near_float32(dtype):
    lm = make_lm()
    streams, codes = make_streams(lm, [5]), codes_for(lm, 1, 20)
    exact = lm(codes, streams)
    for block in lm.layers:
        for child in block.children():
            if not isinstance(child, torch.nn.LayerNorm):
                child.to(dtype)
    near = lm(codes, streams)
    assert torch.nn.functional.cosine_similarity(exact.flatten(), near.flatten(), dim=0) > 0.9995


@torch.inference_mode()
def test_int8_stays_near_float32_and_rows_stay_independent():
    lm = make_lm()
    streams, codes = make_streams(lm, [7, 1, 4]), codes_for(lm, 3, 20)
    exact = lm(codes, streams)
    for block in lm.layers:
        quantize_linears(block)
    near = lm(codes, streams)
    assert torch.nn.functional.cosine_similarity(exact.flatten(), near.flatten(), dim=0) > 0.995
    alone = lm(codes[1:2], streams[1:2])
    assert torch.nn.functional.cosine_similarity(near[1].flatten(), alone.flatten(), dim=0) > 0.99999


@pytest.mark.parametrize("cross", [True, False])
@torch.inference_mode()
def test_a_long_prompt_taken_in_pass_by_pass_gives_the_same_logits(cross):
    lm, n_passes = make_lm(cross), []
    streams, codes = make_streams(lm, [7, 2]), codes_for(lm, 2, 50)
    stepper = PlainStepper(lm, prefill_columns=16)
    stepper.start(streams, 50)
    logits = stepper.take_in(codes, lambda: n_passes.append(1))
    torch.testing.assert_close(logits, lm(codes, streams)[:, :, -1], atol=1e-5, rtol=0)
    assert len(n_passes) == 4 * len(lm.layers), "Cancel is heard before each layer of each pass"


def test_the_noise_of_a_run_is_one_draw_a_step():
    """The next window of a longer piece goes on with the noise where this one has left it."""
    lm, steps, noise, same = make_lm(), [], RowNoise(7, 2, 4, CARD), RowNoise(7, 2, 4, CARD)
    streams = make_streams(lm, [4, 4])
    generate_codes(lm, streams, streams, 9, Sampling(), noise, 3.0, on_step=lambda done, total: steps.append(done))
    for done in steps:
        if done > 0:  # 0: the run is being prepared
            same.draw()
    assert torch.equal(noise.draw(), same.draw())


# --- training


@pytest.mark.parametrize("cross", [True, False])
def test_layers_without_a_cache_are_the_forward_and_pass_gradients_on(cross):
    """The form that training uses: plain causal attention."""
    lm = make_lm(cross).requires_grad_(True)
    streams, codes = make_streams(lm, [5, 5]), codes_for(lm, 2, 12)
    rows = Rows.of(streams, lm)
    x = torch.cat([rows.prefix, lm.embed(codes)], dim=1)
    n_prefix, n_columns = rows.prefix.shape[1], x.shape[1]
    x = x + rows.positions(n_columns)
    for block, text in zip(lm.layers, rows.texts(lm), strict=True):
        x = block(x, text=text)
    logits = lm.logits(x[:, n_prefix:])
    assert torch.equal(logits, lm(codes, streams))
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in lm.parameters())


def test_a_column_never_sees_what_comes_after_it():
    lm = make_lm()
    x = torch.randn(1, 9, 48, requires_grad=True)
    (lm.layers[0](x)[:, 4].sum()).backward()
    seen = x.grad.abs().sum(dim=(0, 2)) > 0
    assert seen.tolist() == [True] * 5 + [False] * 4


# --- memory


@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_cache_bytes_counts_keys_and_values(cross, dtype):
    lm = make_lm(cross)
    for block in lm.layers:
        block.qkv.to(dtype)
        if cross:
            block.cross_kv.to(dtype)
    tensors = [
        text
        for cache in Rows.of(make_streams(lm, [6, 6]), lm).texts(lm)
        if cache
        for text in (cache.keys, cache.values)
    ]
    tensors += [torch.zeros(2, 3, 30, 16, dtype=dtype)] * 2 * len(lm.layers)
    assert lm.cache_bytes(2, 30, 6) == sum(tensor.nbytes for tensor in tensors)


def test_padding_is_hidden_from_every_column_but_itself():
    lm = make_lm(cross=False)
    rows = Rows.of(make_streams(lm, [3, 1]), lm)
    mask = rows.mask(0, 5)[:, 0]
    assert mask[0].tolist() == torch.ones(5, 5).tril().bool().tolist()
    assert mask[1].sum(dim=1).tolist() == [1, 1, 1, 2, 3] and mask[1, 0, 0] and mask[1, 1, 1]
    assert Rows.of(make_streams(lm, [3, 3]), lm).mask(4, 5) is None
