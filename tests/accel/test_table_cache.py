"""Keys and values in tables on an x86 CPU: what float32 attention makes of them, and no row sees another's."""

import pytest
import torch
from comfyui_musicgen.musicgen.lm import model
from comfyui_musicgen.musicgen.lm.cache import BLOCK, Bags, Columns, LayerCache, TableCache
from comfyui_musicgen.musicgen.lm.cpu_step import attend_tables, remember
from comfyui_musicgen.tests.lm import tiny_lm
from torch.nn import functional as F

pytestmark = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("x86", "fbgemm"), reason="torch has no FBGEMM on this processor"
)
ROWS, HEADS, HEAD_DIM = 3, 4, 16
TYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.uint8], ids=["float16", "bytes"])
# What a number near 4 may be off by: half of float16's last bit there, half of a byte's step over a row from -4 to 4.
OFF_BY = {torch.float16: 0.002, torch.uint8: 0.016}


def an_empty_one(dtype, room=100):
    """In memory that has held something else."""
    cache, other = TableCache.of_layers(ROWS, HEADS, room, HEAD_DIM, dtype, [(None, None)] * 2)
    for table in (cache.keys, cache.values):
        table.fill_(torch.nan if dtype == torch.float16 else 255)  # bytes that make NaN as a scale
    assert other.keys.data_ptr() - cache.keys.data_ptr() == cache.keys.nbytes
    return cache


def a_cache(n_columns, dtype):
    generator = torch.Generator().manual_seed(n_columns)
    keys, values = torch.randn(2, ROWS, HEADS, n_columns, HEAD_DIM, generator=generator).clamp(-4, 4)
    cache = an_empty_one(dtype)
    cache.write(Columns(0, n_columns, None), keys, values)
    return cache, keys, values


@TYPES
def test_what_is_written_is_read(dtype):
    """In pieces that end within blocks and at their ends, and column by column."""
    _, *given = a_cache(99, dtype)
    cache, start = an_empty_one(dtype), 0
    for end in (5, BLOCK, BLOCK + 8, 2 * BLOCK + 1, 99):
        cache.write(Columns(start, end, None), *(each[:, :, start:end] for each in given))
        for made, expected in zip(cache.read(end), given, strict=True):
            assert made.dtype == torch.float32
            torch.testing.assert_close(made, expected[:, :, :end], atol=OFF_BY[dtype], rtol=0)
        start = end
    columns = an_empty_one(dtype)
    for i in range(99):
        remember(*(each[:, :, i] for each in given), columns.keys, columns.values, columns.tail, i)
    for one, other in zip(columns.read(99), cache.read(99), strict=True):
        assert torch.equal(one, other)


@TYPES
def test_a_row_of_zeros_stays_zeros(dtype):
    cache = an_empty_one(dtype)
    cache.write(Columns(0, BLOCK, None), *torch.zeros(2, ROWS, HEADS, BLOCK, HEAD_DIM))
    assert all((each == 0).all() for each in cache.read(BLOCK))


