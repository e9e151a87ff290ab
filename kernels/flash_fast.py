"""Flash attention, tuned: the forward kernel. The mathematics is in `flash_simple.py`; here is what makes it fast.

- **Whole blocks skip the mask.** Of the blocks of keys that a block of queries sees, only those at the edges (the
  causal diagonal, the far side of a window, the ragged end) hold pairs that do not count. The loop over keys is split
  into edge, whole and edge parts, and the whole part neither compares positions nor checks bounds (FlashAttention-2,
  arXiv:2307.08691, §3.1, "causal masking").
- **One multiply-add per score.** exp(scale · s - m) becomes exp2(s · c - m) with c = scale · log2(e): the scaling and
  the subtraction are one fused instruction. The maximum is taken before scaling, so the scale must be positive. (Not
  in float32 or with a cap: see EXACT in `call.py`.)
- **Heavy rows first.** With a causal mask the last queries see the most keys; their programs start first, so that the
  short ones fill the gaps at the end.
- **Tensor descriptors**, where a configuration asks for them, load keys and values: see `tiles.load_described`.
- **Tile sizes, warps and pipeline depth** come from a table for each GPU and head size (`configs.py`), checked to
  compile without spilling registers.

The backward kernels are in `flash_fast_backward.py`; a few queries, as against a cache, go to `flash_decode.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from . import flash_decode
from .call import Call, empty_rows, empty_token_major, interpreted
from .configs import Config, lookup, target
from .tiles import (
    LOG2E,
    base_two,
    dropout_keep,
    load_described,
    load_keys,
    load_tile,
    locate,
    start_softmax,
    store_tile,
)


@triton.jit
def split_blocks(first, last, whole_first, whole_last, BLOCK: tl.constexpr):
    """Cut the positions first .. last-1, walked in blocks, into edge | whole | edge: returns (first, a, b).

    Blocks that start in [a, b) lie inside whole_first .. whole_last-1, where every pair counts; those in [first, a)
    and [b, last) need a mask. first is rounded down to a block; any part may be empty.
    """
    first = tl.maximum(first, 0) // BLOCK * BLOCK
    a = tl.cdiv(tl.maximum(whole_first, 0), BLOCK) * BLOCK
    a = tl.minimum(tl.maximum(a, first), tl.maximum(last, first))
    b = tl.maximum(a, tl.maximum(whole_last, 0) // BLOCK * BLOCK)
    return first, a, b


@triton.jit
def hide(s, i, j, q_len, k_len, left, right, mask, mask_strides, EDGE: tl.constexpr, HAS_LEFT: tl.constexpr,
         HAS_RIGHT: tl.constexpr, MASK_PER_KEY: tl.constexpr):  # fmt: skip
    """Set the scores of pairs that do not count to -inf.

    i and j are the positions of queries and keys, one as a column and the other as a row: (M, 1) and (1, N) for scores
    (M, N), or (1, M) and (N, 1) for scores (N, M). Only an EDGE block looks at positions; a mask is always read.
    """
    if EDGE:
        keep = j < k_len
        if HAS_RIGHT:
            keep = keep & (j - i <= k_len - q_len + right)
        if HAS_LEFT:
            keep = keep & (j - i >= k_len - q_len - left)
        s = tl.where(keep, s, float("-inf"))
    if mask is not None:
        if MASK_PER_KEY:  # a padding mask: one byte a key, the same for every query
            allowed = tl.load(mask + j.to(tl.int64) * mask_strides[3], mask=j < k_len, other=0)
        else:
            at = mask + i.to(tl.int64) * mask_strides[2] + j.to(tl.int64) * mask_strides[3]
            allowed = tl.load(at, mask=(j < k_len) & (i < q_len), other=0)
        s = tl.where(allowed != 0, s, float("-inf"))
    return s


@triton.jit
def attend(acc, l, m, q_tile, k, v, table, first, last, i, head, seed, q_len, k_len, left, right, mask, mask_strides,
           k_strides, v_strides, EDGE: tl.constexpr, HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr,
           MASK_PER_KEY: tl.constexpr, PAGE: tl.constexpr, SCALE: tl.constexpr, SOFTCAP: tl.constexpr,
           DROPOUT: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr, ACC: tl.constexpr,
           PRECISION: tl.constexpr, ALIGNED: tl.constexpr, EXACT: tl.constexpr, BLOCK_N: tl.constexpr,
           at):  # fmt: skip
    """The online softmax over the blocks of keys first .. last-1: the new (acc, l, m). See `flash_simple.py`.

    at: the (batch row, head) of keys and values that are tensor descriptors; None where they are addresses.
    """
    FACTOR: tl.constexpr = 1.0 if EXACT else SCALE * LOG2E
    for n0 in range(first, last, BLOCK_N):
        j = n0 + tl.arange(0, BLOCK_N)
        if at is not None:
            k_tile = load_described(k, at[0], at[1], n0, BLOCK_N, BLOCK_D, COMPUTE)
        else:
            k_tile = load_keys(k, table, n0, k_len, k_strides[0], k_strides[2], PAGE, BLOCK_N, D, BLOCK_D, COMPUTE,
                               EDGE, ALIGNED)  # fmt: skip
        s = tl.dot(q_tile, tl.trans(k_tile), out_dtype=ACC, input_precision=PRECISION)  # (M, N), not scaled
        if EXACT:
            s = base_two(s, SCALE, SOFTCAP)
        s = hide(s, i[:, None], j[None, :], q_len, k_len, left, right, mask, mask_strides,
                 EDGE, HAS_LEFT, HAS_RIGHT, MASK_PER_KEY)  # fmt: skip
        m_new = tl.maximum(m, tl.max(s, 1) * FACTOR)
        p = tl.exp2(s * FACTOR - m_new[:, None])
        alpha = tl.exp2(m - m_new)
        l = l * alpha + tl.sum(p, 1)
        if DROPOUT > 0:  # kept probabilities grow by 1 / (1 - DROPOUT), once, at the end
            p = tl.where(dropout_keep(tl.load(seed), head, i, n0, BLOCK_N, DROPOUT), p, 0.0)
        acc = acc * alpha[:, None]
        if at is not None:
            v_tile = load_described(v, at[0], at[1], n0, BLOCK_N, BLOCK_D, COMPUTE)
        else:
            v_tile = load_keys(v, table, n0, k_len, v_strides[0], v_strides[2], PAGE, BLOCK_N, D, BLOCK_D, COMPUTE,
                               EDGE, ALIGNED)  # fmt: skip
        acc = tl.dot(p.to(COMPUTE), v_tile, acc, out_dtype=ACC, input_precision=PRECISION)  # (M, D)
        m = m_new
    return acc, l, m


@triton.jit
def fast_forward_kernel(q, k, v, out, lse, mask, cu_q, cu_k, seed, sinks, lengths, table, table_stride,
                        q_strides, k_strides, v_strides, out_strides, mask_strides, Tq, Tk, left, right, H,
                        PAGE: tl.constexpr, GROUP: tl.constexpr, SCALE: tl.constexpr, SOFTCAP: tl.constexpr,
                        DROPOUT: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr,
                        ACC: tl.constexpr, PRECISION: tl.constexpr, ALIGNED: tl.constexpr, EXACT: tl.constexpr,
                        HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr, MASK_PER_KEY: tl.constexpr,
                        RAGGED: tl.constexpr, DESCRIPTORS: tl.constexpr, BLOCK_M: tl.constexpr,
                        BLOCK_N: tl.constexpr):  # fmt: skip
    """One program: BLOCK_M queries of one head of one sequence, over all the keys that they see."""
    block = tl.program_id(0)
    if HAS_RIGHT:
        block = tl.num_programs(0) - 1 - block  # heavy rows first
    m0, h, z = block * BLOCK_M, tl.program_id(1).to(tl.int64), tl.program_id(2)
    row, q_start, q_len = locate(z, cu_q, Tq)
    k_row, k_start, k_len = locate(z, cu_k, Tk, lengths)
    if m0 >= q_len:
        return
    q += row * q_strides[0] + h * q_strides[1] + q_start * q_strides[2]
    at = None
    if DESCRIPTORS:
        at = (k_row, h // GROUP)
    else:
        k += (h // GROUP) * k_strides[1]
        v += (h // GROUP) * v_strides[1]
        if table is None:
            k += k_row * k_strides[0] + k_start * k_strides[2]
            v += k_row * v_strides[0] + k_start * v_strides[2]
        else:  # pages, which lie anywhere
            table += k_row * table_stride
    if mask is not None:
        mask += row * mask_strides[0] + h * mask_strides[1]
    i = m0 + tl.arange(0, BLOCK_M)

    q_tile = load_tile(q, m0, q_len, q_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, True, ALIGNED)
    m, l = start_softmax(sinks, h, BLOCK_M, ACC)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=ACC)

    first, last, whole_first, whole_last = 0, k_len, 0, k_len
    if HAS_LEFT:
        first = m0 + k_len - q_len - left
        whole_first = first + BLOCK_M - 1  # what the last query of the block still sees
    if HAS_RIGHT:
        last = tl.minimum(k_len, m0 + BLOCK_M + k_len - q_len + right)
        whole_last = tl.minimum(k_len, m0 + k_len - q_len + right + 1)  # what the first query already sees
    first, a, b = split_blocks(first, last, whole_first, whole_last, BLOCK_N)
    bounds = (first, a, b, last)
    for part in tl.static_range(3):  # edge, whole, edge
        if part == 1 or (part == 0 and HAS_LEFT) or (part == 2 and (HAS_RIGHT or RAGGED)):
            acc, l, m = attend(acc, l, m, q_tile, k, v, table, bounds[part], bounds[part + 1], i, z * H + h, seed,
                               q_len, k_len, left, right, mask, mask_strides, k_strides, v_strides, part != 1,
                               HAS_LEFT, HAS_RIGHT, MASK_PER_KEY, PAGE, SCALE, SOFTCAP, DROPOUT, D, BLOCK_D, COMPUTE,
                               ACC, PRECISION, ALIGNED, EXACT, BLOCK_N, at)  # fmt: skip

    seen = tl.where(l > 0, l, 1.0)
    acc = acc / (seen * (1 - DROPOUT))[:, None]
    out += row * out_strides[0] + h * out_strides[1] + q_start * out_strides[2]
    store_tile(out, acc, m0, q_len, out_strides[2], BLOCK_M, D, BLOCK_D)
    log_sum = tl.where(l > 0, m + tl.log2(seen), float("inf"))
    tl.store(lse + (row * H + h) * Tq + q_start + i, log_sum, mask=i < q_len)


def forward(q: Tensor, k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """out (B, H, Tq, D) in q's dtype (lying in memory as (B, Tq, H, D)) and lse (B, H, Tq), base 2."""
    if flash_decode.suits(q, k, call):
        return flash_decode.launch(q, k, v, call, lookup("decode", q))
    return launch_forward(q, k, v, call, lookup("forward", q))


