"""`flash_attention`: the kernels as one PyTorch function that autograd, autocast, torch.compile and FSDP understand.

A kernel launch is opaque to PyTorch, so it is wrapped twice as a custom operator (`torch.library.custom_op`): once
forward, once backward. Each has a *fake* twin that only says which shapes and strides come out, which is all that
torch.compile needs to build a graph around it without a break.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import flash_decode, flash_fast, flash_fast_backward, flash_simple
from .availability import flash_unavailable_reason
from .call import UNLIMITED, Call, accumulator_dtype
from .checks import (
    ELSEWHERE,
    as_seed_tensor,
    check_cache,
    check_devices,
    check_numbers,
    check_offsets,
    check_packing,
    check_pages,
    check_shapes,
    check_sinks,
    merge_masks,
    refuse_transforms,
    without_filling,
)

IMPLEMENTATIONS = {  # forward, backward
    "simple": (flash_simple.forward, flash_simple.backward),
    "fast": (flash_fast.forward, flash_fast_backward.backward),
}
# What the tuner and the offline compiler launch, by the names of configs.KERNELS, each with a configuration.
FORWARD = {"forward": flash_fast.launch_forward, "decode": flash_decode.launch}
BACKWARD = {"dkdv": flash_fast_backward.launch_dkdv, "dq": flash_fast_backward.launch_dq}
GRID_LIMIT = 65_535  # programs along the second and the third axis of a launch (CUDA programming guide)


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    mask: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    dropout_p: float = 0.0,
    seed: int | Tensor | None = None,
    cu_seqlens: Tensor | tuple[Tensor, Tensor] | None = None,
    max_seqlen: int | None = None,
    key_lengths: Tensor | None = None,
    block_table: Tensor | None = None,
    check_values: bool = True,
    impl: str = "fast",
) -> Tensor:
    """softmax(scale · q kᵀ) v without the (Tq, Tk) table of scores (FlashAttention-2, arXiv:2307.08691).

    q (B, H, Tq, D); k, v (B, Hkv, Tk, D) with H a multiple of Hkv (grouped-query); fp16, bf16 or fp32; any strides;
    D up to 256. Returns (B, H, Tq, D) in q's dtype, lying in memory as (B, Tq, H, D).

    causal: query i sees keys up to i + Tk - Tq (aligned at the bottom right, as decoding with a cache needs).
    scale: 1/√D if None; above 0.
    mask: bool, broadcastable to (B, H, Tq, Tk), True = keep. key_padding_mask: bool (B, Tk), True = a real key.
    window: how many keys a query sees looking back, its own position included (Mistral's sliding window); without
        `causal` also as many looking forward: |i + Tk - Tq - j| < window.
    softcap: scores are softcap · tanh(score / softcap) instead (Gemma 2).
    sinks: (H,), for each head the score of a key more, which every query sees whatever hides others from it, a window
        too, and whose value is 0 (gpt-oss).
    dropout_p, seed: dropout of the probabilities; the same seed (an int, or int64 (1,) on the device) gives the same
        mask. None draws one from torch's generator.
    cu_seqlens: int32 (n+1,): B is 1 and the tokens are n sequences packed one after another, the s-th at
        cu_seqlens[s]:cu_seqlens[s+1], none of which sees another; a pair (for q, for k) where they differ.
        max_seqlen: no less than the longest of them: saves launching programs that find nothing to do.
        May be filled up with the number of tokens to (tokens+1,), a shape that says nothing of n, for torch.compile.
    key_lengths: int32 (B,): k and v are a cache, of whose row b the first key_lengths[b] places are filled; causality
        and windows count from there. The queries may be packed, q (1, H, Tq, D) with cu_seqlens, then one tensor: B is
        the number of sequences here, and of rows of k and v. Not for training.
    block_table: int32 (B, n), beside key_lengths: the cache lies in pages. k, v are (pages, Hkv, page size, D), and
        keys 0 .. page size - 1 of row b are page block_table[b, 0], the next block_table[b, 1]; entries that the
        length does not reach are not read.
    check_values: look at what cu_seqlens, key_lengths and block_table hold, in a few small operations. On a GPU nothing
        waits for them: a wrong value ends as an assertion on the device, later. Even unlooked at they corrupt nothing.
    impl: "fast", or "simple" for the kernel that is easy to read.

    A query that sees no key gives zeros, and zero gradients. Deterministic, forward and backward. First derivatives
    only, by backward().
    Raises ValueError for shapes, options or offsets that contradict each other and for more than 65,535 sequences,
    RuntimeError where Triton cannot run (see `flash_unavailable_reason`) and for other derivatives (jvp, second ones).
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"flash_attention: impl is {impl!r}; use one of {sorted(IMPLEMENTATIONS)}")
    q, k, v = to_autocast(q), to_autocast(k), to_autocast(v)
    if not torch.compiler.is_compiling():
        refuse_transforms([q, k, v])
    packed_for_a_cache = cu_seqlens is not None and key_lengths is not None  # one row of queries, a cache of many
    check_shapes(q, k, v, one_batch=block_table is None and not packed_for_a_cache)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    check_numbers(scale, dropout_p, softcap, window)
    check_sinks(q, sinks)
    check_devices(q, mask=mask, key_padding_mask=key_padding_mask, sinks=sinks, key_lengths=key_lengths,
                  block_table=block_table)  # fmt: skip
    masked = mask is not None or key_padding_mask is not None
    cu_q, cu_k = check_packing(q, k, cu_seqlens, max_seqlen, masked, key_lengths is not None)
    check_cache(q, k, key_lengths, block_table, cu_q, masked)

    left = UNLIMITED if window is None else min(window - 1, UNLIMITED)
    right = 0 if causal else left
    seed_tensor = as_seed_tensor(seed, q.device) if dropout_p > 0 else None
    max_q, max_k = (q.shape[2], k.shape[2]) if max_seqlen is None else (max_seqlen, max_seqlen)  # if packed
    options = (scale, left, right, float(dropout_p), float(softcap or 0), max_q, max_k, impl, check_values)
    tensors = (merge_masks(q, k, mask, key_padding_mask), cu_q, cu_k, seed_tensor, sinks, key_lengths, block_table)
    return flash_forward(q, k, v, *tensors, *options)[0]


