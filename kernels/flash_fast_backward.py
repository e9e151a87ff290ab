"""Flash attention, tuned: the backward kernels. The derivation is in `flash_simple.py`.

Two kernels, each of which owns the rows that it writes: dK/dV walks over queries, dQ over keys. The probabilities are
computed twice that way (seven matrix products a block where a kernel with atomic additions needs five), and in return
the result does not depend on the order in which programs finish, and there is nothing to clear or to reduce.

The dK/dV kernel computes everything transposed: Sᵀ = k qᵀ is (N, M), so that dV += Pᵀ dO and dK += dSᵀ q use the tiles
as they come out of the matrix unit, not turned in shared memory. As in the forward kernel, whole blocks skip the mask.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .call import Call, empty_token_major, sink_gradient
from .configs import Config, lookup
from .flash_fast import hide, split_blocks
from .tiles import LOG2E, base_two, cap_slope, dropout_keep, load_tile, locate, store_tile


@triton.jit
def delta_kernel(do, out, delta, do_strides, out_strides, T, H, D: tl.constexpr, BLOCK_D: tl.constexpr,
                 ACC: tl.constexpr, BLOCK_M: tl.constexpr):  # fmt: skip
    """delta = rowsum(dO ∘ O), the D of 2205.14135 §B.4, for BLOCK_M queries of one head."""
    m0, h, row = tl.program_id(0) * BLOCK_M, tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    do += row * do_strides[0] + h * do_strides[1]
    out += row * out_strides[0] + h * out_strides[1]
    do_tile = load_tile(do, m0, T, do_strides[2], BLOCK_M, D, BLOCK_D, ACC, True)
    out_tile = load_tile(out, m0, T, out_strides[2], BLOCK_M, D, BLOCK_D, ACC, True)
    i = m0 + tl.arange(0, BLOCK_M)
    tl.store(delta + (row * H + h) * T + i, tl.sum(do_tile * out_tile, 1), mask=i < T)


@triton.jit
def gather_dkdv(dk_acc, dv_acc, k_tile, v_tile, q, do, lse, delta, first, last, n0, head, seed, Tq, q_len, k_len,
                left, right, mask, mask_strides, q_strides, do_strides, EDGE: tl.constexpr, HAS_LEFT: tl.constexpr,
                HAS_RIGHT: tl.constexpr, MASK_PER_KEY: tl.constexpr, GROUP: tl.constexpr, SCALE: tl.constexpr,
                SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
                COMPUTE: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr, ALIGNED: tl.constexpr,
                EXACT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """Add what the blocks of queries first .. last-1 contribute, in each of GROUP heads: the new (dk_acc, dv_acc), not
    yet scaled. One loop over heads and blocks: a loop around a loop keeps more alive than the registers hold."""
    FACTOR: tl.constexpr = 1.0 if EXACT else SCALE * LOG2E
    j = n0 + tl.arange(0, BLOCK_N)
    blocks = tl.cdiv(tl.maximum(last - first, 0), BLOCK_M)
    for t in range(GROUP * blocks):
        m0, g = first + t * BLOCK_M, 0
        if GROUP > 1:
            m0, g = first + t % blocks * BLOCK_M, tl.cast(t // blocks, tl.int64)
        per_row = g * Tq
        mask_head = mask
        if mask is not None:
            mask_head = mask + g * mask_strides[1]
        i = m0 + tl.arange(0, BLOCK_M)
        q_tile = load_tile(q + g * q_strides[1], m0, q_len, q_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, EDGE, ALIGNED)
        if EDGE:  # rows past the last query: lse = +inf makes their probabilities 0
            log_sum = tl.load(lse + per_row + i, mask=i < q_len, other=float("inf"))
            d_row = tl.load(delta + per_row + i, mask=i < q_len, other=0.0)
        else:
            log_sum = tl.load(lse + per_row + i)
            d_row = tl.load(delta + per_row + i)
        s = tl.dot(k_tile, tl.trans(q_tile), out_dtype=ACC, input_precision=PRECISION)  # Sᵀ (N, M), not scaled
        if EXACT:
            s = base_two(s, SCALE, SOFTCAP)
        if SOFTCAP > 0:
            slope = cap_slope(s, SOFTCAP)
        s = hide(s, i[None, :], j[:, None], q_len, k_len, left, right, mask_head, mask_strides,
                 EDGE, HAS_LEFT, HAS_RIGHT, MASK_PER_KEY)  # fmt: skip
        s = s * FACTOR - log_sum[None, :]
        if EXACT:  # rows of keys past the last one, which are not stored, would overflow where L is low
            s = tl.minimum(s, 0.0, propagate_nan=tl.PropagateNan.ALL)
        p = tl.exp2(s)  # Pᵀ (N, M)
        do_tile = load_tile(do + g * do_strides[1], m0, q_len, do_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, EDGE,
                            ALIGNED)  # fmt: skip
        p_kept = p
        if DROPOUT > 0:
            keep = tl.trans(dropout_keep(tl.load(seed), head + g, i, n0, BLOCK_N, DROPOUT))
            p_kept = tl.where(keep, p, 0.0)
        dv_acc = tl.dot(p_kept.to(COMPUTE), do_tile, dv_acc, out_dtype=ACC, input_precision=PRECISION)  # (N, D)
        dp = tl.dot(v_tile, tl.trans(do_tile), out_dtype=ACC, input_precision=PRECISION)  # dPᵀ (N, M)
        if DROPOUT > 0:
            dp = tl.where(keep, dp / (1 - DROPOUT), 0.0)
        ds = p * (dp - d_row[None, :])  # dSᵀ (N, M)
        if SOFTCAP > 0:
            ds *= slope
        dk_acc = tl.dot(ds.to(COMPUTE), q_tile, dk_acc, out_dtype=ACC, input_precision=PRECISION)  # (N, D)
    return dk_acc, dv_acc


@triton.jit
def fast_dkdv_kernel(q, k, v, do, dk, dv, lse, delta, mask, cu_q, cu_k, seed,
                     q_strides, k_strides, v_strides, do_strides, dk_strides, dv_strides, mask_strides,
                     Tq, Tk, left, right, H,
                     GROUP: tl.constexpr, SCALE: tl.constexpr, SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr,
                     D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr, ACC: tl.constexpr,
                     PRECISION: tl.constexpr, ALIGNED: tl.constexpr, EXACT: tl.constexpr, HAS_LEFT: tl.constexpr,
                     HAS_RIGHT: tl.constexpr, MASK_PER_KEY: tl.constexpr, RAGGED: tl.constexpr, BLOCK_M: tl.constexpr,
                     BLOCK_N: tl.constexpr):  # fmt: skip
    """One program: dk and dv of BLOCK_N keys, over the queries that see them, in all heads that share the keys."""
    n0, h_kv, z = tl.program_id(0) * BLOCK_N, tl.program_id(1).to(tl.int64), tl.program_id(2)
    row, q_start, q_len = locate(z, cu_q, Tq)
    _, k_start, k_len = locate(z, cu_k, Tk)
    if n0 >= k_len:
        return
    k += row * k_strides[0] + h_kv * k_strides[1] + k_start * k_strides[2]
    v += row * v_strides[0] + h_kv * v_strides[1] + k_start * v_strides[2]
    k_tile = load_tile(k, n0, k_len, k_strides[2], BLOCK_N, D, BLOCK_D, COMPUTE, True, ALIGNED)
    v_tile = load_tile(v, n0, k_len, v_strides[2], BLOCK_N, D, BLOCK_D, COMPUTE, True, ALIGNED)
    dk_acc = tl.zeros((BLOCK_N, BLOCK_D), dtype=ACC)
    dv_acc = tl.zeros((BLOCK_N, BLOCK_D), dtype=ACC)

    # Keys past the last one give rows of dk and dv that are not stored, so only the queries' positions make an edge.
    first, last, whole_first, whole_last = 0, q_len, 0, q_len
    if HAS_RIGHT:
        first = n0 - (k_len - q_len) - right
        whole_first = first + BLOCK_N - 1
    if HAS_LEFT:
        last = tl.minimum(q_len, n0 + BLOCK_N - (k_len - q_len) + left)
        whole_last = tl.minimum(q_len, n0 - (k_len - q_len) + left + 1)
    first, a, b = split_blocks(first, last, whole_first, whole_last, BLOCK_M)
    bounds = (first, a, b, last)
    h = h_kv * GROUP  # the first head of the group
    q += row * q_strides[0] + h * q_strides[1] + q_start * q_strides[2]
    do += row * do_strides[0] + h * do_strides[1] + q_start * do_strides[2]
    lse += (row * H + h) * Tq + q_start
    delta += (row * H + h) * Tq + q_start
    if mask is not None:
        mask += row * mask_strides[0] + h * mask_strides[1]
    for part in tl.static_range(3):  # edge, whole, edge
        if part == 1 or (part == 0 and HAS_RIGHT) or (part == 2 and (HAS_LEFT or RAGGED)):
            dk_acc, dv_acc = gather_dkdv(
                dk_acc, dv_acc, k_tile, v_tile, q, do, lse, delta, bounds[part], bounds[part + 1], n0, z * H + h, seed,
                Tq, q_len, k_len, left, right, mask, mask_strides, q_strides, do_strides, part != 1, HAS_LEFT,
                HAS_RIGHT, MASK_PER_KEY, GROUP, SCALE, SOFTCAP, DROPOUT, D, BLOCK_D, COMPUTE, ACC, PRECISION, ALIGNED,
                EXACT, BLOCK_M, BLOCK_N,
            )  # fmt: skip

    dk += row * dk_strides[0] + h_kv * dk_strides[1] + k_start * dk_strides[2]
    dv += row * dv_strides[0] + h_kv * dv_strides[1] + k_start * dv_strides[2]
    store_tile(dk, dk_acc * SCALE, n0, k_len, dk_strides[2], BLOCK_N, D, BLOCK_D)
    store_tile(dv, dv_acc / (1 - DROPOUT), n0, k_len, dv_strides[2], BLOCK_N, D, BLOCK_D)


@triton.jit
def gather_dq(acc, q_tile, do_tile, log_sum, d_row, k, v, first, last, i, head, seed, q_len, k_len, left, right,
              mask, mask_strides, k_stride, v_stride, EDGE: tl.constexpr, HAS_LEFT: tl.constexpr,
              HAS_RIGHT: tl.constexpr, MASK_PER_KEY: tl.constexpr, SCALE: tl.constexpr, SOFTCAP: tl.constexpr,
              DROPOUT: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr, ACC: tl.constexpr,
              PRECISION: tl.constexpr, ALIGNED: tl.constexpr, EXACT: tl.constexpr,
              BLOCK_N: tl.constexpr):  # fmt: skip
    """Add what the blocks of keys first .. last-1 contribute: the new acc = Σ dS k, not yet scaled."""
    FACTOR: tl.constexpr = 1.0 if EXACT else SCALE * LOG2E
    for n0 in range(first, last, BLOCK_N):
        j = n0 + tl.arange(0, BLOCK_N)
        k_tile = load_tile(k, n0, k_len, k_stride, BLOCK_N, D, BLOCK_D, COMPUTE, EDGE, ALIGNED)
        v_tile = load_tile(v, n0, k_len, v_stride, BLOCK_N, D, BLOCK_D, COMPUTE, EDGE, ALIGNED)
        s = tl.dot(q_tile, tl.trans(k_tile), out_dtype=ACC, input_precision=PRECISION)  # (M, N), not scaled
        if EXACT:
            s = base_two(s, SCALE, SOFTCAP)
        if SOFTCAP > 0:
            slope = cap_slope(s, SOFTCAP)
        s = hide(s, i[:, None], j[None, :], q_len, k_len, left, right, mask, mask_strides,
                 EDGE, HAS_LEFT, HAS_RIGHT, MASK_PER_KEY)  # fmt: skip
        p = tl.exp2(s * FACTOR - log_sum[:, None])
        dp = tl.dot(do_tile, tl.trans(v_tile), out_dtype=ACC, input_precision=PRECISION)
        if DROPOUT > 0:
            dp = tl.where(dropout_keep(tl.load(seed), head, i, n0, BLOCK_N, DROPOUT), dp / (1 - DROPOUT), 0.0)
        ds = p * (dp - d_row[:, None])
        if SOFTCAP > 0:
            ds *= slope
        acc = tl.dot(ds.to(COMPUTE), k_tile, acc, out_dtype=ACC, input_precision=PRECISION)  # (M, D)
    return acc


@triton.jit
def fast_dq_kernel(q, k, v, do, dq, lse, delta, mask, cu_q, cu_k, seed,
                   q_strides, k_strides, v_strides, do_strides, dq_strides, mask_strides, Tq, Tk, left, right, H,
                   GROUP: tl.constexpr, SCALE: tl.constexpr, SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr,
                   D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr, ACC: tl.constexpr,
                   PRECISION: tl.constexpr, ALIGNED: tl.constexpr, EXACT: tl.constexpr, HAS_LEFT: tl.constexpr,
                   HAS_RIGHT: tl.constexpr, MASK_PER_KEY: tl.constexpr, RAGGED: tl.constexpr, BLOCK_M: tl.constexpr,
                   BLOCK_N: tl.constexpr):  # fmt: skip
    """One program: dq of BLOCK_M queries, over the same keys as in the forward kernel."""
    block = tl.program_id(0)
    if HAS_RIGHT:
        block = tl.num_programs(0) - 1 - block
    m0, h, z = block * BLOCK_M, tl.program_id(1).to(tl.int64), tl.program_id(2)
    row, q_start, q_len = locate(z, cu_q, Tq)
    _, k_start, k_len = locate(z, cu_k, Tk)
    if m0 >= q_len:
        return
    q += row * q_strides[0] + h * q_strides[1] + q_start * q_strides[2]
    do += row * do_strides[0] + h * do_strides[1] + q_start * do_strides[2]
    k += row * k_strides[0] + (h // GROUP) * k_strides[1] + k_start * k_strides[2]
    v += row * v_strides[0] + (h // GROUP) * v_strides[1] + k_start * v_strides[2]
    if mask is not None:
        mask += row * mask_strides[0] + h * mask_strides[1]
    i = m0 + tl.arange(0, BLOCK_M)
    per_row = (row * H + h) * Tq + q_start + i

    q_tile = load_tile(q, m0, q_len, q_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, True, ALIGNED)
    do_tile = load_tile(do, m0, q_len, do_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, True, ALIGNED)
    log_sum = tl.load(lse + per_row, mask=i < q_len, other=float("inf"))
    d_row = tl.load(delta + per_row, mask=i < q_len, other=0.0)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=ACC)

    first, last, whole_first, whole_last = 0, k_len, 0, k_len
    if HAS_LEFT:
        first = m0 + k_len - q_len - left
        whole_first = first + BLOCK_M - 1
    if HAS_RIGHT:
        last = tl.minimum(k_len, m0 + BLOCK_M + k_len - q_len + right)
        whole_last = tl.minimum(k_len, m0 + k_len - q_len + right + 1)
    first, a, b = split_blocks(first, last, whole_first, whole_last, BLOCK_N)
    bounds = (first, a, b, last)
    for part in tl.static_range(3):  # edge, whole, edge
        if part == 1 or (part == 0 and HAS_LEFT) or (part == 2 and (HAS_RIGHT or RAGGED)):
            acc = gather_dq(acc, q_tile, do_tile, log_sum, d_row, k, v, bounds[part], bounds[part + 1], i, z * H + h,
                            seed, q_len, k_len, left, right, mask, mask_strides, k_strides[2], v_strides[2],
                            part != 1, HAS_LEFT, HAS_RIGHT, MASK_PER_KEY, SCALE, SOFTCAP, DROPOUT, D, BLOCK_D, COMPUTE,
                            ACC, PRECISION, ALIGNED, EXACT, BLOCK_N)  # fmt: skip

    dq += row * dq_strides[0] + h * dq_strides[1] + q_start * dq_strides[2]
    store_tile(dq, acc * SCALE, m0, q_len, dq_strides[2], BLOCK_M, D, BLOCK_D)


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, call: Call
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, dsinks for the output gradient do (B, H, Tq, D), from what `flash_fast.forward` returned."""
    delta = launch_delta(do, out, lse, call)
    dk, dv = launch_dkdv(do, q, k, v, lse, delta, call, lookup("dkdv", q))
    dq = launch_dq(do, q, k, v, lse, delta, call, lookup("dq", q))
    return dq, dk, dv, sink_gradient(lse, delta, call)


