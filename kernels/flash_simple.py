"""Flash attention, as plainly as it can be written: one forward and two backward kernels that handle everything.

Attention is softmax(scale · q kᵀ) v. Written with matrices it stores a (Tq, Tk) table of scores; FlashAttention
(Dao et al. 2022, arXiv:2205.14135) walks over the keys in blocks and never stores it.
chapters/16_a_gpu_kernel_for_attention.ipynb builds it in NumPy first, and steps through this file.

**The online softmax** (§3.1). A row's softmax needs its maximum m and its sum l = Σ exp(s - m) over all keys. Keep
both for the keys seen so far, and the weighted sum of values acc = Σ exp(s - m) v. When a block raises the maximum to
m', what was summed so far is too large by exp(m' - m), so scale it down and go on:

    m' = max(m, max_j s_j)      α = exp(m - m')      p_j = exp(s_j - m')
    l' = α l + Σ_j p_j          acc' = α acc + Σ_j p_j v_j          at the end: out = acc / l

The forward kernel also stores L = m + log l, the log-sum-exp: one number a row, from which the backward kernels
recover every probability, P = exp(S - L), without a maximum or a sum (FlashAttention-2, arXiv:2307.08691, §3.1).

**The backward pass** (2205.14135, §B.2-B.4). With S = scale · q kᵀ, P = softmax(S), O = P v:

    dV = Pᵀ dO        dP = dO vᵀ        dS = P ∘ (dP - D)        dq = scale · dS k        dk = scale · dSᵀ q

where D = rowsum(P ∘ dP) comes from the softmax's Jacobian. Row i of it is Σ_j P_ij (dO_i · v_j) = dO_i · O_i, so
D = rowsum(O ∘ dO): no sum over keys is needed. With dropout, O = (P ∘ Z) v for Z = mask / (1-p), so dV = (P ∘ Z)ᵀ dO,
dP = (dO vᵀ) ∘ Z, and the same D holds. Each kernel owns its output rows, so nothing is added atomically and a second
run gives the same bits.

**Sinks and a cap** (`tiles.start_softmax`, `tiles.base_two`). A head's sink σ is a key with that score, seen by all and
of value 0: the sums start at m = σ, l = 1, and P above holds with the larger L. Its own probability is p₀ = exp(σ - L),
and ∂P_ij/∂σ = -P_ij p₀, so dσ = -Σ_i p₀_i D_i. A cap makes S = c tanh(s / c) of s = scale · q kᵀ: it multiplies dS by
1 - (S / c)² on its way to dq and dk.

Here exp is exp2 with log2(e) folded into the scale, and L is kept in base 2. A row that sees no key has l = 0: it
gives out = 0 and L = +inf, hence P = 0 and zero gradients.

**What is rounded.** D is the sum of O ∘ dO with O as stored, rounded by up to u = 2⁻⁸ of itself in bfloat16, 2⁻¹¹ in
float16. Where dP - D should cancel, as it does for a query that sees one key, up to u Σ_d |O_id dO_id| is left, and so
much times scale · |P k| in dq: small beside the values, not beside a gradient that is 0. Every kernel that keeps O and
no more does this.
"""

import triton
import triton.language as tl
from torch import Tensor

from .call import Call, empty_rows, empty_token_major, sink_gradient
from .tiles import base_two, cap_slope, dropout_keep, load_keys, load_tile, locate, start_softmax, store_tile, visible


