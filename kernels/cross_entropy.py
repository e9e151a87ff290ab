"""The output layer and its loss in one function that never holds all the logits.

A language model's last step, logits = h Wᵀ and the mean of -log softmax(logits)[target], makes its largest tensor: N·V
numbers, several times over once softmax and gradients are counted (8 × 1024 tokens of a 50,257-word vocabulary: 1.6 GB
in float32, each time). But the loss of a token needs only its own row, and so does the gradient,

    dloss/dlogits = softmax(logits) - onehot(target)        (with label smoothing ε: minus (1-ε)·onehot + ε/V)

so it is done for a chunk of tokens at a time, *in the forward pass*: make the chunk's logits, replace them by their
gradient in place, multiply that into dh and dW, and throw it away. The backward pass only scales by the incoming
scalar. (The idea as in Liger Kernel, Hsu et al. 2024, arXiv:2410.10989, §3.2.)

The matrix products are PyTorch's. The middle step is a Triton kernel that reads each row twice and writes it once, or
the same in PyTorch where Triton is not at hand.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import IGNORE

CHUNK_BYTES = 2**28  # a chunk of logits: big enough to keep the matrix units busy, small beside a model
# A chunk's part of the weight's gradient is a sum over its tokens, in their dtype, and float16 ends at 65,504. So
# chunks are limited, and in float16 features are divided by 64 for the product: below 0.004 they lose digits by that.
CHUNK_TOKENS = 8192
SHRINK = 2.0**-6


def linear_cross_entropy(
    h: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = IGNORE,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    chunk_tokens: int | None = None,
    impl: str = "auto",
) -> Tensor:
    """cross_entropy(h @ weight.T, targets) without a full logits tensor.

    h (..., D) and weight (V, D), floating point; targets (...) integers in 0..V-1 or ignore_index. Returns a scalar in
    float32 (float64 for float64 inputs): the sum over the targets that count, or their mean (nan if there are none,
    as torch's). Under autocast the products run in its dtype and weight's gradient is summed in float32.
    chunk_tokens: tokens at a time; None: as many as fit a quarter of a gigabyte of logits, at most 8192.
    impl: "triton", "torch" (any device), or "auto": triton on a GPU that has it.
    Differentiable once, in h and weight. Raises ValueError for shapes or options that do not fit.
    """
    if h.shape[:-1] != targets.shape or weight.ndim != 2 or h.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear_cross_entropy: h (..., D), weight (V, D), targets (...) do not fit: "
            f"{tuple(h.shape)}, {tuple(weight.shape)}, {tuple(targets.shape)}"
        )
    if reduction not in ("mean", "sum"):
        raise ValueError(f"linear_cross_entropy: reduction is {reduction!r}; use 'mean' or 'sum'.")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"linear_cross_entropy: label_smoothing is {label_smoothing}; it must be from 0 to 1.")
    if impl not in ("auto", "triton", "torch"):
        raise ValueError(f"linear_cross_entropy: impl is {impl!r}; use 'auto', 'triton' or 'torch'.")
    if impl == "auto":
        impl = "triton" if h.device.type == "cuda" and find_spec("triton") is not None else "torch"
    device = h.device.type
    if torch.is_autocast_enabled(device) and h.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    else:
        dtype = torch.promote_types(h.dtype, weight.dtype)
    if chunk_tokens is None:
        fitting = CHUNK_BYTES // (weight.shape[0] * dtype.itemsize) // 128 * 128
        chunk_tokens = min(max(128, fitting), CHUNK_TOKENS)
    training = torch.is_grad_enabled()
    needs = (training and h.requires_grad, training and weight.requires_grad)
    options = (ignore_index, label_smoothing, reduction == "mean", chunk_tokens, impl == "triton")
    return chunked_cross_entropy(h.flatten(0, -2).to(dtype), weight, targets.flatten(), *options, *needs)[0]


@torch.library.custom_op("minillm::chunked_cross_entropy", mutates_args=())
def chunked_cross_entropy(h: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, label_smoothing: float,
                          mean: bool, chunk_tokens: int, use_triton: bool, needs_h: bool, needs_weight: bool,
                          ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(loss, dh, dweight, factor) for h (N, D); a gradient that is not needed is empty. Use `linear_cross_entropy`.

    dh and dweight are those of the *sum*; factor, 1 or 1/number of targets, is left to the backward pass: in float16 a
    gradient divided by a large number of tokens would vanish before a GradScaler could save it. dweight, a sum over all
    tokens, stays in float32 until then: float16 could not hold it.
    """
    row_step = rows_torch
    if use_triton:
        from .cross_entropy_rows import rows_triton as row_step  # triton is an extra; all else works without it
    sums = sum_dtype(h)
    w = weight.to(h.dtype)
    shrink = SHRINK if h.dtype == torch.float16 else 1.0
    total = torch.zeros((), dtype=sums, device=h.device)
    kept, n_rows = targets != ignore_index, len(h)
    if h.device.type == "cpu":  # rows that don't count have no logits (a GPU would have to wait for their number)
        h, targets = h[kept], targets[kept]
    dh = torch.empty_like(h) if needs_h else h.new_empty(0)
    dw = torch.zeros(weight.shape if needs_weight else (0,), dtype=sums, device=h.device)
    for start in range(0, h.shape[0], chunk_tokens):
        chunk = slice(start, start + chunk_tokens)
        logits = h[chunk] @ w.T  # (n, V): the only such tensor
        losses = row_step(logits, targets[chunk], ignore_index, label_smoothing, needs_h or needs_weight)
        total += losses.sum()
        if needs_h:  # logits now holds its own gradient
            torch.mm(logits, w, out=dh[chunk])
        if needs_weight:
            features = h[chunk] * shrink if shrink < 1 else h[chunk]
            dw.add_(logits.T @ features, alpha=1 / shrink)
    if needs_h and len(h) < n_rows:
        dh = h.new_zeros(n_rows, h.shape[1]).masked_scatter(kept[:, None], dh)
    factor = torch.ones((), dtype=sums, device=h.device)
    if mean:
        count = (targets != ignore_index).sum().to(sums)
        total = total / count  # nan for no targets at all
        factor = torch.where(count > 0, 1.0 / count, 0.0)
    return total, dh, dw, factor


@chunked_cross_entropy.register_fake
def _(h, weight, targets, ignore_index, label_smoothing, mean, chunk_tokens, use_triton, needs_h, needs_weight):
    sums = sum_dtype(h)
    dh = torch.empty_like(h) if needs_h else h.new_empty(0)
    dweight = weight.new_empty(weight.shape if needs_weight else (0,), dtype=sums)
    return h.new_empty((), dtype=sums), dh, dweight, h.new_empty((), dtype=sums)


def save_gradients(ctx, inputs, output):
    _, dh, dweight, factor = output
    ctx.needs_h, ctx.needs_weight = inputs[-2:]
    ctx.weight_dtype = inputs[1].dtype
    ctx.save_for_backward(dh, dweight, factor)
    ctx.mark_non_differentiable(dh, dweight, factor)


def scale_gradients(ctx, dloss, *_):
    dh, dweight, factor = ctx.saved_tensors
    scale = (dloss * factor).reshape(1)  # one dimension: float16 · float32 is then computed in float32
    return (
        (dh * scale).to(dh.dtype) if ctx.needs_h else None,
        (dweight * scale).to(ctx.weight_dtype) if ctx.needs_weight else None,
        *(None,) * 8,
    )


chunked_cross_entropy.register_autograd(scale_gradients, setup_context=save_gradients)


def sum_dtype(x: Tensor) -> torch.dtype:
    """Sums are kept in float32, or in float64 for float64 tensors."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def rows_torch(logits: Tensor, targets: Tensor, ignore: int, label_smoothing: float, needs_gradient: bool) -> Tensor:
    """Each row's loss (n,); with needs_gradient, logits (n, V) is replaced by its gradient.

    loss = -(1-ε)·log p[target] - ε·(mean log p), 0 where the target is `ignore`.
    """
    counted = targets != ignore
    safe = targets.where(counted, 0)
    wide = logits.to(sum_dtype(logits))
    log_p = F.log_softmax(wide, dim=-1)  # one pass, where logsumexp and its parts would take several
    losses = (label_smoothing - 1) * log_p.gather(-1, safe[:, None])[:, 0]
    if label_smoothing > 0:
        losses = losses - label_smoothing * log_p.mean(-1)
    if needs_gradient:
        p = log_p.exp_()
        if label_smoothing > 0:
            p -= label_smoothing / logits.shape[-1]
        p[torch.arange(len(safe), device=safe.device), safe] -= 1 - label_smoothing
        logits.copy_(p.masked_fill_(~counted[:, None], 0.0))
    return losses.masked_fill(~counted, 0.0)
