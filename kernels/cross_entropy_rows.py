"""Softmax, cross-entropy and its gradient for a chunk of logits, in place: the Triton step of `cross_entropy.py`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .call import TRITON_DTYPES, accumulator_dtype, storage_dtype
from .tiles import LOWEST


@triton.jit
def rows_kernel(logits, targets, losses, stride, ignore_index, V: tl.constexpr, SMOOTHING: tl.constexpr,
                GRADIENT: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One program: one row of logits, read once for its loss and once more to be replaced by its gradient."""
    row = tl.program_id(0)
    logits += row.to(tl.int64) * stride
    target = tl.load(targets + row)
    column = tl.arange(0, BLOCK)
    if target == ignore_index:
        tl.store(losses + row, 0.0)
        if GRADIENT:
            for start in range(0, V, BLOCK):
                zero = tl.zeros((BLOCK,), dtype=logits.dtype.element_ty)
                tl.store(logits + start + column, zero, mask=start + column < V)
        return

    # Read now: below, each warp writes its columns' gradients over the logits, without waiting for the others.
    target_logit = tl.load(logits + target).to(ACC)
    m = tl.zeros((BLOCK,), dtype=ACC) + LOWEST  # the online softmax, one running maximum for each lane
    l = tl.zeros((BLOCK,), dtype=ACC)
    total = tl.zeros((BLOCK,), dtype=ACC)  # Σ logits, for label smoothing
    for start in range(0, V, BLOCK):
        x = tl.load(logits + start + column, mask=start + column < V, other=float("-inf")).to(ACC)
        m_new = tl.maximum(m, x)
        l = l * tl.exp(m - m_new) + tl.exp(x - m_new)
        if SMOOTHING > 0:
            total += tl.where(start + column < V, x, 0.0)
        m = m_new
    top = tl.max(m, 0)
    log_sum = top + tl.log(tl.sum(l * tl.exp(m - top), 0))
    loss = log_sum - (1 - SMOOTHING) * target_logit
    if SMOOTHING > 0:
        loss -= SMOOTHING * tl.sum(total, 0) / V
    tl.store(losses + row, loss)

    if GRADIENT:
        for start in range(0, V, BLOCK):
            x = tl.load(logits + start + column, mask=start + column < V, other=float("-inf")).to(ACC)
            g = tl.exp(x - log_sum)
            if SMOOTHING > 0:
                g -= SMOOTHING / V
            g = tl.where(start + column == target, g - (1 - SMOOTHING), g)
            tl.store(logits + start + column, g.to(logits.dtype.element_ty), mask=start + column < V)


def rows_triton(logits: Tensor, targets: Tensor, ignore: int, label_smoothing: float, needs_gradient: bool) -> Tensor:
    """The same as `cross_entropy.rows_torch`."""
    n, vocabulary = logits.shape
    written = logits.to(storage_dtype(logits.dtype))  # itself, except for bf16 in the interpreter
    sums = accumulator_dtype(logits)
    losses = torch.empty(n, dtype=sums, device=logits.device)
    with torch.cuda.device_of(logits):
        rows_kernel[n,](
            written, targets, losses, written.stride(0), ignore, V=vocabulary, SMOOTHING=label_smoothing,
            GRADIENT=needs_gradient, ACC=TRITON_DTYPES[sums],
            BLOCK=min(4096, triton.next_power_of_2(vocabulary)), num_warps=8, enable_fp_fusion=True,
        )  # fmt: skip
    if written is not logits:
        logits.copy_(written)
    return losses
