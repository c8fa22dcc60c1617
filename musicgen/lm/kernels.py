"""Triton kernels for one column of a few rows: each reads its weights once, and does all that lies between two of them.

R rows are a compile-time constant, padded to a power of 2 (R2); so are widths (the `..._2`). Sums are in float32. Imported only
where Triton is; with TRITON_INTERPRET=1 they run on a CPU, as the tests do.
"""

import triton
import triton.language as tl


@triton.jit
def embed(
    sequence, column, length, padding, table, positions, x,
    n_columns, n_entries, dim, n_clips, n_codebooks: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x [R, D] = the sum of the embeddings of the last column's codes, and the position of each row. Grid: (R, blocks of D).

    sequence [B, K, n_columns], rows are its clips over and over; table [K, n_entries, D]; positions [P, D].
    """
    row = tl.program_id(0)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = d < dim
    place = tl.maximum(tl.load(length) - tl.load(padding + row), 0)
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(n_codebooks):
        code = tl.load(sequence + ((row % n_clips) * n_codebooks + k) * n_columns + tl.load(column) - 1)
        total += tl.load(table + (k * n_entries + code) * dim + d, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(positions + place * dim + d, mask=inside, other=0.0)
    tl.store(x + row * dim + d, total, mask=inside)


@triton.jit
def normed_product(
    x, gain, bias, weight, scale, out, n_out, eps,
    R: tl.constexpr, R2: tl.constexpr, dim: tl.constexpr, dim_2: tl.constexpr,
    N: tl.constexpr, BLOCK: tl.constexpr, gelu: tl.constexpr, int8: tl.constexpr,
):  # fmt: skip
    """out [R, n_out] = the layer norm of x [R, D] times weight [n_out, D], through GELU if so. Grid: blocks of N outputs."""
    rows, outs = tl.arange(0, R2), tl.program_id(0) * N + tl.arange(0, N)
    k = tl.arange(0, BLOCK)
    # The first weights are under way while the norm is computed, each block while the one before it is multiplied.
    at = weight + outs[:, None] * dim
    in_row, in_out = rows[:, None] < R, outs[:, None] < n_out
    tile = tl.load(at + k[None, :], mask=in_out & (k[None, :] < dim), other=0.0)
    whole = tl.arange(0, dim_2)
    inside = in_row & (whole[None, :] < dim)
    row = tl.load(x + rows[:, None] * dim + whole[None, :], mask=inside, other=0.0)
    mean = tl.sum(row, 1) / dim
    centred = tl.where(inside, row - mean[:, None], 0.0)
    spread = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / dim + eps)
    total = tl.zeros([R2, N, BLOCK], tl.float32)
    for start in range(0, dim, BLOCK):
        here, later = start + k, start + BLOCK + k
        following = tl.load(at + later[None, :], mask=in_out & (later[None, :] < dim), other=0.0)
        in_k = here < dim
        part = tl.load(x + rows[:, None] * dim + here[None, :], mask=in_row & in_k[None, :], other=0.0)
        part = (part - mean[:, None]) * spread[:, None] * tl.load(gain + here, mask=in_k, other=0.0)[None, :]
        part += tl.load(bias + here, mask=in_k, other=0.0)[None, :]
        total += part[:, None, :] * tile.to(tl.float32)[None, :, :]
        tile = following
    made = tl.sum(total, 2)
    if int8:
        made *= tl.load(scale + outs, mask=outs < n_out, other=0.0)[None, :]
    if gelu:
        made = 0.5 * made * (1.0 + tl.erf(made * 0.7071067811865476))
    tl.store(out + rows[:, None] * n_out + outs[None, :], made, mask=in_row & (outs[None, :] < n_out))


@triton.jit
def added_product(
    given, weight, scale, x, n_out,
    R: tl.constexpr, R2: tl.constexpr, n_in: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, int8: tl.constexpr,
):  # fmt: skip
    """x [R, n_out] += given [R, n_in] times weight [n_out, n_in]. Grid: blocks of N outputs."""
    rows, outs = tl.arange(0, R2), tl.program_id(0) * N + tl.arange(0, N)
    k = tl.arange(0, BLOCK)
    at = weight + outs[:, None] * n_in
    in_row, in_out = rows[:, None] < R, outs[:, None] < n_out
    tile = tl.load(at + k[None, :], mask=in_out & (k[None, :] < n_in), other=0.0)
    total = tl.zeros([R2, N, BLOCK], tl.float32)
    for start in range(0, n_in, BLOCK):
        here, later = start + k, start + BLOCK + k
        following = tl.load(at + later[None, :], mask=in_out & (later[None, :] < n_in), other=0.0)
        part = tl.load(given + rows[:, None] * n_in + here[None, :], mask=in_row & (here[None, :] < n_in), other=0.0)
        total += part[:, None, :] * tile.to(tl.float32)[None, :, :]
        tile = following
    made = tl.sum(total, 2)
    if int8:
        made *= tl.load(scale + outs, mask=outs < n_out, other=0.0)[None, :]
    place = x + rows[:, None] * n_out + outs[None, :]
    inside = in_row & (outs[None, :] < n_out)
    tl.store(place, tl.load(place, mask=inside, other=0.0) + made, mask=inside)


@triton.jit
def attend(
    qkv, keys, values, length, padding, made, peaks, totals, n_heads, room, scale,
    head_dim: tl.constexpr, head_2: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, n_chunks: tl.constexpr,
):  # fmt: skip
    """One query a row and head over CHUNK columns of the cache. Grid: (R * H, chunks).

    qkv [R, 3, H, Dh] of column `length`, whose key and value the first chunk writes to keys and values [R, H, room, Dh], and
    takes from qkv: no other program reads them. made [R, H, chunks, Dh] is finished if there is one chunk; otherwise it goes
    with the largest score and the sum of exponentials of each, for `combine`.
    """
    pair, chunk = tl.program_id(0), tl.program_id(1)
    row, head = pair // n_heads, pair % n_heads
    n_known, n_padding = tl.load(length).to(tl.int32), tl.load(padding + row).to(tl.int32)
    d = tl.arange(0, head_2)
    in_d = d < head_dim
    dim = n_heads * head_dim
    source = qkv + row * 3 * dim + head * head_dim + d
    query = tl.load(source, mask=in_d, other=0.0) * scale
    key = tl.load(source + dim, mask=in_d, other=0.0).to(keys.dtype.element_ty)
    value = tl.load(source + 2 * dim, mask=in_d, other=0.0).to(values.dtype.element_ty)
    cache = pair * room * head_dim
    first = chunk == 0
    tl.store(keys + cache + n_known * head_dim + d, key, mask=in_d & first)
    tl.store(values + cache + n_known * head_dim + d, value, mask=in_d & first)
    peak = tl.where(first, tl.sum(query * key.to(tl.float32), 0), float("-inf"))
    total = tl.where(first, 1.0, 0.0)
    mixed = tl.where(first, value.to(tl.float32), 0.0)
    for start in range(0, CHUNK, BLOCK):
        t = chunk * CHUNK + start + tl.arange(0, BLOCK)
        seen = (t < n_known) & (t >= n_padding)
        inside = seen[:, None] & in_d[None, :]
        at = cache + t[:, None] * head_dim + d[None, :]
        block = tl.load(keys + at, mask=inside, other=0.0).to(tl.float32)
        scores = tl.where(seen, tl.sum(query[None, :] * block, 1), float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 0))
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        shrink, weights = tl.exp(peak - finite), tl.exp(scores - finite)
        block = tl.load(values + at, mask=inside, other=0.0).to(tl.float32)
        mixed = mixed * shrink + tl.sum(weights[:, None] * block, 0)
        total = total * shrink + tl.sum(weights, 0)
        peak = higher
    at = pair * n_chunks + chunk
    if n_chunks == 1:
        mixed /= total
    else:
        tl.store(peaks + at, peak)
        tl.store(totals + at, total)
    tl.store(made + at * head_dim + d, mixed, mask=in_d)


@triton.jit
def combine(
    parts, peaks, totals, out,
    n_chunks: tl.constexpr, chunks_2: tl.constexpr, head_dim: tl.constexpr, head_2: tl.constexpr,
):  # fmt: skip
    """out [R, H, Dh] from what `attend` made of each chunk. Grid: (R * H,)."""
    pair = tl.program_id(0)
    c, d = tl.arange(0, chunks_2), tl.arange(0, head_2)
    in_c, in_d = c < n_chunks, d < head_dim
    peak = tl.load(peaks + pair * n_chunks + c, mask=in_c, other=float("-inf"))
    share = tl.exp(peak - tl.max(peak, 0))  # the first chunk always has a column
    total = tl.sum(share * tl.load(totals + pair * n_chunks + c, mask=in_c, other=0.0), 0)
    at = (pair * n_chunks + c[:, None]) * head_dim + d[None, :]
    mixed = tl.load(parts + at, mask=in_c[:, None] & in_d[None, :], other=0.0)
    tl.store(out + pair * head_dim + d, tl.sum(share[:, None] * mixed, 0) / total, mask=in_d)


@triton.jit
def attend_text(
    queries, keys, values, mask, out, n_heads, scale,
    n_tokens: tl.constexpr, head_dim: tl.constexpr, head_2: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [R, H, Dh] of queries [R, H, Dh] over keys, values [R, H, n_tokens, Dh]; mask [R, n_tokens] is added. Grid: (R * H,)."""
    pair = tl.program_id(0)
    row = pair // n_heads
    d = tl.arange(0, head_2)
    in_d = d < head_dim
    query = tl.load(queries + pair * head_dim + d, mask=in_d, other=0.0) * scale
    peak, total = tl.full([], float("-inf"), tl.float32), tl.zeros([], tl.float32)
    mixed = tl.zeros([head_2], tl.float32)
    for start in range(0, n_tokens, BLOCK):
        t = start + tl.arange(0, BLOCK)
        in_t = t < n_tokens
        inside = in_t[:, None] & in_d[None, :]
        at = (pair * n_tokens + t[:, None]) * head_dim + d[None, :]
        hidden = tl.load(mask + row * n_tokens + t, mask=in_t, other=float("-inf")).to(tl.float32)
        scores = tl.sum(query[None, :] * tl.load(keys + at, mask=inside, other=0.0).to(tl.float32), 1) + hidden
        higher = tl.maximum(peak, tl.max(scores, 0))
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        shrink, weights = tl.exp(peak - finite), tl.exp(scores - finite)
        block = tl.load(values + at, mask=inside, other=0.0).to(tl.float32)
        mixed = mixed * shrink + tl.sum(weights[:, None] * block, 0)
        total = total * shrink + tl.sum(weights, 0)
        peak = higher
    tl.store(out + pair * head_dim + d, mixed / total, mask=in_d)


@triton.jit
def draw_code(
    logits, noise, slot, cfg, temperature, sequence, column, n_columns, n_clips, n_codebooks, cardinality,
    cardinality_2: tl.constexpr, guided: tl.constexpr, greedy: tl.constexpr, top_k: tl.constexpr,
):  # fmt: skip
    """Guidance, top-k and the draw of `sampling`, into sequence [B, K, n_columns] where nothing is known. Grid: (B * K,).

    logits [R, K, cardinality], R = 2 B if guided; noise [slots, B, K, cardinality].
    """
    cell = tl.program_id(0)
    c = tl.arange(0, cardinality_2)
    inside = c < cardinality
    scores = tl.load(logits + cell * cardinality + c, mask=inside, other=0.0)
    if guided:
        null = tl.load(logits + (n_clips * n_codebooks + cell) * cardinality + c, mask=inside, other=0.0)
        scores = null + (scores - null) * tl.load(cfg)
    scores = tl.where(inside, scores, float("-inf"))
    if greedy:
        code = tl.argmax(scores, 0)
    else:
        scores = scores / tl.load(temperature)
        chances = tl.exp(scores - tl.max(scores, 0))
        chances /= tl.sum(chances, 0)
        if top_k > 0:
            # The k-th largest: floats that are not negative are in the order of their bits, found from the highest down.
            bits = chances.to(tl.int32, bitcast=True)
            least = tl.zeros([], tl.int32)
            for i in tl.static_range(31):
                trial = least | (1 << (30 - i))
                enough = tl.sum(tl.where(inside & (bits >= trial), 1, 0), 0) >= top_k
                least = tl.where(enough, trial, least)
            chances = tl.where(bits >= least, chances, 0.0)
            chances /= tl.sum(chances, 0)
        at = (tl.load(slot) * n_clips * n_codebooks + cell) * cardinality + c
        code = tl.argmax(chances / tl.load(noise + at, mask=inside, other=1.0), 0)
    place = sequence + cell * n_columns + tl.load(column)
    tl.store(place, code.to(tl.int64), mask=tl.load(place) < 0)
