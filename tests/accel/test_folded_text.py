"""A short text folded into cross-attention's weights on an x86 CPU: what attending to it gives, and when it is done."""

import pytest
import torch
from comfyui_musicgen.musicgen.lm import Stream, model
from comfyui_musicgen.tests.lm import tiny_lm
from torch.nn import functional as F

pytestmark = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("x86", "fbgemm"), reason="torch has no FBGEMM on this processor"
)
N_TEXT = 6
CLOSENESS = [("float16", 0.999999), ("bfloat16", 0.999999), ("int8", 0.9998)]


@pytest.fixture(params=["kernels", "operators"])
def make_lm(request, monkeypatch):
    """A model that keeps tables, though it is narrow; int8 with Numba's kernels, and without."""
    if request.param == "operators":
        monkeypatch.setattr(model, "kernels", lambda: None)
    monkeypatch.setattr(model, "_TABLES_FROM", 0)
    return lambda precision, **options: tiny_lm.make(precision=precision, **options)


def guided(lm, n_clips=2, n_text=N_TEXT):
    return tiny_lm.streams(lm, (n_text,) * n_clips) + tiny_lm.nulls((0,) * n_clips)


@torch.inference_mode()
def logits_of(lm, streams, n_known=5, n=9):
    """Of a prompt and of the columns after it: [R, K, n - n_known + 1, cardinality], and the state."""
    codes = torch.randint(96, (len(streams), 4, n), generator=torch.Generator().manual_seed(3))
    state = lm.start(streams, n)
    made = [lm.step(state, codes[..., :n_known])]
    made += [lm.step(state, codes[..., i : i + 1]) for i in range(n_known, n)]
    return torch.stack(made, dim=2), state


@pytest.mark.parametrize("n_heads", [3, 4], ids=["one block", "four blocks"])
@pytest.mark.parametrize(("precision", "closeness"), CLOSENESS)
def test_logits_are_those_of_attention(make_lm, monkeypatch, precision, closeness, n_heads):
    lm = make_lm(precision, n_heads=n_heads)
    folded, state = logits_of(lm, guided(lm))
    assert [cache.n_folded for cache in state.layers] == [2, 2, 2] and state.cross_mask is None
    first, second, _ = (cache.cross_keys for cache in state.layers)
    assert second.data_ptr() - first.data_ptr() == first.nbytes  # in memory of their own
    monkeypatch.setattr(model, "_FOLDED_TEXT", 0.0)
    plain, other = logits_of(lm, guided(lm))
    assert [cache.n_folded for cache in other.layers] == [0, 0, 0]
    assert not torch.equal(folded, plain)
    # A column at a time, and in a prompt; with text, and without.
    for rows in (slice(0, 2), slice(2, 4)):
        for columns in (slice(0, 1), slice(1, None)):
            made, expected = folded[rows, :, columns].flatten(), plain[rows, :, columns].flatten()
            assert F.cosine_similarity(made, expected, dim=0) > closeness
    without, _ = logits_of(lm, tiny_lm.nulls((0,) * 4))
    assert F.cosine_similarity(folded[:2].flatten(), without[:2].flatten(), dim=0) < 0.99
    assert F.cosine_similarity(folded[2:].flatten(), without[2:].flatten(), dim=0) > closeness


@pytest.mark.parametrize(("precision", "closeness"), CLOSENESS)
def test_a_column_by_the_layers_themselves_is_the_same(make_lm, monkeypatch, precision, closeness):
    lm = make_lm(precision)
    quick, _ = logits_of(lm, guided(lm))
    monkeypatch.setattr(lm, "_cpu", lambda *run: None)
    slow, state = logits_of(lm, guided(lm))
    assert state.layers[0].n_folded and state.cpu is None
    assert F.cosine_similarity(quick.flatten(), slow.flatten(), dim=0) > closeness


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_weights_that_were_packed_before_fold_the_same(make_lm, monkeypatch, precision):
    monkeypatch.setattr(model, "kernels", lambda: None)
    lm = make_lm(precision)
    first, _ = logits_of(lm, guided(lm))
    assert not lm.layers[0].cross_q.is_packed  # nothing has multiplied by it
    with monkeypatch.context() as m:
        m.setattr(model, "_FOLDED_TEXT", 0.0)
        logits_of(lm, guided(lm))
    assert lm.layers[0].cross_q.is_packed and lm.layers[0].cross_out.is_packed
    again, state = logits_of(lm, guided(lm))
    assert state.layers[0].n_folded == 2 and torch.equal(again, first)


def test_only_one_short_text_is_folded(make_lm):
    lm = make_lm("float16")
    text = tiny_lm.streams(lm, (N_TEXT,))[0]
    other = Stream(text.prefix, text.cross + 1.0)
    nothing = tiny_lm.nulls((0,))[0]

    def n_folded(*streams):
        return lm.start(streams, 8).layers[0].n_folded

    assert n_folded(text) == 1 and n_folded(text, nothing) == 1 and n_folded(text, text, nothing, nothing) == 2
    copy = Stream(text.prefix, text.cross.clone())
    assert n_folded(text, copy, nothing) == 2
    assert n_folded(text, other) == 0 and n_folded(text, other, nothing, nothing) == 0
    assert n_folded(nothing, text) == 0 and n_folded(nothing) == 0
    assert n_folded(*tiny_lm.streams(lm, (8,))) == 1 and n_folded(*tiny_lm.streams(lm, (9,))) == 0  # 9 tokens, 3 heads
    assert n_folded(*[text] * 5) == 5 and n_folded(*[text] * 6) == 0  # each row reads it anew


def test_float32_and_models_without_text_attention_do_not_fold(make_lm):
    assert make_lm("float32").start(guided(make_lm("float32")), 8).layers[0].n_folded == 0
    lm = make_lm("float16", cross=False)
    state = lm.start(tiny_lm.streams(lm, (3,)), 8)
    assert state.layers[0].n_folded == 0 and state.layers[0].cross_keys is None


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_state_bytes_counts_what_is_folded(make_lm, precision):
    lm = make_lm(precision, n_heads=4)
    state = lm.start(guided(lm, 1, 5), 40)
    tensors = [t for c in state.layers for t in (c.keys, c.values, c.tail, c.cross_keys, c.cross_values)]
    held = sum(t.nbytes for t in [*tensors, state.positions])
    assert held <= lm.state_bytes(2, 40, 5) < 1.5 * held
