"""Small pieces that every attention kernel shares: tiles in and out of memory, which pairs count, dropout.

A *tile* is a block of rows of a (T, D) matrix, padded to a power of two of columns, because that is the shape that a
GPU's matrix unit multiplies. Read this file before `flash_simple.py`.

Triton runs each function below once per program, on whole tiles; with TRITON_INTERPRET=1 in the environment (set
before triton is imported) the same code runs on the CPU, in NumPy, and a debugger steps through it.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)  # exp(x) = exp2(x · log2(e)); the hardware has exp2
# Start of the running maximum: finite, so that exp2(-inf - start) is 0 and not NaN.
LOWEST = tl.constexpr(-1.0e30)


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
def store_tile(base, tile, first, n_rows, stride, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write a (ROWS, BLOCK_D) tile to rows first .. of a (n_rows, D) matrix; what lies outside it is dropped."""
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    at = base + tl.cast(first, tl.int64) * stride + row[:, None] * stride + column[None, :]
    keep = (first + row < n_rows)[:, None] & (column < D)[None, :]
    tl.store(at, tile.to(base.dtype.element_ty), mask=keep)


@triton.jit
def locate(z, cu_seqlens, T):
    """Where sequence z lies: (batch row, first token, number of tokens).

    Without `cu_seqlens` it is row z of a (B, H, T, D) tensor. With it, the sequences are packed one after another in
    row 0, and sequence z is the tokens cu_seqlens[z] .. cu_seqlens[z+1]-1.
    """
    z = tl.cast(z, tl.int64)
    if cu_seqlens is None:
        return z, z * 0, T
    else:
        start = tl.load(cu_seqlens + z)
        stop = tl.load(cu_seqlens + z + 1)
        return z * 0, start.to(tl.int64), stop - start


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
