"""Losses: what training makes small."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor
from ..tensor_methods import logistic

# Cross-entropy of the target class c under softmax(x), x (N, V):
#   ℓ = −ln yᴄ = ln Σⱼ e^(xⱼ) − xᴄ,   y = softmax(x),   dℓ/dx = y − onehot(c)
# Label smoothing ε (Szegedy et al. 2015, arXiv 1512.00567, section 7) replaces onehot(c) by q = (1 − ε) onehot(c) +
# ε/V:
#   ℓ = ln Σⱼ e^(xⱼ) − Σⱼ qⱼ xⱼ,   dℓ/dx = y − q
# One pass keeps y only; the composition log_softmax → pick → mean keeps three arrays of the size of the logits.


def cross_entropy(
    logits: Tensor, targets: Array, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
) -> Tensor:
    vocab_size = logits.shape[-1]
    targets, kept = check_targets("cross_entropy", logits.shape[:-1], targets, vocab_size, ignore_index)
    losses, dlogits = softmax_cross_entropy(logits.data.reshape(-1, vocab_size).copy(), targets, kept, label_smoothing)
    scale = reduction_scale(reduction, kept)
    loss = np.asarray(losses.sum() * losses.dtype.type(scale))
    return Tensor.from_op(loss, (logits,), cross_entropy_backward, (dlogits, np.nan_to_num(scale), logits.shape))


def cross_entropy_backward(grad: Array, needs: tuple, dlogits: Array, scale: float, shape: tuple) -> tuple:
    return ((dlogits * (grad * grad.dtype.type(scale))).reshape(shape),)


def softmax_cross_entropy(logits: Array, targets: Array, kept: Array, label_smoothing: float) -> tuple[Array, Array]:
    """Each row's loss (N,) and its gradient y − q (N, V), which is written over `logits`. Rows not kept give zeros."""
    vocab_size = logits.shape[1]
    label_smoothing = float(label_smoothing)  # np.float64 would turn float32 into float64
    rows = np.arange(len(targets))
    logits -= logits.max(axis=1, keepdims=True)
    picked = logits[rows, targets]  # (N,), xᴄ − m
    if label_smoothing:
        picked = (1 - label_smoothing) * picked + label_smoothing * logits.mean(axis=1)  # Σⱼ qⱼ xⱼ
    y = np.exp(logits, out=logits)
    total = y.sum(axis=1, keepdims=True)
    losses = np.log(total[:, 0]) - picked
    y /= total
    y[rows, targets] -= 1 - label_smoothing
    if label_smoothing:
        y -= label_smoothing / vocab_size
    if not kept.all():
        losses[~kept] = 0
        y[~kept] = 0
    return losses, y


# The output layer and the loss in one: logits = h Wᵀ for h (N, D), W (V, D). The logits (N, V) are the largest array
# of a small model's step. Here they exist for `chunk` rows at a time, in a piece that fits in the cache: each chunk's
# logits turn into dℓ/dlogits in place, and from that come its rows of dL/dh = dℓ/dlogits W and its part of dL/dW = Σ
# (dℓ/dlogits)ᵀ h. The gradient is thus finished in the forward pass; the backward pass only multiplies it by
# dL/dloss, a number.


def linear_cross_entropy(
    h: Tensor,
    weight: Tensor,
    targets: Array,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    chunk: int = 512,
) -> Tensor:
    vocab_size, d_model = weight.shape
    if h.shape[-1] != d_model:
        raise ValueError(
            f"linear_cross_entropy: h {h.shape} has {h.shape[-1]} features, weight {weight.shape} = (vocabulary, "
            f"features) takes {d_model}."
        )
    targets, kept = check_targets("linear_cross_entropy", h.shape[:-1], targets, vocab_size, ignore_index)
    scale = reduction_scale(reduction, kept)
    h2 = h.data.reshape(-1, d_model)  # (N, D)
    out = Tensor.from_op(np.zeros((), h.dtype), (h, weight), linear_cross_entropy_backward, ())
    dh = np.empty_like(h2) if out.node and out.node.needs[0] else None
    dweight = np.zeros_like(weight.data) if out.node and out.node.needs[1] else None
    total = 0.0
    for start in range(0, len(h2), chunk):
        part = slice(start, start + chunk)
        logits = h2[part] @ weight.data.T  # (chunk, V)
        losses, dlogits = softmax_cross_entropy(logits, targets[part], kept[part], label_smoothing)
        total += float(losses.sum(dtype=np.float64))
        if dh is not None:
            np.matmul(dlogits, weight.data, out=dh[part])
        if dweight is not None:
            dweight += dlogits.T @ h2[part]
    out.data += h.dtype.type(total * scale)
    if out.node:
        out.node.saved = (dh, dweight, np.nan_to_num(scale), h.shape)
    return out