# --------------------------------------------------------------------------------------------- the custom operators


@torch.library.custom_op("minillm::flash_forward", mutates_args=())
def flash_forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cu_q: Tensor | None, cu_k: Tensor | None,
                  seed: Tensor | None, sinks: Tensor | None, key_lengths: Tensor | None, block_table: Tensor | None,
                  scale: float, left: int, right: int, dropout_p: float, softcap: float, max_q: int, max_k: int,
                  impl: str, check_values: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The forward kernel as an operator: (out, lse). Arguments as in `Call`; use `flash_attention`."""
    reason = flash_unavailable_reason(q, k, v)
    if reason is not None:
        raise RuntimeError(f"flash_attention cannot run: {reason}")
    offsets = without_filling(q.shape[2], *as_int32(cu_q, cu_k))
    cache = as_int32(key_lengths, block_table)
    call = Call(scale, left, right, dropout_p, mask, *offsets, max_q, max_k, seed, softcap, sinks, *cache)
    if max(call.sequences(q), q.shape[1]) > GRID_LIMIT:
        given = f"{call.sequences(q)} sequences, {q.shape[1]} heads"
        raise ValueError(f"flash_attention: {given}; a GPU takes up to {GRID_LIMIT} of each at once: split the batch.")
    if check_values:
        check_offsets(cu_q, q.shape[2], max_q, "cu_seqlens")
        if cu_k is not cu_q:
            check_offsets(cu_k, k.shape[2], max_k, "cu_seqlens of the keys")
        check_pages(key_lengths, block_table, k)
    if q.numel() == 0:
        return like_token_major(q), q.new_empty(q.shape[:3], dtype=accumulator_dtype(q))
    with torch.cuda.device_of(q):  # Triton launches on the current device
        return IMPLEMENTATIONS[impl][0](rows(q), rows(k), rows(v), call)


@flash_forward.register_fake
def _(q, *_):
    return like_token_major(q), q.new_empty(q.shape[:3], dtype=accumulator_dtype(q))


@torch.library.custom_op("minillm::flash_backward", mutates_args=())
def flash_backward(do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None,
                   cu_q: Tensor | None, cu_k: Tensor | None, seed: Tensor | None, sinks: Tensor | None, scale: float,
                   left: int, right: int, dropout_p: float, softcap: float, max_q: int, max_k: int,
                   impl: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The backward kernels as an operator: (dq, dk, dv, dsinks) for the output gradient do, which may be a stride-0
    view; dsinks is empty where there are no sinks."""
    cu_q, cu_k = without_filling(q.shape[2], *as_int32(cu_q, cu_k))
    call = Call(scale, left, right, dropout_p, mask, cu_q, cu_k, max_q, max_k, seed, softcap, sinks)
    with torch.cuda.device_of(q):
        return IMPLEMENTATIONS[impl][1](rows(do.to(q.dtype)), rows(q), rows(k), rows(v), out, lse, call)


