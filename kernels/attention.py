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
from .call import UNLIMITED, Call

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
    dropout_p: float = 0.0,
    seed: int | Tensor | None = None,
    cu_seqlens: Tensor | tuple[Tensor, Tensor] | None = None,
    max_seqlen: int | None = None,
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
    dropout_p, seed: dropout of the probabilities; the same seed (an int, or int64 (1,) on the device) gives the same
        mask. None draws one from torch's generator.
    cu_seqlens: int32 (n+1,): B is 1 and the tokens are n sequences packed one after another, the s-th at
        cu_seqlens[s]:cu_seqlens[s+1], none of which sees another; a pair (for q, for k) where they differ.
        max_seqlen: the longest of them, if known: saves launching programs that find nothing to do.
        May be filled up with the number of tokens to (tokens+1,), a shape that says nothing of n, for torch.compile.
    impl: "fast", or "simple" for the kernel that is easy to read.

    A query that sees no key gives zeros, and zero gradients. Deterministic, forward and backward.
    Raises ValueError for shapes or options that contradict each other and for more than 65,535 sequences, RuntimeError
    where Triton cannot run (see `flash_unavailable_reason`).
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"flash_attention: impl is {impl!r}; use one of {sorted(IMPLEMENTATIONS)}")
    q, k, v = to_autocast(q), to_autocast(k), to_autocast(v)
    check_shapes(q, k, v)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if not scale > 0:
        raise ValueError(f"flash_attention: scale is {scale}; it must be above 0.")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"flash_attention: dropout_p is {dropout_p}; it must be at least 0 and below 1.")
    if window is not None and window < 1:
        raise ValueError(f"flash_attention: window is {window}; it counts the keys that a query sees, at least 1.")

    left = UNLIMITED if window is None else window - 1
    right = 0 if causal else left
    seed_tensor = as_seed_tensor(seed, q.device) if dropout_p > 0 else None
    cu_q, cu_k = check_packing(q, k, cu_seqlens, mask is not None or key_padding_mask is not None)
    full_mask = merge_masks(q, k, mask, key_padding_mask)
    max_q, max_k = (q.shape[2], k.shape[2]) if max_seqlen is None else (max_seqlen, max_seqlen)  # if packed
    options = (scale, left, right, float(dropout_p), max_q, max_k, impl)
    return flash_forward(q, k, v, full_mask, cu_q, cu_k, seed_tensor, *options)[0]


# --------------------------------------------------------------------------------------------- the custom operators


@torch.library.custom_op("minillm::flash_forward", mutates_args=())
def flash_forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cu_q: Tensor | None, cu_k: Tensor | None,
                  seed: Tensor | None, scale: float, left: int, right: int, dropout_p: float, max_q: int, max_k: int,
                  impl: str) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The forward kernel as an operator: (out, lse). Arguments as in `Call`; use `flash_attention`."""
    reason = flash_unavailable_reason(q, k, v)
    if reason is not None:
        raise RuntimeError(f"flash_attention cannot run: {reason}")
    call = Call(scale, left, right, dropout_p, mask, *without_filling(q, cu_q, cu_k), max_q, max_k, seed)
    if max(call.sequences(q), q.shape[1]) > GRID_LIMIT:
        given = f"{call.sequences(q)} sequences, {q.shape[1]} heads"
        raise ValueError(f"flash_attention: {given}; a GPU takes up to {GRID_LIMIT} of each at once: split the batch.")
    with torch.cuda.device_of(q):  # Triton launches on the current device
        return IMPLEMENTATIONS[impl][0](rows(q), rows(k), rows(v), call)


@flash_forward.register_fake
def _(q, k, v, mask, cu_q, cu_k, seed, scale, left, right, dropout_p, max_q, max_k, impl):
    batch, heads, tq, _ = q.shape
    lse_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return like_token_major(q), q.new_empty(batch, heads, tq, dtype=lse_dtype)


@torch.library.custom_op("minillm::flash_backward", mutates_args=())
def flash_backward(do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None,
                   cu_q: Tensor | None, cu_k: Tensor | None, seed: Tensor | None, scale: float, left: int, right: int,
                   dropout_p: float, max_q: int, max_k: int, impl: str) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The backward kernels as an operator: (dq, dk, dv) for the output gradient do, which may be a stride-0 view."""
    call = Call(scale, left, right, dropout_p, mask, *without_filling(q, cu_q, cu_k), max_q, max_k, seed)
    with torch.cuda.device_of(q):
        return IMPLEMENTATIONS[impl][1](rows(do.to(q.dtype)), rows(q), rows(k), rows(v), out, lse, call)


@flash_backward.register_fake
def _(do, q, k, v, out, lse, mask, cu_q, cu_k, seed, scale, left, right, dropout_p, max_q, max_k, impl):
    return like_token_major(q), like_token_major(k), like_token_major(v)