def linear_cross_entropy_backward(
    grad: Array, needs: tuple, dh: Array | None, dweight: Array | None, scale: float, shape: tuple
) -> tuple:
    factor = grad * grad.dtype.type(scale)
    return (dh * factor).reshape(shape) if dh is not None else None, dweight * factor if dweight is not None else None


# Mean squared error: ℓ = mean (x − t)²,  dℓ/dx = 2 (x − t)/n,  dℓ/dt = −dℓ/dx


def mse_loss(x: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    if x.shape != target.shape:
        raise ValueError(
            f"mse_loss: prediction {x.shape} and target {target.shape} must have one shape: broadcasting would "
            "compare every pair."
        )
    difference = x.data - target.data
    scale = reduction_scale(reduction, np.ones(difference.size, dtype=bool))
    loss = np.asarray(np.vdot(difference, difference) * difference.dtype.type(scale))
    return Tensor.from_op(loss, (x, target), mse_loss_backward, (difference, scale))


def mse_loss_backward(grad: Array, needs: tuple, difference: Array, scale: float) -> tuple:
    dx = difference * (grad * grad.dtype.type(2 * scale))
    return dx if needs[0] else None, -dx if needs[1] else None


# Binary cross-entropy on logits, p = σ(x), target t in [0, 1]:
#   ℓ = −t ln p − (1 − t) ln(1 − p) = max(x, 0) − x t + ln(1 + e^(−|x|)),   dℓ/dx = σ(x) − t
# (the middle form overflows or takes ln 0 for large |x|; the right one is the same function)


def binary_cross_entropy_with_logits(x: Tensor, target: Array, *, reduction: str = "mean") -> Tensor:
    target = np.asarray(target, dtype=x.dtype)
    if x.shape != target.shape:
        raise ValueError(
            f"binary_cross_entropy_with_logits: logits {x.shape} and targets {target.shape} must have one shape, a 0 "
            "or 1 for each logit."
        )
    tail = np.log1p(np.exp(-np.abs(x.data)))
    losses = np.maximum(x.data, 0) - x.data * target + tail
    scale = reduction_scale(reduction, np.ones(losses.size, dtype=bool))
    return Tensor.from_op(
        np.asarray(losses.sum() * losses.dtype.type(scale)), (x,), bce_backward, (x.data, target, scale)
    )


def bce_backward(grad: Array, needs: tuple, x: Array, target: Array, scale: float) -> tuple:
    return ((logistic(x) - target) * (grad * grad.dtype.type(scale)),)


def reduction_scale(reduction: str, kept: Array) -> float:
    """What the sum of losses is multiplied by: 1, or one over the number of elements that count."""
    if reduction == "sum":
        return 1.0
    if reduction == "mean":
        return (
            1.0 / kept.sum() if kept.any() else float("nan")
        )  # as in torch: the mean of nothing is NaN, its gradient 0
    raise ValueError(f"reduction must be 'mean' or 'sum', not {reduction!r}.")


def check_targets(op: str, shape: tuple, targets: Array, vocab_size: int, ignore_index: int) -> tuple[Array, Array]:
    """Flat targets, 0 where ignored, and a mask of the rows that count."""
    targets = np.asarray(targets)
    if targets.shape != shape:
        raise ValueError(
            f"{op}: targets have shape {targets.shape}; one class id for each row of logits means {shape}."
        )
    if targets.dtype.kind not in "iu":
        raise TypeError(f"{op}: targets must be integers, the ids of classes, not {targets.dtype}.")
    targets = targets.reshape(-1)
    kept = targets != ignore_index
    bad = targets[kept & ((targets < 0) | (targets >= vocab_size))]
    if bad.size:
        raise IndexError(
            f"{op}: target {bad[0]} is outside the {vocab_size} classes (0 to {vocab_size - 1}; {ignore_index} is "
            "ignored)."
        )
    return np.where(kept, targets, 0), kept
