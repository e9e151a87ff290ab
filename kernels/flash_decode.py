"""Attention for one new token against a long cache: the cache is split among programs, and their answers are merged.

Generating a token asks one query per head about all the keys so far. A forward kernel gives that query one program,
and a GPU with 132 multiprocessors then reads the cache with a handful of them. Here each program takes a *part* of
the keys for all query heads that share them (Flash-Decoding: Dao, Haziza, Massa, Sizov 2023), and a second kernel
merges the parts with the online softmax's own rule: with m* = max over parts of m,

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
from .tiles import LOG2E, LOWEST, load_tile

MOST_PARTS = 64


@triton.jit
def decode_kernel(q, k, v, parts, part_m, part_l, mask, q_strides, k_strides, v_strides, mask_strides,
                  first_key, n_keys, keys_per_part, H,
                  GROUP: tl.constexpr, SCALE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
                  COMPUTE: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, ALIGNED: tl.constexpr,
                  ROWS: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One program: the queries of the GROUP heads that share a key head, over one part of the keys.

    Writes the sums without dividing: parts (B, H, n_parts, D), part_m and part_l (B, H, n_parts).
    """
    part, h_kv, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    q += row * q_strides[0] + h_kv * GROUP * q_strides[1]
    k += row * k_strides[0] + h_kv * k_strides[1]
    v += row * v_strides[0] + h_kv * v_strides[1]
    q_tile = load_tile(q, 0, GROUP, q_strides[1], ROWS, D, BLOCK_D, COMPUTE, True, ALIGNED)  # (heads, D)
    m = tl.zeros((ROWS,), dtype=ACC) + LOWEST
    l = tl.zeros((ROWS,), dtype=ACC)
    acc = tl.zeros((ROWS, BLOCK_D), dtype=ACC)
    first = first_key + part * keys_per_part
    last = tl.minimum(n_keys, first + keys_per_part)
    for n0 in range(first, last, BLOCK_N):
        j = n0 + tl.arange(0, BLOCK_N)
        k_tile = load_tile(k, n0, last, k_strides[2], BLOCK_N, D, BLOCK_D, COMPUTE, True, ALIGNED)
        v_tile = load_tile(v, n0, last, v_strides[2], BLOCK_N, D, BLOCK_D, COMPUTE, True, ALIGNED)
        keep = j < last
        if mask is not None:
            at = mask + row * mask_strides[0] + j.to(tl.int64) * mask_strides[3]
            keep = keep & (tl.load(at, mask=keep, other=0) != 0)
        s = tl.dot(q_tile, tl.trans(k_tile), out_dtype=ACC, input_precision=PRECISION) * (SCALE * LOG2E)
        s = tl.where(keep[None, :], s, float("-inf"))
        m_new = tl.maximum(m, tl.max(s, 1))
        alpha = tl.exp2(m - m_new)
        p = tl.exp2(s - m_new[:, None])
        l = l * alpha + tl.sum(p, 1)
        acc = tl.dot(p.to(COMPUTE), v_tile, acc * alpha[:, None], out_dtype=ACC, input_precision=PRECISION)
        m = m_new
    head = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    slot = (row * H + h_kv * GROUP + head) * tl.num_programs(0) + part
    tl.store(part_m + slot, m, mask=head < GROUP)
    tl.store(part_l + slot, l, mask=head < GROUP)
    keep = (head < GROUP)[:, None] & (column < D)[None, :]
    tl.store(parts + slot[:, None] * D + column[None, :], acc, mask=keep)


@triton.jit
def merge_kernel(parts, part_m, part_l, out, lse, out_strides, n_parts, H, D: tl.constexpr, BLOCK_D: tl.constexpr,
                 ACC: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    """One program: the output of one query head from its parts. PARTS is n_parts rounded up to a power of two."""
    h, row = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    part = tl.arange(0, PARTS)
    slot = (row * H + h) * n_parts
    part_m += slot
    m = tl.load(part_m + part, mask=part < n_parts, other=LOWEST)
    l = tl.load(part_l + slot + part, mask=part < n_parts, other=0.0)
    top = tl.max(m, 0)
    total = tl.sum(tl.exp2(m - top) * l, 0)
    column = tl.arange(0, BLOCK_D)
    acc = tl.zeros((BLOCK_D,), dtype=ACC)
    for s in range(n_parts):
        weight = tl.exp2(tl.load(part_m + s) - top)
        acc += weight * tl.load(parts + (slot + s) * D + column, mask=column < D, other=0.0)
    seen = tl.where(total > 0, total, 1.0)
    at = out + row * out_strides[0] + h * out_strides[1] + column
    tl.store(at, (acc / seen).to(out.dtype.element_ty), mask=column < D)
    tl.store(lse + row * H + h, tl.where(total > 0, top + tl.log2(seen), float("inf")))


def suits(q: Tensor, call: Call) -> bool:
    """One query token, no dropout, and a mask, if any, that is the same for all heads."""
    one_mask = call.mask is None or call.mask.stride(1) == 0 or q.shape[1] == 1
    return q.shape[2] == 1 and call.cu_q is None and call.dropout_p == 0 and one_mask


def launch(q: Tensor, k: Tensor, v: Tensor, call: Call, config: Config) -> tuple[Tensor, Tensor]:
    """out (B, H, 1, D) and lse (B, H, 1), as the other forward functions return."""
    batch, heads, _, head_size = q.shape
    kv_heads, n_keys = k.shape[1], k.shape[2]
    first_key = max(0, n_keys - 1 - call.left)
    blocks = triton.cdiv(n_keys - first_key, config.block_n)
    n_parts = min(max(1, blocks), MOST_PARTS, max(1, 2 * multiprocessors(q) // (batch * kv_heads)))
    keys_per_part = triton.cdiv(blocks, n_parts) * config.block_n

    shared = call.kernel_arguments(q, k)
    both = {name: shared[name] for name in ("H", "D", "BLOCK_D", "ACC", "enable_fp_fusion")}
    reading = {name: shared[name] for name in ("mask", "mask_strides", "GROUP", "SCALE", "COMPUTE", "PRECISION")}
    sums = {"dtype": accumulator_dtype(q), "device": q.device}
    parts = torch.empty(batch, heads, n_parts, head_size, **sums)
    part_m, part_l = torch.empty(batch, heads, n_parts, **sums), torch.empty(batch, heads, n_parts, **sums)
    decode_kernel[n_parts, kv_heads, batch](
        q, k, v, parts, part_m, part_l, q_strides=q.stride(), k_strides=k.stride(), v_strides=v.stride(),
        first_key=first_key, n_keys=n_keys, keys_per_part=keys_per_part, ALIGNED=rows_are_aligned(q, k, v),
        ROWS=max(16, triton.next_power_of_2(heads // kv_heads)), BLOCK_N=config.block_n,
        num_warps=config.num_warps, num_stages=config.num_stages, **reading, **both,
    )  # fmt: skip
    out = empty_token_major(batch, heads, 1, head_size, q, call)
    lse = torch.empty(batch, heads, 1, **sums)
    merge_kernel[heads, batch](
        parts, part_m, part_l, out, lse, out.stride(), n_parts, PARTS=triton.next_power_of_2(n_parts), **both
    )
    return out.to(q.dtype), lse


def multiprocessors(q: Tensor) -> int:
    if q.device.type != "cuda":
        return 4  # the interpreter: enough that a test's cache is split
    return torch.cuda.get_device_properties(q.device).multi_processor_count
