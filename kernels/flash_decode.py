"""Attention for a few new tokens against a long cache: the cache is split among programs, and their answers merged.

Generating a token asks one query per head about all the keys so far; checking guessed tokens (speculative decoding)
asks a few. A forward kernel gives those one program a head, and a GPU with 132 multiprocessors then reads the cache
with a handful of them. Here each program takes a *part* of the keys, for the queries of all heads that share them,
which are the rows of one tile (Flash-Decoding: Dao, Haziza, Massa, Sizov 2023), and a second kernel merges the parts
with the online softmax's own rule: with m* = max over parts of m,

    out = Σ_parts exp2(m - m*) acc  /  Σ_parts exp2(m - m*) l

The work is reading the cache once; the arithmetic is free beside it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .call import Call, accumulator_dtype, empty_token_major, rows_are_aligned
from .configs import Config
from .tiles import LOG2E, LOWEST, base_two, load_keys, locate

MOST_PARTS = 64
MOST_QUERIES = 16  # beyond these, and beyond MOST_ROWS of a group, the forward kernel's tiles are full enough
MOST_ROWS = 64


@triton.jit
def decode_kernel(q, k, v, parts, part_m, part_l, mask, lengths, table, table_stride,
                  q_strides, k_strides, v_strides, mask_strides, Tk, keys_per_part, left, right, H,
                  TQ: tl.constexpr, PAGE: tl.constexpr, GROUP: tl.constexpr, SCALE: tl.constexpr,
                  SOFTCAP: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr,
                  ACC: tl.constexpr, PRECISION: tl.constexpr, ALIGNED: tl.constexpr, MASK_PER_KEY: tl.constexpr,
                  ROWS: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One program: the TQ queries of each of the GROUP heads that share a key head, over one part of the keys.

    Row r of its tile is query r // GROUP of head r % GROUP. Writes the sums without dividing: parts
    (B, H, Tq, n_parts, D), part_m and part_l (B, H, Tq, n_parts).
    """
    part, h_kv, z = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    row, _, n_keys = locate(z, None, Tk, lengths)
    if table is None:
        k += row * k_strides[0]
        v += row * v_strides[0]
    else:
        table += row * table_stride
    k += h_kv * k_strides[1]
    v += h_kv * v_strides[1]
    r = tl.arange(0, ROWS)
    i, head = r // GROUP, h_kv * GROUP + r % GROUP
    column = tl.arange(0, BLOCK_D)
    real = (r < TQ * GROUP)[:, None] & (column < D)[None, :]
    q += row * q_strides[0]
    q_tile = tl.load(q + (head * q_strides[1] + i * q_strides[2])[:, None] + column[None, :], mask=real, other=0.0)
    q_tile = q_tile.to(COMPUTE)  # (rows, D)
    if mask is not None:
        mask += row * mask_strides[0]
    m = tl.zeros((ROWS,), dtype=ACC) + LOWEST
    l = tl.zeros((ROWS,), dtype=ACC)
    acc = tl.zeros((ROWS, BLOCK_D), dtype=ACC)
    first = tl.maximum(0, n_keys - TQ - left) + part * keys_per_part
    last = tl.minimum(n_keys, first + keys_per_part)
    for n0 in range(first, last, BLOCK_N):
        j = n0 + tl.arange(0, BLOCK_N)
        k_tile = load_keys(k, table, n0, last, k_strides[0], k_strides[2], PAGE, BLOCK_N, D, BLOCK_D, COMPUTE, True,
                           ALIGNED)  # fmt: skip
        v_tile = load_keys(v, table, n0, last, v_strides[0], v_strides[2], PAGE, BLOCK_N, D, BLOCK_D, COMPUTE, True,
                           ALIGNED)  # fmt: skip
        keep = (j < last)[None, :]
        if TQ > 1:
            distance = j[None, :] - (i[:, None] + n_keys - TQ)
            keep = keep & (distance <= right) & (distance >= -left)
        if mask is not None:
            at, there = mask + j[None, :].to(tl.int64) * mask_strides[3], (j < last)[None, :]
            if not MASK_PER_KEY:
                at += (i * mask_strides[2])[:, None]
                there = there & (i < TQ)[:, None]
            keep = keep & (tl.load(at, mask=there, other=0) != 0)
        s = tl.dot(q_tile, tl.trans(k_tile), out_dtype=ACC, input_precision=PRECISION)
        s = tl.where(keep, base_two(s, SCALE, SOFTCAP), float("-inf"))
        m_new = tl.maximum(m, tl.max(s, 1))
        alpha = tl.exp2(m - m_new)
        p = tl.exp2(s - m_new[:, None])
        l = l * alpha + tl.sum(p, 1)
        acc = tl.dot(p.to(COMPUTE), v_tile, acc * alpha[:, None], out_dtype=ACC, input_precision=PRECISION)
        m = m_new
    slot = ((row * H + head) * TQ + i) * tl.num_programs(0) + part
    tl.store(part_m + slot, m, mask=r < TQ * GROUP)
    tl.store(part_l + slot, l, mask=r < TQ * GROUP)
    tl.store(parts + slot[:, None] * D + column[None, :], acc, mask=real)