@triton.jit
def forward_kernel(q, k, v, out, lse, mask, cu_q, cu_k, seed, sinks, lengths, table, table_stride,
                   q_strides, k_strides, v_strides, out_strides, mask_strides, Tq, Tk, left, right, H,
                   PAGE: tl.constexpr, GROUP: tl.constexpr, SCALE: tl.constexpr, SOFTCAP: tl.constexpr,
                   DROPOUT: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr,
                   ACC: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr,
                   BLOCK_N: tl.constexpr):  # fmt: skip
    """One program: BLOCK_M queries of one head of one sequence, over all the keys that they see."""
    m0, h, z = tl.program_id(0) * BLOCK_M, tl.program_id(1).to(tl.int64), tl.program_id(2)
    row, q_start, q_len = locate(z, cu_q, Tq)
    k_row, k_start, k_len = locate(z, cu_k, Tk, lengths)
    if m0 >= q_len:  # a packed sequence shorter than the longest
        return
    q += row * q_strides[0] + h * q_strides[1] + q_start * q_strides[2]
    if table is None:
        k += k_row * k_strides[0] + k_start * k_strides[2]
        v += k_row * v_strides[0] + k_start * v_strides[2]
    else:  # pages, which lie anywhere
        table += k_row * table_stride
    k += (h // GROUP) * k_strides[1]
    v += (h // GROUP) * v_strides[1]
    if mask is not None:
        mask += row * mask_strides[0] + h * mask_strides[1]
    i = m0 + tl.arange(0, BLOCK_M)

    q_tile = load_tile(q, m0, q_len, q_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, True)
    m, l = start_softmax(sinks, h, BLOCK_M, ACC)  # of each row: running maximum, running Σ exp2(s - m)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=ACC)  # running Σ exp2(s - m) v
    first = tl.maximum(0, m0 + k_len - q_len - left) // BLOCK_N * BLOCK_N
    last = tl.minimum(k_len, m0 + BLOCK_M + k_len - q_len + right)
    for n0 in range(first, last, BLOCK_N):
        j = n0 + tl.arange(0, BLOCK_N)
        k_tile = load_keys(k, table, n0, k_len, k_strides[0], k_strides[2], PAGE, BLOCK_N, D, BLOCK_D, COMPUTE, True)
        v_tile = load_keys(v, table, n0, k_len, v_strides[0], v_strides[2], PAGE, BLOCK_N, D, BLOCK_D, COMPUTE, True)
        s = tl.dot(q_tile, tl.trans(k_tile), out_dtype=ACC, input_precision=PRECISION)  # (M, N)
        s = base_two(s, SCALE, SOFTCAP)
        s = tl.where(visible(i, j, q_len, k_len, left, right, mask, mask_strides), s, float("-inf"))
        m_new = tl.maximum(m, tl.max(s, 1))
        alpha = tl.exp2(m - m_new)
        p = tl.exp2(s - m_new[:, None])
        l = l * alpha + tl.sum(p, 1)
        if DROPOUT > 0:  # after the sum: dropout acts on the normalised probabilities
            p = tl.where(dropout_keep(tl.load(seed), z * H + h, i, n0, BLOCK_N, DROPOUT), p / (1 - DROPOUT), 0.0)
        acc = acc * alpha[:, None]
        acc += tl.dot(p.to(COMPUTE), v_tile, out_dtype=ACC, input_precision=PRECISION)  # (M, D)
        m = m_new

    acc = acc / tl.where(l > 0, l, 1.0)[:, None]
    out += row * out_strides[0] + h * out_strides[1] + q_start * out_strides[2]
    store_tile(out, acc, m0, q_len, out_strides[2], BLOCK_M, D, BLOCK_D)
    log_sum = tl.where(l > 0, m + tl.log2(tl.where(l > 0, l, 1.0)), float("inf"))
    tl.store(lse + (row * H + h) * Tq + q_start + i, log_sum, mask=i < q_len)


@triton.jit
def dq_kernel(q, k, v, do, dq, lse, delta, mask, cu_q, cu_k, seed,
              q_strides, k_strides, v_strides, do_strides, dq_strides, mask_strides, Tq, Tk, left, right, H,
              GROUP: tl.constexpr, SCALE: tl.constexpr, SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr,
              D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr, ACC: tl.constexpr,
              PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One program: dq = scale · dS k for BLOCK_M queries, over the same keys as in the forward kernel."""
    m0, h, z = tl.program_id(0) * BLOCK_M, tl.program_id(1).to(tl.int64), tl.program_id(2)
    row, q_start, q_len = locate(z, cu_q, Tq)
    _, k_start, k_len = locate(z, cu_k, Tk)
    if m0 >= q_len:  # a packed sequence shorter than the longest
        return
    q += row * q_strides[0] + h * q_strides[1] + q_start * q_strides[2]
    do += row * do_strides[0] + h * do_strides[1] + q_start * do_strides[2]
    k += row * k_strides[0] + (h // GROUP) * k_strides[1] + k_start * k_strides[2]
    v += row * v_strides[0] + (h // GROUP) * v_strides[1] + k_start * v_strides[2]
    if mask is not None:
        mask += row * mask_strides[0] + h * mask_strides[1]
    i = m0 + tl.arange(0, BLOCK_M)
    per_row = (row * H + h) * Tq + q_start + i

    q_tile = load_tile(q, m0, q_len, q_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, True)
    do_tile = load_tile(do, m0, q_len, do_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, True)
    log_sum = tl.load(lse + per_row, mask=i < q_len, other=float("inf"))
    d_row = tl.load(delta + per_row, mask=i < q_len, other=0.0)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=ACC)
    first = tl.maximum(0, m0 + k_len - q_len - left) // BLOCK_N * BLOCK_N
    last = tl.minimum(k_len, m0 + BLOCK_M + k_len - q_len + right)
    for n0 in range(first, last, BLOCK_N):
        j = n0 + tl.arange(0, BLOCK_N)
        k_tile = load_tile(k, n0, k_len, k_strides[2], BLOCK_N, D, BLOCK_D, COMPUTE, True)
        v_tile = load_tile(v, n0, k_len, v_strides[2], BLOCK_N, D, BLOCK_D, COMPUTE, True)
        s = tl.dot(q_tile, tl.trans(k_tile), out_dtype=ACC, input_precision=PRECISION)
        s = base_two(s, SCALE, SOFTCAP)
        if SOFTCAP > 0:
            slope = cap_slope(s, SOFTCAP)
        s = tl.where(visible(i, j, q_len, k_len, left, right, mask, mask_strides), s, float("-inf"))
        p = tl.exp2(s - log_sum[:, None])  # (M, N)
        dp = tl.dot(do_tile, tl.trans(v_tile), out_dtype=ACC, input_precision=PRECISION)
        if DROPOUT > 0:
            dp = tl.where(dropout_keep(tl.load(seed), z * H + h, i, n0, BLOCK_N, DROPOUT), dp / (1 - DROPOUT), 0.0)
        ds = p * (dp - d_row[:, None])
        if SOFTCAP > 0:
            ds *= slope
        acc += tl.dot(ds.to(COMPUTE), k_tile, out_dtype=ACC, input_precision=PRECISION)  # (M, D)

    dq += row * dq_strides[0] + h * dq_strides[1] + q_start * dq_strides[2]
    store_tile(dq, acc * SCALE, m0, q_len, dq_strides[2], BLOCK_M, D, BLOCK_D)


@triton.jit
def dkdv_kernel(q, k, v, do, dk, dv, lse, delta, mask, cu_q, cu_k, seed,
                q_strides, k_strides, v_strides, do_strides, dk_strides, dv_strides, mask_strides,
                Tq, Tk, left, right, H,
                GROUP: tl.constexpr, SCALE: tl.constexpr, SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr,
                D: tl.constexpr, BLOCK_D: tl.constexpr, COMPUTE: tl.constexpr, ACC: tl.constexpr,
                PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One program: dk = scale · dSᵀ q and dv = Pᵀ dO for BLOCK_N keys, over all queries that see them, in every query
    head that shares this key head (grouped-query attention, Ainslie et al. 2023, arXiv:2305.13245)."""
    n0, h_kv, z = tl.program_id(0) * BLOCK_N, tl.program_id(1).to(tl.int64), tl.program_id(2)
    row, q_start, q_len = locate(z, cu_q, Tq)
    _, k_start, k_len = locate(z, cu_k, Tk)
    if n0 >= k_len:
        return
    k += row * k_strides[0] + h_kv * k_strides[1] + k_start * k_strides[2]
    v += row * v_strides[0] + h_kv * v_strides[1] + k_start * v_strides[2]
    j = n0 + tl.arange(0, BLOCK_N)

    k_tile = load_tile(k, n0, k_len, k_strides[2], BLOCK_N, D, BLOCK_D, COMPUTE, True)
    v_tile = load_tile(v, n0, k_len, v_strides[2], BLOCK_N, D, BLOCK_D, COMPUTE, True)
    dk_acc = tl.zeros((BLOCK_N, BLOCK_D), dtype=ACC)
    dv_acc = tl.zeros((BLOCK_N, BLOCK_D), dtype=ACC)
    first = tl.maximum(0, n0 - (k_len - q_len) - right) // BLOCK_M * BLOCK_M
    last = tl.minimum(q_len, n0 + BLOCK_N - (k_len - q_len) + left)
    for h in range(h_kv * GROUP, (h_kv + 1) * GROUP):
        q_head = q + row * q_strides[0] + h * q_strides[1] + q_start * q_strides[2]
        do_head = do + row * do_strides[0] + h * do_strides[1] + q_start * do_strides[2]
        mask_head = mask
        if mask is not None:
            mask_head = mask + row * mask_strides[0] + h * mask_strides[1]
        for m0 in range(first, last, BLOCK_M):
            i = m0 + tl.arange(0, BLOCK_M)
            per_row = (row * H + h) * Tq + q_start + i
            q_tile = load_tile(q_head, m0, q_len, q_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, True)
            do_tile = load_tile(do_head, m0, q_len, do_strides[2], BLOCK_M, D, BLOCK_D, COMPUTE, True)
            log_sum = tl.load(lse + per_row, mask=i < q_len, other=float("inf"))
            d_row = tl.load(delta + per_row, mask=i < q_len, other=0.0)
            s = tl.dot(q_tile, tl.trans(k_tile), out_dtype=ACC, input_precision=PRECISION)
            s = base_two(s, SCALE, SOFTCAP)
            if SOFTCAP > 0:
                slope = cap_slope(s, SOFTCAP)
            s = tl.where(visible(i, j, q_len, k_len, left, right, mask_head, mask_strides), s, float("-inf"))
            p = tl.exp2(s - log_sum[:, None])  # (M, N)
            dp = tl.dot(do_tile, tl.trans(v_tile), out_dtype=ACC, input_precision=PRECISION)
            z_drop = p  # P ∘ Z
            if DROPOUT > 0:
                keep = dropout_keep(tl.load(seed), z * H + h, i, n0, BLOCK_N, DROPOUT)
                z_drop = tl.where(keep, p / (1 - DROPOUT), 0.0)
                dp = tl.where(keep, dp / (1 - DROPOUT), 0.0)
            ds = p * (dp - d_row[:, None])
            if SOFTCAP > 0:
                ds *= slope
            dv_acc += tl.dot(tl.trans(z_drop.to(COMPUTE)), do_tile, out_dtype=ACC, input_precision=PRECISION)  # (N, D)
            dk_acc += tl.dot(tl.trans(ds.to(COMPUTE)), q_tile, out_dtype=ACC, input_precision=PRECISION)

    dk += row * dk_strides[0] + h_kv * dk_strides[1] + k_start * dk_strides[2]
    dv += row * dv_strides[0] + h_kv * dv_strides[1] + k_start * dv_strides[2]
    store_tile(dk, dk_acc * SCALE, n0, k_len, dk_strides[2], BLOCK_N, D, BLOCK_D)
    store_tile(dv, dv_acc, n0, k_len, dv_strides[2], BLOCK_N, D, BLOCK_D)


def forward(q: Tensor, k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """out (B, H, Tq, D) in q's dtype (lying in memory as (B, Tq, H, D)) and lse (B, H, Tq), base 2."""
    batch, heads, tq, head_size = q.shape
    shared = call.kernel_arguments(q, k)
    out = empty_token_major(batch, heads, tq, head_size, q, call)
    lse = empty_rows(batch, heads, tq, q, call)
    block = block_size(q)
    grid = (triton.cdiv(call.longest_q(q), block), heads, call.sequences(q))
    forward_kernel[grid](
        q, k, v, out, lse, q_strides=q.stride(), k_strides=k.stride(), v_strides=v.stride(), out_strides=out.stride(),
        BLOCK_M=block, BLOCK_N=block, **shared, **call.forward_arguments(k),
    )  # fmt: skip
    return out.to(q.dtype), lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, call: Call
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, dsinks for the output gradient do (B, H, Tq, D), from what `forward` returned."""
    batch, heads, tq, head_size = q.shape
    kv_heads, tk = k.shape[1], k.shape[2]
    shared = call.kernel_arguments(q, k)
    block = block_size(q)
    delta = (do.to(lse.dtype) * out.to(lse.dtype)).sum(-1).contiguous()  # D = rowsum(dO ∘ O), (B, H, Tq)
    dq = empty_token_major(batch, heads, tq, head_size, q, call)
    dk = empty_token_major(batch, kv_heads, tk, head_size, k, call)
    dv = empty_token_major(batch, kv_heads, tk, head_size, v, call)
    strides = {"q_strides": q.stride(), "k_strides": k.stride(), "v_strides": v.stride(), "do_strides": do.stride()}
    dq_kernel[triton.cdiv(call.longest_q(q), block), heads, call.sequences(q)](
        q, k, v, do, dq, lse, delta, dq_strides=dq.stride(), BLOCK_M=block, BLOCK_N=block, **strides, **shared
    )
    dkdv_kernel[triton.cdiv(call.longest_k(k), block), kv_heads, call.sequences(q)](
        q, k, v, do, dk, dv, lse, delta, dk_strides=dk.stride(), dv_strides=dv.stride(), BLOCK_M=block, BLOCK_N=block,
        **strides, **shared,
    )  # fmt: skip
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), sink_gradient(lse, delta, call)


def block_size(q: Tensor) -> int:
    """Rows of a tile: 32 keep the tiles of any head size in registers for 16-bit numbers, 16 for float32."""
    return 32 if q.element_size() == 2 else 16
