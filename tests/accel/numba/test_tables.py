"""Keys and values in tables: what is written is read, and attention to them is that of float32."""

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.accel.numba.tables import BLOCK, Tables
from comfyui_musicgen.musicgen.config import LMConfig
from torch.nn import functional as F

pytestmark = pytest.mark.skipif(accel.numba.load_kernels() is None, reason="there are no kernels for this processor")
ROWS, HEADS, HEAD_DIM, ROOM = 2, 3, 16, 100
TYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.uint8], ids=["float16", "bytes"])
# What a number near 4 may be off by: half of float16's last bit there, half of a byte's step over a row from -4 to 4.
OFF_BY = {torch.float16: 0.002, torch.uint8: 0.016}


def empty_tables(dtype):
    """Tables in memory that has held something else."""
    config = LMConfig(HEADS * HEAD_DIM, HEADS, 2, 4 * HEADS * HEAD_DIM, 4, 96, (0, 1, 2, 3), True)
    tables, other = Tables.of_layers(config, ROWS, ROOM, dtype)
    for table in (tables.keys, tables.values):
        table.fill_(torch.nan if dtype == torch.float16 else 255)  # bytes that make NaN as a scale
    assert other.keys.data_ptr() - tables.keys.data_ptr() == tables.keys.nbytes, "layers share one allocation"
    return tables


def from_rows(rows):
    return rows.float() if rows.dtype != torch.uint8 else torch.ops.quantized.embedding_bag_byte_unpack(rows)


def heads_of(tables):
    """(row, head, addresses of its keys and values, its tail) of each row and head."""
    for row in range(ROWS):
        for head in range(HEADS):
            keys, values, tail = tables.keys[row, head], tables.values[row, head], tables.tail[row, head]
            yield row, head, keys.data_ptr(), values.data_ptr(), tail.flatten().numpy()


def write(tables, keys, values, start=0):
    """keys, values: [R, H, n, D / H], from column `start` on."""
    from comfyui_musicgen.musicgen.accel.numba import ops

    is_half = tables.keys.dtype == torch.float16
    for row, head, keys_at, values_at, tail in heads_of(tables):
        for i in range(keys.shape[2]):
            key, value = keys[row, head, i].numpy(), values[row, head, i].numpy()
            ops.remember(key, value, keys_at, values_at, tail, start + i, is_half)


def attend(tables, queries, column):
    """queries: [R, H, D / H] -> [R, H, D / H]."""
    from comfyui_musicgen.musicgen.accel.numba import ops

    out, is_half = torch.empty_like(queries), tables.keys.dtype == torch.float16
    for row, head, keys_at, values_at, tail in heads_of(tables):
        scaled = (queries[row, head] * HEAD_DIM**-0.5).numpy()
        scores = np.zeros(ROOM + BLOCK, np.float32)
        ops.attend(scaled, keys_at, values_at, tail, column, scores, out[row, head].numpy(), keys_at, is_half)
    return out


def read(tables, n_columns):
    """Keys and values [R, H, n, D / H]; keys of the last block are in the tail while it is not complete."""
    keys = from_rows(tables.keys.flatten(0, -2)).view(ROWS, HEADS, -1, HEAD_DIM, BLOCK).transpose(3, 4).flatten(2, 3)
    values = from_rows(tables.values.flatten(0, -2)).view(ROWS, HEADS, -1, HEAD_DIM)
    complete = n_columns // BLOCK * BLOCK
    keys = torch.cat([keys[:, :, :complete], tables.tail[:, :, : n_columns - complete]], dim=2)
    return keys, values[:, :, :n_columns]


def random_columns(n_columns):
    generator = torch.Generator().manual_seed(n_columns)
    return torch.randn(2, ROWS, HEADS, n_columns, HEAD_DIM, generator=generator).clamp(-4, 4)


@TYPES
@pytest.mark.parametrize("n_columns", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 99])
def test_what_is_written_is_read(dtype, n_columns):
    tables, (keys, values) = empty_tables(dtype), random_columns(n_columns)
    write(tables, keys, values)
    for result, expected in zip(read(tables, n_columns), (keys, values), strict=True):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, expected, atol=OFF_BY[dtype], rtol=0)


@TYPES
def test_a_row_of_zeros_stays_zeros(dtype):
    tables = empty_tables(dtype)
    write(tables, *torch.zeros(2, ROWS, HEADS, BLOCK, HEAD_DIM))
    assert all((each == 0).all() for each in read(tables, BLOCK))


@TYPES
@pytest.mark.parametrize("n_columns", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 99])
def test_attention_is_that_of_float32(dtype, n_columns):
    tables, (keys, values) = empty_tables(dtype), random_columns(n_columns)
    write(tables, keys, values)
    queries = torch.randn(ROWS, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(7))
    result = attend(tables, queries, n_columns - 1)
    expected = F.scaled_dot_product_attention(queries[:, :, None], *read(tables, n_columns))[:, :, 0]
    # Read back, keys of a block that has just become complete are rounded.
    torch.testing.assert_close(result, expected, atol=1e-4 if n_columns % BLOCK else 5e-3, rtol=0)
    wrong = F.scaled_dot_product_attention(queries[:, :, None].roll(1, 0), *read(tables, n_columns))[:, :, 0]
    assert n_columns == 1 or (result - wrong).abs().max() > 0.1


@TYPES
def test_columns_that_are_not_yet_written_are_zeros(dtype):
    """They are summed too, times zero: NaN there would spread."""
    tables, (keys, values) = empty_tables(dtype), random_columns(BLOCK + 3)
    write(tables, keys, values)
    assert (from_rows(tables.values[:, :, BLOCK + 3 : 2 * BLOCK].flatten(0, -2)) == 0).all()