@flash_backward.register_fake
def _(do, q, k, v, out, lse, mask, cu_q, cu_k, seed, sinks, *_):
    dsinks = lse.new_empty(0) if sinks is None else torch.empty_like(sinks)
    return like_token_major(q), like_token_major(k), like_token_major(v), dsinks


def save_for_backward(ctx, inputs, output):
    q, k, v, mask, cu_q, cu_k, seed, sinks, key_lengths, _, *options = inputs
    out, lse = output
    ctx.save_for_backward(q, k, v, out, lse, mask, cu_q, cu_k, seed, sinks)
    ctx.options = options
    ctx.cached = key_lengths is not None
    ctx.mark_non_differentiable(lse)


def flash_attention_backward_rule(ctx, do, _):
    if ctx.cached:
        raise RuntimeError("flash_attention: a cache (key_lengths) has no backward pass; mask the padding instead.")
    *tensors, sinks = ctx.saved_tensors
    dq, dk, dv, dsinks = flash_backward(do, *tensors, sinks, *ctx.options[:-1])  # all but check_values
    nothing = (None,) * len(ctx.options)
    return dq, dk, dv, None, None, None, None, None if sinks is None else dsinks, None, None, *nothing


def no_second_derivative(ctx, *_):
    raise RuntimeError(f"flash_attention has no second derivative (backward through a gradient); {ELSEWHERE}.")


flash_forward.register_autograd(flash_attention_backward_rule, setup_context=save_for_backward)
flash_backward.register_autograd(no_second_derivative)


# ----------------------------------------------------------------------------------------------------- the arguments


def rows(t: Tensor) -> Tensor:
    """The kernels take any strides, except that the features of a row lie together."""
    return t if t.stride(-1) == 1 else t.contiguous()


def like_token_major(t: Tensor) -> Tensor:
    batch, heads, tokens, width = t.shape
    return t.new_empty(batch, tokens, heads, width).transpose(1, 2)


def as_int32(a: Tensor | None, b: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """What the kernels read: int32 in the order that `locate` steps through."""
    return tuple(None if t is None else t.to(torch.int32).contiguous() for t in (a, b))


def to_autocast(t: Tensor) -> Tensor:
    """Under autocast, attention runs in its low precision like any matrix product (norms hand float32 on)."""
    device = t.device.type
    if torch.is_autocast_enabled(device) and t.dtype in (torch.float16, torch.bfloat16, torch.float32):
        return t.to(torch.get_autocast_dtype(device))
    return t
