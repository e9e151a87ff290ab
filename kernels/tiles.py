"""Small pieces that every attention kernel shares: tiles in and out of memory, which pairs count, dropout.

A *tile* is a block of rows of a (T, D) matrix, padded to a power of two of columns, because that is the shape that a
GPU's matrix unit multiplies. Read this file before `flash_simple.py`.

Triton runs each function below once per program, on whole tiles; with TRITON_INTERPRET=1 in the environment (set
before triton is imported) the same code runs on the CPU, in NumPy, and a debugger steps through it.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)  # exp(x) = exp2(x · log2(e)); the hardware has exp2
# Start of the running maximum: below any score that float32 can hold but for the last tenth of its range, and finite,
# so that exp2(-inf - start) is 0 and not NaN.
LOWEST = tl.constexpr(-3.0e38)
HIGHEST = tl.constexpr(3.4028234663852886e38)  # the largest float32


@triton.jit
def load_tile(base, first, n_rows, stride, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
              COMPUTE: tl.constexpr, CHECK_ROWS: tl.constexpr, ALIGNED: tl.constexpr = False):  # fmt: skip
    """Rows first .. first+ROWS-1 of a (n_rows, D) matrix: (ROWS, BLOCK_D) in dtype COMPUTE, zeros outside the matrix.

    `first · stride` is computed in 64 bits: a long sequence of wide rows passes 2^31 elements. ALIGNED promises that
    each row begins at a multiple of 16 bytes (see `call.rows_are_aligned`).
    """
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    at = base + tl.cast(first, tl.int64) * stride + row[:, None] * stride + column[None, :]
    if ALIGNED:
        at = tl.multiple_of(at, (1, 16))
    if CHECK_ROWS:
        tile = tl.load(at, mask=(first + row < n_rows)[:, None] & (column < D)[None, :], other=0.0)
    elif D < BLOCK_D:
        tile = tl.load(at, mask=(column < D)[None, :], other=0.0)
    else:
        tile = tl.load(at)
    return tile.to(COMPUTE)


@triton.jit
def load_keys(base, table, first, n_rows, page_stride, stride, PAGE: tl.constexpr, ROWS: tl.constexpr,
              D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr, CHECK_ROWS: tl.constexpr,
              ALIGNED: tl.constexpr = False):  # fmt: skip
    """`load_tile` from keys or values that may lie in pages (PagedAttention, Kwon et al. 2023, arXiv:2309.06180).

    `table` points at this sequence's page numbers: row r is row r % PAGE of page table[r // PAGE], and a page begins
    `page_stride` elements after the one before. None where the rows lie one after another.
    """
    if table is None:
        return load_tile(base, first, n_rows, stride, ROWS, D, BLOCK_D, COMPUTE, CHECK_ROWS, ALIGNED)
    else:
        row = first + tl.arange(0, ROWS)
        column = tl.arange(0, BLOCK_D)
        page = tl.load(table + row // PAGE, mask=row < n_rows, other=0).to(tl.int64)
        at = base + (page * page_stride + (row % PAGE) * stride)[:, None] + column[None, :]
        return tl.load(at, mask=(row < n_rows)[:, None] & (column < D)[None, :], other=0.0).to(COMPUTE)


@triton.jit
def load_described(tensor, batch, head, first, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr):
    """`load_tile` by a tensor descriptor: rows first .. of a (B, H, T, D) tensor, (ROWS, BLOCK_D), zeros outside it.

    A descriptor holds the tensor's address, sizes and strides. From it and the tile's corner Hopper's tensor memory
    accelerator (TMA) fetches the tile by itself: no thread computes addresses, keeps them in registers, or looks for
    the edge (NVIDIA, H100 whitepaper, 2022, "Tensor Memory Accelerator").
    """
    corner = [tl.cast(batch, tl.int32), tl.cast(head, tl.int32), tl.cast(first, tl.int32), 0]
    return tensor.load(corner).reshape(ROWS, BLOCK_D).to(COMPUTE)  # of (1, 1, ROWS, BLOCK_D)


@triton.jit
def store_tile(base, tile, first, n_rows, stride, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write a (ROWS, BLOCK_D) tile to rows first .. of a (n_rows, D) matrix; what lies outside it is dropped."""
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    at = base + tl.cast(first, tl.int64) * stride + row[:, None] * stride + column[None, :]
    keep = (first + row < n_rows)[:, None] & (column < D)[None, :]
    tl.store(at, tile.to(base.dtype.element_ty), mask=keep)