@TYPES
@pytest.mark.parametrize("n_columns", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 99])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_float32(n_columns, masked, dtype):
    cache, _, _ = a_cache(n_columns - 1, dtype) if n_columns > 1 else (an_empty_one(dtype), None, None)
    query, key, value = torch.randn(3, ROWS, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(7))
    remember(key, value, cache.keys, cache.values, cache.tail, n_columns - 1)
    mask = None
    if masked:
        mask = torch.ones(ROWS, 1, 1, n_columns, dtype=torch.bool)
        mask[1, ..., : n_columns // 2] = False
    made = attend_tables(query, cache.keys, cache.values, cache.tail, Bags().of(cache, n_columns, mask))
    expected = F.scaled_dot_product_attention(query[:, :, None], *cache.read(n_columns), attn_mask=mask)[:, :, 0]
    # Read back, keys of a block that has just become whole are rounded, and float16 rounds query, weights and sums too.
    exact = dtype == torch.uint8 and n_columns % BLOCK
    torch.testing.assert_close(made, expected, atol=1e-5 if exact else 5e-3, rtol=0)
    wrong = F.scaled_dot_product_attention(query[:, :, None].roll(1, 0), *cache.read(n_columns), attn_mask=mask)[
        :, :, 0
    ]
    assert n_columns == 1 or (made - wrong).abs().max() > 0.1


@TYPES
def test_bags_grow_with_the_columns(dtype):
    cache, _, _ = a_cache(99, dtype)
    bags = Bags()
    query = torch.randn(ROWS, HEADS, HEAD_DIM)
    for n_columns in (99, 98, 99):
        ours, fresh = bags.of(cache, n_columns, None), Bags().of(cache, n_columns, None)
        made, expected = (attend_tables(query, cache.keys, cache.values, cache.tail, each) for each in (ours, fresh))
        assert torch.equal(made, expected)
    sizes = []
    for n_columns in (1, BLOCK, BLOCK + 1, 99, 5):
        tables = bags.of(cache, n_columns, None)
        sizes.append((len(tables[0]), len(tables[2])))
        assert tables[4].isfinite().sum() == (n_columns - 1) % BLOCK + 1
        assert all(
            torch.equal(one, other) for one, other in zip(tables, Bags().of(cache, n_columns, None), strict=True)
        )
    per_head = [(0, 1), (0, 1), (1, 2), (3, 4), (0, 1)]  # whole blocks, and with the one under way
    n = ROWS * HEADS
    assert sizes == [(n * HEAD_DIM * whole, n * BLOCK * both) for whole, both in per_head]


# --- in the model


@pytest.fixture(params=["kernels", "operators"])
def make_lm(request, monkeypatch):
    """make_lm(precision, cross=True, tables=True); int8 with Numba's kernels, and without."""
    if request.param == "operators":
        monkeypatch.setattr(model, "kernels", lambda: None)

    def make(precision, cross=True, tables=True):
        monkeypatch.setattr(model, "_TABLES_FROM", 0 if tables else 10**6)
        return tiny_lm.make(cross, precision)

    return make


@torch.inference_mode()
def logits_of(lm, lengths, n_known=20, n=2 * BLOCK + 5):
    """Of a prompt of n_known columns and of those after it, one by one: [R, K, n - n_known + 1, cardinality]."""
    codes = torch.randint(96, (1, 4, n), generator=torch.Generator().manual_seed(3)).expand(len(lengths), -1, -1)
    state = lm.start(tiny_lm.streams(lm, lengths), n)
    made = [lm.step(state, codes[..., :n_known])]
    made += [lm.step(state, codes[..., i : i + 1]) for i in range(n_known, n)]
    return torch.stack(made, dim=2), state


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
@pytest.mark.parametrize(("precision", "closeness"), [("float16", 0.999999), ("int8", 0.9998)])
def test_logits_are_those_of_a_float32_cache(make_lm, precision, closeness, cross):
    ours, state = logits_of(make_lm(precision, cross), (7, 2, 4))
    plain, other = logits_of(make_lm(precision, cross, tables=False), (7, 2, 4))
    assert isinstance(state.layers[0], TableCache) and not isinstance(other.layers[0], TableCache)
    assert not torch.equal(ours, plain)
    assert F.cosine_similarity(ours.flatten(), plain.flatten(), dim=0) > closeness


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
@pytest.mark.parametrize(("precision", "closeness"), [("float16", 0.999999), ("int8", 0.9998)])
def test_a_row_does_not_depend_on_its_batch(make_lm, precision, closeness, cross):
    """Beyond rounding: a product's last bit moves with the number of rows, and may tip a float16 or an int8 over."""
    lm = make_lm(precision, cross)
    together, _ = logits_of(lm, (5, 2, 7))
    for row, length in enumerate((5, 2, 7)):
        alone, _ = logits_of(lm, (length,))
        assert F.cosine_similarity(together[row].flatten(), alone.flatten(), dim=0) > closeness


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_long_prompt_is_taken_in_piece_by_piece(make_lm, monkeypatch, precision):
    lm = make_lm(precision, cross=False)
    taken, take_in = [], lm._take_in
    monkeypatch.setattr(model, "_FUSED_CELLS", model._CPU_CELLS)

    def keep(state, x):
        if x.shape[1] > 1:  # single columns may go another way
            taken.append(x.shape[1])
        return take_in(state, x)

    monkeypatch.setattr(lm, "_take_in", keep)
    whole, _ = logits_of(lm, (7, 2), n_known=60)
    assert taken == [67]
    for cells in ("_CPU_CELLS", "_FUSED_CELLS"):
        monkeypatch.setattr(model, cells, 40)
    taken.clear()
    pieces, state = logits_of(lm, (7, 2), n_known=60)
    assert state.length == 7 + 2 * BLOCK + 5
    assert taken == [20, 20, 20, 7], "fewer columns the more rows there are"
    assert F.cosine_similarity(pieces.flatten(), whole.flatten(), dim=0) > 0.9998
    taken.clear()
    logits_of(lm, (7, 2, 3, 4), n_known=60)
    assert taken == [16, 16, 16, 16, 3], "but not so few that the weights are read for next to nothing"


def test_a_float32_prompt_taken_in_piece_by_piece_gives_the_same_logits(make_lm, monkeypatch):
    lm = make_lm("float32", cross=False)
    with torch.inference_mode():
        codes = torch.randint(96, (2, 4, 50))
        whole = lm(codes, tiny_lm.streams(lm, (7, 2)))
        monkeypatch.setattr(model, "_CPU_COLUMNS", 16)
        torch.testing.assert_close(lm(codes, tiny_lm.streams(lm, (7, 2))), whole, atol=1e-5, rtol=0)


def test_state_bytes_counts_them(make_lm):
    lm = make_lm("int8")
    state = lm.start(tiny_lm.streams(lm, (12, 12)), 2 * BLOCK + 5)
    tensors = [t for c in state.layers for t in (c.keys, c.values, c.tail, c.cross_keys, c.cross_values)]
    exact = sum(t.nbytes for t in [*tensors, state.positions])
    assert lm.state_bytes(2, 2 * BLOCK + 5, 12) == exact
    assert state.max_len == 3 * BLOCK


def test_narrow_models_and_float32_keep_plain_caches(make_lm, monkeypatch):
    for precision, width in (("float16", 49), ("float32", 0)):
        lm = make_lm(precision)
        monkeypatch.setattr(model, "_TABLES_FROM", width)
        assert type(lm.start(tiny_lm.streams(lm, (3,)), 8).layers[0]) is LayerCache