def launch_forward(q: Tensor, k: Tensor, v: Tensor, call: Call, config: Config) -> tuple[Tensor, Tensor]:
    """`forward` with a given configuration; the tuner times many."""
    batch, heads, tq, head_size = q.shape
    out = empty_token_major(batch, heads, tq, head_size, q, call)
    lse = empty_rows(batch, heads, tq, q, call)
    grid = (triton.cdiv(call.longest_q(q), config.block_m), heads, call.sequences(q))
    descriptors = bool(config.descriptors) and describable(k, v, call)
    keys, values = (described(t, config.block_n) if descriptors else t for t in (k, v))
    fast_forward_kernel[grid](
        q, keys, values, out, lse, q_strides=q.stride(), k_strides=k.stride(), v_strides=v.stride(),
        out_strides=out.stride(), DESCRIPTORS=descriptors,
        RAGGED=call.cu_q is not None or call.key_lengths is not None or k.shape[2] % config.block_n != 0,
        **call.kernel_arguments(q, k), **call.forward_arguments(k), **call.fast_arguments(q, k, v),
        **config.launch_arguments(),
    )  # fmt: skip
    return out.to(q.dtype), lse


def describable(k: Tensor, v: Tensor, call: Call) -> bool:
    """Whether descriptors can load these keys and values: by Hopper and what came after, from addresses that are
    multiples of 16 bytes, and only where a sequence ends with its tensor, beyond which a descriptor gives zeros. Behind
    a packed sequence lies the next one, in pages and in a cache anything: even NaN, which no mask would hide."""
    if not (interpreted() or target() >= 90):
        return False
    if not (call.cu_q is None and call.key_lengths is None and call.block_table is None):
        return False
    steps = [stride * t.element_size() for t in (k, v) for stride in t.stride()[:-1]]
    steps += [t.data_ptr() for t in (k, v) if t.device.type != "meta"]
    return all(step > 0 and step % 16 == 0 for step in steps) and k.stride(-1) == v.stride(-1) == 1


def described(tensor: Tensor, rows: int) -> TensorDescriptor:
    """A descriptor of a (B, H, T, D) tensor that loads tiles of so many rows."""
    block = [1, 1, rows, max(16, triton.next_power_of_2(tensor.shape[-1]))]
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block)
