"""A short text folded into cross-attention's weights: what attending to it gives, and when it is done."""

import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.accel.numba import NumbaStepper
from comfyui_musicgen.musicgen.accel.numba.texts import Texts
from comfyui_musicgen.musicgen.lm import Stream
from comfyui_musicgen.tests.lm import tiny_lm
from torch.nn import functional as F

pytestmark = pytest.mark.skipif(accel.numba.load_kernels() is None, reason="there are no kernels for this processor")
CLOSENESS = [("float16", 0.999999), ("bfloat16", 0.999999), ("int8", 0.9998)]


@pytest.mark.parametrize("n_heads", [3, 4], ids=["one block", "four blocks"])
@pytest.mark.parametrize(("precision", "closeness"), CLOSENESS)
def test_logits_of_a_folded_text_are_those_of_attention(precision, closeness, n_heads):
    """A column at a time, and in a prompt; with text, and without."""
    lm = tiny_lm.make(precision=precision, n_heads=n_heads)
    streams = [*tiny_lm.streams(lm, (6, 6)), *tiny_lm.nulls((0, 0))]
    folded = tiny_lm.logits_of(NumbaStepper(lm), streams, 5, 9)
    attended = tiny_lm.logits_of(NumbaStepper(lm, max_folded=0.0), streams, 5, 9)
    assert not torch.equal(folded, attended)
    for rows in (slice(0, 2), slice(2, 4)):
        for columns in (slice(0, 1), slice(1, None)):
            one, other = folded[rows, :, columns].flatten(), attended[rows, :, columns].flatten()
            assert F.cosine_similarity(one, other, dim=0) > closeness
    without = tiny_lm.logits_of(NumbaStepper(lm), tiny_lm.nulls((0,) * 4), 5, 9)
    assert F.cosine_similarity(folded[:2].flatten(), without[:2].flatten(), dim=0) < 0.99
    assert torch.equal(folded[2:], without[2:])


def test_short_texts_are_folded_and_longer_ones_attended_to():
    """Each by itself, whatever the other rows have."""
    lm = tiny_lm.make(precision="float16")
    streams = [*tiny_lm.streams(lm, (6, 8, 9, 20)), *tiny_lm.nulls((0,))]
    texts = Texts.of(lm, streams, torch.float16)
    assert texts.n_folded == [6, 8, 0, 0, 0] and texts.n_attended == [0, 0, 9, 20, 0]  # 3 heads times 8 of width 48
    keys, values = texts.attended[0]
    assert keys.shape == values.shape == (5, 3, 20, 16)
    assert Texts.of(lm, streams, torch.float16, max_folded=0.0).n_folded == [0] * 5
    assert Texts.of(lm, streams, torch.float16, max_folded=2.0).n_attended == [0] * 5


def test_rows_of_one_text_share_its_tables():
    lm = tiny_lm.make(precision="float16")
    text, other = tiny_lm.streams(lm, (6, 5))
    copy = Stream(text.prefix, text.cross.clone())
    texts = Texts.of(lm, [text, other, copy, *tiny_lm.nulls((0,))], torch.float16)
    for layer in texts.folded:
        first, second, third, none = layer
        assert first is third and first is not second and none is None
    one, next_ = (layer[0][0] for layer in texts.folded[:2])
    assert next_.data_ptr() - one.data_ptr() == one.nbytes, "layers share one allocation"


def test_models_without_text_attention_fold_nothing():
    lm = tiny_lm.make(cross=False, precision="float16")
    texts = Texts.of(lm, tiny_lm.streams(lm, (3,)), torch.float16)
    assert texts.n_folded == texts.n_attended == [0] and texts.folded == [[None]] * 3 and texts.attended == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8])
def test_folded_tables_are_smaller_than_the_two_matrices_they_stand_for(dtype):
    lm = tiny_lm.make(precision="float16" if dtype == torch.float16 else "int8", n_heads=4)
    texts = Texts.of(lm, tiny_lm.streams(lm, (6,)), dtype)
    block = lm.layers[0]
    folded_bytes = sum(table.nbytes for table in texts.folded[0][0])
    matrices = block.cross_q.weight.nbytes + block.cross_out.weight.nbytes
    assert folded_bytes <= matrices * (1 if dtype == torch.float16 else 2)  # of bytes, scales count at this width
