"""Sampling equals audiocraft's, and noise depends on seed and row alone."""

import pytest
import torch
from comfyui_musicgen.musicgen.lm.sampling import RowNoise, Sampling, draw, guide, row_seed

ROWS, K, CARD = 3, 4, 128


@pytest.fixture()
def logits():
    return 3 * torch.randn(ROWS, K, CARD, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(50, 0.0, 0.8), Sampling(0, 0.9, 1.0), Sampling(0), Sampling(250, 0.3, 2.0), Sampling(1)],
    ids=str,
)
def test_draw_equals_audiocraft(audiocraft, logits, sampling):
    from audiocraft.utils import utils

    probs = torch.softmax(logits / sampling.temperature, dim=-1)
    torch.manual_seed(11)
    if sampling.top_p > 0:
        theirs = utils.sample_top_p(probs.clone(), p=sampling.top_p)
    elif 0 < sampling.top_k <= CARD:
        theirs = utils.sample_top_k(probs.clone(), k=sampling.top_k)
    else:
        theirs = utils.multinomial(probs, num_samples=1)
    torch.manual_seed(11)
    noise = torch.empty(ROWS * K, CARD).exponential_(1.0).view(ROWS, K, CARD)
    assert torch.equal(draw(logits, sampling, noise), theirs.squeeze(-1))


def test_greedy_takes_the_first_maximum():
    logits = torch.zeros(1, 2, 8)
    logits[0, 1, 5] = logits[0, 1, 6] = 1
    assert draw(logits, Sampling(temperature=0), None).tolist() == [[0, 5]]


def test_top_k_keeps_ties_at_the_threshold():
    logits = torch.tensor([[[2.0, 1.0, 1.0, 1.0, 0.0]]])
    seen = set()
    for seed in range(200):
        seen.add(draw(logits, Sampling(top_k=2), RowNoise(seed, 1, 1, 5).draw()).item())
    assert seen == {0, 1, 2, 3}


def test_top_p_never_leaves_the_nucleus():
    logits = torch.log(torch.tensor([[[0.5, 0.3, 0.15, 0.05]]]))
    seen = {draw(logits, Sampling(top_p=0.6), RowNoise(seed, 1, 1, 4).draw()).item() for seed in range(200)}
    assert seen == {0, 1}


def test_first_row_is_torchs_own_stream():
    torch.manual_seed(2**40 + 7)
    expected = [torch.empty(K, CARD).exponential_(1.0) for _ in range(3)]
    noise = RowNoise(2**40 + 7, 1, K, CARD)
    assert all(torch.equal(noise.draw()[0], e) for e in expected)


def test_a_rows_noise_does_not_depend_on_the_batch():
    wide, narrow = RowNoise(3, 5, K, CARD), RowNoise(3, 2, K, CARD)
    for _ in range(3):
        assert torch.equal(wide.draw()[:2], narrow.draw())


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    RowNoise(0, 2, K, CARD).draw()
    assert torch.equal(before, torch.get_rng_state())


def test_row_seeds_are_the_documented_function():
    assert row_seed(42, 0) == 42
    assert row_seed(0, 1) == 0xE220A8397B1DCDAF  # first output of splitmix64 seeded with 0
    seeds = {row_seed(seed, row) & 0xFFFFFFFF for seed in range(50) for row in range(64)}
    assert len(seeds) > 50 * 64 - 64  # the lower halves, which torch's generator reads, hardly ever meet


def test_guidance_formula():
    logits = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    assert torch.equal(guide(logits, 3.0), torch.tensor([[3.0, -2.0]]))