@triton.jit
def merge_kernel(parts, part_m, part_l, out, lse, sinks, out_strides, n_parts, H, TQ: tl.constexpr, D: tl.constexpr,
                 BLOCK_D: tl.constexpr, ACC: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    """One program: the output of one query of a head from its parts. PARTS is n_parts rounded up to a power of two."""
    i, h, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    part = tl.arange(0, PARTS)
    slot = ((row * H + h) * TQ + i) * n_parts
    part_m += slot
    m = tl.load(part_m + part, mask=part < n_parts, other=LOWEST)
    l = tl.load(part_l + slot + part, mask=part < n_parts, other=0.0)
    top = tl.max(m, 0)
    if sinks is not None:  # one part more, whose values are 0
        sink = tl.load(sinks + h).to(ACC) * LOG2E
        top = tl.maximum(top, sink)
    total = tl.sum(tl.exp2(m - top) * l, 0)
    if sinks is not None:
        total += tl.exp2(sink - top)
    column = tl.arange(0, BLOCK_D)
    acc = tl.zeros((BLOCK_D,), dtype=ACC)
    for s in range(n_parts):
        weight = tl.exp2(tl.load(part_m + s) - top)
        acc += weight * tl.load(parts + (slot + s) * D + column, mask=column < D, other=0.0)
    seen = tl.where(total > 0, total, 1.0)
    at = out + row * out_strides[0] + h * out_strides[1] + i * out_strides[2] + column
    tl.store(at, (acc / seen).to(out.dtype.element_ty), mask=column < D)
    tl.store(lse + (row * H + h) * TQ + i, tl.where(total > 0, top + tl.log2(seen), float("inf")))


def suits(q: Tensor, k: Tensor, call: Call) -> bool:
    """Few query tokens, no dropout, and a mask, if any, that is the same for all heads."""
    few = 1 <= q.shape[2] <= MOST_QUERIES and (q.shape[2] == 1 or q.shape[2] * q.shape[1] // k.shape[1] <= MOST_ROWS)
    one_mask = call.mask is None or call.mask.stride(1) == 0 or q.shape[1] == 1
    return few and call.cu_q is None and call.dropout_p == 0 and one_mask


def launch(q: Tensor, k: Tensor, v: Tensor, call: Call, config: Config) -> tuple[Tensor, Tensor]:
    """out (B, H, Tq, D) and lse (B, H, Tq), as the other forward functions return."""
    batch, heads, tq, head_size = q.shape
    kv_heads, n_keys = k.shape[1], call.places(k)
    blocks = triton.cdiv(min(n_keys, tq + call.left), config.block_n)
    n_parts = min(max(1, blocks), MOST_PARTS, max(1, 2 * multiprocessors(q) // max(1, batch * kv_heads)))
    keys_per_part = triton.cdiv(blocks, n_parts) * config.block_n

    shared = call.kernel_arguments(q, k) | call.forward_arguments(k) | call.fast_arguments(q, k, v)
    both = {name: shared[name] for name in ("H", "D", "BLOCK_D", "ACC", "enable_fp_fusion")}
    names = ("mask", "lengths", "table", "table_stride", "mask_strides", "Tk", "left", "right", "PAGE", "GROUP",
             "SCALE", "SOFTCAP", "COMPUTE", "PRECISION", "MASK_PER_KEY")  # fmt: skip
    reading = {name: shared[name] for name in names}
    sums = {"dtype": accumulator_dtype(q), "device": q.device}
    parts = torch.empty(batch, heads, tq, n_parts, head_size, **sums)
    part_m, part_l = (torch.empty(batch, heads, tq, n_parts, **sums) for _ in range(2))
    decode_kernel[n_parts, kv_heads, batch](
        q, k, v, parts, part_m, part_l, q_strides=q.stride(), k_strides=k.stride(), v_strides=v.stride(),
        keys_per_part=keys_per_part, TQ=tq, ALIGNED=rows_are_aligned(q, k, v),
        ROWS=max(16, triton.next_power_of_2(tq * heads // kv_heads)), BLOCK_N=config.block_n,
        num_warps=config.num_warps, num_stages=config.num_stages, **reading, **both,
    )  # fmt: skip
    out = empty_token_major(batch, heads, tq, head_size, q, call)
    lse = torch.empty(batch, heads, tq, **sums)
    merge_kernel[tq, heads, batch](
        parts, part_m, part_l, out, lse, call.sinks, out.stride(), n_parts, TQ=tq,
        PARTS=triton.next_power_of_2(n_parts), **both,
    )  # fmt: skip
    return out.to(q.dtype), lse


def multiprocessors(q: Tensor) -> int:
    if q.device.type != "cuda":
        return 4  # the interpreter: enough that a test's cache is split
    return torch.cuda.get_device_properties(q.device).multi_processor_count