def launch_delta(do: Tensor, out: Tensor, lse: Tensor, call: Call) -> Tensor:
    """rowsum(dO ∘ O), (B, H, Tq)."""
    batch, heads, tq, _ = out.shape
    delta = torch.empty_like(lse)
    names = ("H", "D", "BLOCK_D", "ACC", "enable_fp_fusion")
    shared = {name: value for name, value in call.kernel_arguments(out, out).items() if name in names}
    delta_kernel[triton.cdiv(tq, 64), heads, batch](
        do, out, delta, do_strides=do.stride(), out_strides=out.stride(), T=tq, BLOCK_M=64, **shared
    )
    return delta


def launch_dkdv(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, call: Call, config: Config
) -> tuple[Tensor, Tensor]:
    """dk and dv (B, Hkv, Tk, D) with a given configuration."""
    batch, kv_heads, tk, head_size = k.shape
    dk = empty_token_major(batch, kv_heads, tk, head_size, k, call)
    dv = empty_token_major(batch, kv_heads, tk, head_size, v, call)
    fast_dkdv_kernel[triton.cdiv(call.longest_k(k), config.block_n), kv_heads, call.sequences(q)](
        q, k, v, do, dk, dv, lse, delta, q_strides=q.stride(), k_strides=k.stride(), v_strides=v.stride(),
        do_strides=do.stride(), dk_strides=dk.stride(), dv_strides=dv.stride(),
        RAGGED=call.cu_q is not None or q.shape[2] % config.block_m != 0,
        **call.kernel_arguments(q, k), **call.fast_arguments(do, q, k, v), **config.launch_arguments(),
    )  # fmt: skip
    return dk.to(k.dtype), dv.to(v.dtype)


def launch_dq(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, call: Call, config: Config
) -> Tensor:
    """dq (B, H, Tq, D) with a given configuration."""
    batch, heads, tq, head_size = q.shape
    dq = empty_token_major(batch, heads, tq, head_size, q, call)
    fast_dq_kernel[triton.cdiv(call.longest_q(q), config.block_m), heads, call.sequences(q)](
        q, k, v, do, dq, lse, delta, q_strides=q.stride(), k_strides=k.stride(), v_strides=v.stride(),
        do_strides=do.stride(), dq_strides=dq.stride(),
        RAGGED=call.cu_q is not None or k.shape[2] % config.block_n != 0,
        **call.kernel_arguments(q, k), **call.fast_arguments(do, q, k, v), **config.launch_arguments(),
    )  # fmt: skip
    return dq.to(q.dtype)