def save_for_backward(ctx, inputs, output):
    q, k, v, mask, cu_q, cu_k, seed, *options = inputs
    out, lse = output
    ctx.save_for_backward(q, k, v, out, lse, mask, cu_q, cu_k, seed)
    ctx.options = options
    ctx.mark_non_differentiable(lse)


def flash_attention_backward_rule(ctx, do, _):
    dq, dk, dv = flash_backward(do, *ctx.saved_tensors, *ctx.options)
    nothing = (None,) * (4 + len(ctx.options))  # mask, cu_q, cu_k, seed and the options have no gradient
    return dq, dk, dv, *nothing


flash_forward.register_autograd(flash_attention_backward_rule, setup_context=save_for_backward)


# ----------------------------------------------------------------------------------------------------- the arguments


def rows(t: Tensor) -> Tensor:
    """The kernels take any strides, except that the features of a row lie together."""
    return t if t.stride(-1) == 1 else t.contiguous()


def like_token_major(t: Tensor) -> Tensor:
    batch, heads, tokens, width = t.shape
    return t.new_empty(batch, tokens, heads, width).transpose(1, 2)


def to_autocast(t: Tensor) -> Tensor:
    """Under autocast, attention runs in its low precision like any matrix product (norms hand float32 on)."""
    device = t.device.type
    if torch.is_autocast_enabled(device) and t.dtype in (torch.float16, torch.bfloat16, torch.float32):
        return t.to(torch.get_autocast_dtype(device))
    return t


def check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not (q.ndim == k.ndim == v.ndim == 4):
        raise ValueError(f"flash_attention: q, k, v must be (batch, heads, tokens, features), not {shapes}.")
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"flash_attention: k and v must have one shape and q their batch and head size, not {shapes}.")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1] != 0:
        raise ValueError(f"flash_attention: the query heads must be a multiple of the key heads, not {shapes}.")


def as_seed_tensor(seed: int | Tensor | None, device: torch.device) -> Tensor:
    if seed is None:  # a tensor, not an int: no synchronisation, and torch.compile does not bake its value in
        return torch.randint(0, 2**62, (1,), dtype=torch.int64, device=device)
    if isinstance(seed, Tensor):
        return seed.to(device=device, dtype=torch.int64).reshape(1)
    return torch.full((1,), seed, dtype=torch.int64, device=device)


def check_packing(
    q: Tensor, k: Tensor, cu_seqlens: Tensor | tuple[Tensor, Tensor] | None, masked: bool
) -> tuple[Tensor | None, Tensor | None]:
    if cu_seqlens is None:
        return None, None
    cu_q, cu_k = (cu_seqlens, cu_seqlens) if isinstance(cu_seqlens, Tensor) else cu_seqlens
    if q.shape[0] != 1:
        raise ValueError(f"flash_attention: cu_seqlens needs sequences packed in a batch of 1, not q {tuple(q.shape)}.")
    if masked:
        raise ValueError("flash_attention: cu_seqlens and masks do not go together; packed sequences have no padding.")
    if isinstance(cu_seqlens, Tensor) and q.shape[2] != k.shape[2]:
        tokens = f"q has {q.shape[2]} tokens and k {k.shape[2]}"
        raise ValueError(f"flash_attention: {tokens}; give cu_seqlens as a pair (for q, for k).")
    if cu_q.ndim != 1 or cu_q.shape != cu_k.shape:
        raise ValueError(f"flash_attention: cu_seqlens must be (n+1,), not {tuple(cu_q.shape)}, {tuple(cu_k.shape)}.")
    return cu_q.to(device=q.device, dtype=torch.int32), cu_k.to(device=q.device, dtype=torch.int32)


def without_filling(q: Tensor, cu_q: Tensor | None, cu_k: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """cu_seqlens without the empty sequences at their end, of which each would be launched; looked for, which waits for
    the device, only where there are as many sequences as tokens."""
    if cu_q is None or cu_k is None or cu_q.shape[0] <= q.shape[2]:
        return cu_q, cu_k
    n = max(1, int(((cu_q < cu_q[-1]) | (cu_k < cu_k[-1])).sum()))
    return cu_q[: n + 1], cu_k[: n + 1]


def merge_masks(q: Tensor, k: Tensor, mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor | None:
    """One bool view of shape (B, H, Tq, Tk); a padding mask costs no memory: its query and head strides are 0."""
    batch, heads, tq, tk = *q.shape[:3], k.shape[2]
    merged = mask
    if key_padding_mask is not None:
        shape = tuple(key_padding_mask.shape)
        if shape != (batch, tk):
            raise ValueError(f"flash_attention: key_padding_mask {shape} must be (B, Tk) = {(batch, tk)}.")
        per_key = key_padding_mask[:, None, None, :]
        merged = per_key if mask is None else mask & per_key
    if merged is None:
        return None
    if merged.dtype != torch.bool:
        raise ValueError(f"flash_attention: a mask must be bool, True = keep, not {merged.dtype} (use mask.bool()).")
    return merged.expand(batch, heads, tq, tk)