@triton.jit
def locate(z, cu_seqlens, T, lengths=None):
    """Where sequence z lies: (batch row, first token, number of tokens).

    Without `cu_seqlens` it is row z of a (B, H, T, D) tensor, or the first lengths[z] tokens of that. With it, the
    sequences are packed one after another in row 0, and sequence z is the tokens cu_seqlens[z] .. cu_seqlens[z+1]-1.
    Wrong numbers are refused elsewhere (`checks.py`); here they are cut to what exists, so that they touch no memory
    but the tensor's own.
    """
    z = tl.cast(z, tl.int64)
    if cu_seqlens is not None:
        start = tl.maximum(tl.load(cu_seqlens + z), 0)
        stop = tl.minimum(tl.load(cu_seqlens + z + 1), T)  # below start: a length below 0, of which nothing is done
        return z * 0, start.to(tl.int64), stop - start
    elif lengths is not None:
        return z, z * 0, tl.minimum(tl.maximum(tl.load(lengths + z), 0), T)
    else:
        return z, z * 0, T


@triton.jit
def tanh(x):
    """tanh(x) out of exp2; near 0, where 1 - 2 / (e^2x + 1) would lose digits, its series to x^11. Beyond 20 it is 1 in
    float64, too: there x goes no further, whose powers would overflow."""
    x = tl.clamp(x, -20.0, 20.0, propagate_nan=tl.PropagateNan.ALL)
    x2 = x * x
    series = 1 + x2 * (-1 / 3 + x2 * (2 / 15 + x2 * (-17 / 315 + x2 * (62 / 2835 - x2 * (1382 / 155925)))))
    return tl.where(x2 < 0.0625, x * series, 1 - 2 / (tl.exp2(x * (2 * LOG2E)) + 1))


@triton.jit
def base_two(s, SCALE: tl.constexpr, SOFTCAP: tl.constexpr):
    """Products q · k to the scores that exp2 is taken of: scaled, capped to ±SOFTCAP if that is above 0, times log2(e).

    The cap is SOFTCAP · tanh(s / SOFTCAP) (Gemma 2, arXiv:2408.00118, §2). The minimum changes no number: it keeps the
    compiler from fusing the product with a later subtraction. Of scores like 1e31, rounding one and not the other
    leaves 1e23.
    """
    if SOFTCAP > 0:
        return tanh(s * (SCALE / SOFTCAP)) * (SOFTCAP * LOG2E)
    else:
        return tl.minimum(s * (SCALE * LOG2E), HIGHEST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def cap_slope(s, SOFTCAP: tl.constexpr):
    """The cap's derivative, 1 - tanh², from the scores that `base_two` gives."""
    t = s / (SOFTCAP * LOG2E)
    return 1 - t * t


@triton.jit
def start_softmax(sinks, h, ROWS: tl.constexpr, ACC: tl.constexpr):
    """(m, l) before any key: nothing seen, or each head's sink, a key that every query sees and whose value is 0.

    Sinks (H,) are scores beside scale · q kᵀ (gpt-oss, OpenAI 2025); None where there are none.
    """
    m = tl.zeros((ROWS,), dtype=ACC) + LOWEST
    l = tl.zeros((ROWS,), dtype=ACC)
    if sinks is not None:
        sink = tl.load(sinks + h).to(ACC) * LOG2E
        m = tl.maximum(m, sink)
        l = tl.exp2(sink - m)
    return m, l


@triton.jit
def visible(i, j, Tq, Tk, left, right, mask, mask_strides):
    """May query i look at key j? (M, N) booleans for query positions i (M,) and key positions j (N,).

    Positions are aligned at the bottom right: the last query stands at the last key, so query i stands at key
    i + Tk - Tq and sees `left` keys before it and `right` keys after it. Causal attention is right = 0.
    `mask` points at bytes (nonzero = keep) of this sequence and head, or is None.
    """
    distance = j[None, :] - (i[:, None] + (Tk - Tq))
    keep = (i < Tq)[:, None] & (j < Tk)[None, :] & (distance <= right) & (distance >= -left)
    if mask is not None:
        at = mask + i[:, None].to(tl.int64) * mask_strides[2] + j[None, :].to(tl.int64) * mask_strides[3]
        keep = keep & (tl.load(at, mask=keep, other=0) != 0)
    return keep


@triton.jit
def dropout_keep(seed, head, i, first_j, N: tl.constexpr, P: tl.constexpr):
    """(M, N) booleans, each true with probability 1 - P: a function of (seed, head, query, key) alone.

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter into four random words,
    with no state: the backward kernels replay the mask of the forward one, whatever their tile sizes, and nothing is
    stored. The counter is (key // 4, query, head), so it cannot overflow as one flat index B·H·T² would; the four
    words serve four neighbouring keys. first_j must be a multiple of 4.
    """
    group = first_j // 4 + tl.arange(0, N // 4)
    c0 = i[:, None] * 0 + group[None, :]  # (M, N/4)
    c1 = i[:, None] + group[None, :] * 0
    c2 = c0 * 0 + tl.cast(head, tl.int32)
    r0, r1, r2, r3 = tl.philox(seed, c0, c1, c2, c0 * 0)
    words = tl.join(tl.join(r0, r2), tl.join(r1, r3))  # (M, N/4, 2, 2), in the order r0 r1 r2 r3
    words = tl.reshape(words, (i.shape[0], N))
    return (words >> 8).to(tl.float32) >= P * 16777216.0  # 24 random bits, exact in float32, against P · 2^24
