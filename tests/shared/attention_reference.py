"""Attention written with whole matrices, in PyTorch: what the kernels are checked against, in float64.

Takes the arguments of `flash_attention` and stores the (Tq, Tk) table of scores that the kernels avoid.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from minillm.kernels.tiles import dropout_keep
from torch import Tensor


def reference_attention(
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
    dropout_mask: Tensor | None = None,
    cu_seqlens: Tensor | tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The same as `flash_attention`, computed in the inputs' own dtype; dropout keeps what `dropout_mask` keeps.

    dropout_mask: bool (B, H, Tq, Tk), True = keep (see `dropout_mask_of`).
    """
    batch, heads, tq, head_size = q.shape
    tk = k.shape[2]
    k = k.repeat_interleave(heads // k.shape[1], dim=1)
    v = v.repeat_interleave(heads // v.shape[1], dim=1)
    scale = 1.0 / math.sqrt(head_size) if scale is None else scale

    i = torch.arange(tq, device=q.device)[:, None]
    j = torch.arange(tk, device=q.device)[None, :]
    keep = torch.ones(batch, 1, tq, tk, dtype=torch.bool, device=q.device)
    if cu_seqlens is not None:
        cu_q, cu_k = (cu_seqlens, cu_seqlens) if isinstance(cu_seqlens, Tensor) else cu_seqlens
        sequence_q = torch.searchsorted(cu_q.long(), i[:, 0], right=True) - 1  # which sequence a token belongs to
        sequence_k = torch.searchsorted(cu_k.long(), j[0], right=True) - 1
        keep = keep & (sequence_q[:, None] == sequence_k[None, :])
        ends_q, ends_k = cu_q.long()[sequence_q + 1][:, None], cu_k.long()[sequence_q + 1][:, None]
        distance = (j - ends_k) - (i - ends_q)  # both counted from the end of their sequence: bottom right
    else:
        distance = j - (i + tk - tq)
    if causal:
        keep = keep & (distance <= 0)
    if window is not None:
        keep = keep & (distance.abs() < window)
    if mask is not None:
        keep = keep & mask
    if key_padding_mask is not None:
        keep = keep & key_padding_mask[:, None, None, :]

    scores = (q @ k.transpose(-1, -2)) * scale  # (B, H, Tq, Tk)
    scores = scores.masked_fill(~keep, float("-inf"))
    sees_something = keep.any(-1, keepdim=True)
    p = torch.softmax(scores.masked_fill(~sees_something, 0.0), dim=-1).masked_fill(~sees_something, 0.0)
    if dropout_mask is not None:
        p = p * dropout_mask / (1.0 - dropout_p)
    return p @ v


@triton.jit
def dropout_mask_kernel(out, seed, Tq, Tk, P: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first_j = tl.program_id(1) * BLOCK
    j = first_j + tl.arange(0, BLOCK)
    head = tl.program_id(2)
    keep = dropout_keep(tl.load(seed), head, i, first_j, BLOCK, P)
    at = out + head.to(tl.int64) * Tq * Tk + i[:, None].to(tl.int64) * Tk + j[None, :]
    tl.store(at, keep.to(tl.uint8), mask=(i < Tq)[:, None] & (j < Tk)[None, :])


def dropout_mask_of(
    seed: int, p: float, shape: tuple[int, int, int, int], device: torch.device | str = "cpu"
) -> Tensor:
    """The (B, H, Tq, Tk) bool mask (True = keep) that `flash_attention(dropout_p=p, seed=seed)` applies."""
    batch, heads, tq, tk = shape
    out = torch.empty(shape, dtype=torch.uint8, device=device)
    seed_tensor = torch.full((1,), seed, dtype=torch.int64, device=device)
    grid = (triton.cdiv(tq, 32), triton.cdiv(tk, 32), batch * heads)
    with torch.cuda.device_of(out):
        dropout_mask_kernel[grid](out, seed_tensor, tq, tk, P=p, BLOCK=32, enable_fp_fusion=True)
    return out.bool()
