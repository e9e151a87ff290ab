"""Cross-entropy, fused with the output layer that makes the logits: what the training of a GPT makes small."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor, records_graph

# Cross-entropy of the target class c under softmax(x), x (N, V), derived in chapters/02_autograd.ipynb:
#   ℓ = −ln yᴄ = ln Σⱼ e^(xⱼ) − xᴄ,   y = softmax(x),   dℓ/dx = y − onehot(c)
# Label smoothing ε (Szegedy et al. 2015, arXiv 1512.00567, section 7) replaces onehot(c) by q = (1 − ε) onehot(c) +
# ε/V:
#   ℓ = ln Σⱼ e^(xⱼ) − Σⱼ qⱼ xⱼ,   dℓ/dx = y − q
# One pass keeps y only, not three arrays of the logits' size. (On logits that are there already: losses.py.)


def softmax_cross_entropy(logits: Array, targets: Array, label_smoothing: float) -> tuple[Array, Array]:
    """Each row's loss (N,) and its gradient y − q (N, V), which is written over `logits`."""
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
    return losses, y


# The output layer and the loss in one: logits = h Wᵀ for h (N, D), W (V, D). The logits (N, V) are the largest array
# of a small model's step. Here they exist for `CHUNK` rows at a time, in a piece that fits in the cache: each chunk's
# logits turn into dℓ/dlogits in place, and from that come its rows of dL/dh = dℓ/dlogits W and its part of dL/dW = Σ
# (dℓ/dlogits)ᵀ h. The gradient is thus finished in the forward pass; the backward pass only multiplies it by
# dL/dloss, a number. Rows whose target is ignored (a prompt, padding) have no logits at all.


CHUNK = 512


def linear_cross_entropy(
    h: Tensor, weight: Tensor, targets: Array, ignore_index: int, reduction: str, label_smoothing: float
) -> Tensor:
    weight = h.like(weight, "linear_cross_entropy")
    vocab_size, d_model = weight.shape
    targets, kept = class_ids("linear_cross_entropy", targets, vocab_size, ignore_index)
    h2 = h.data.reshape(kept.size, d_model)  # (N, D)
    if len(targets) < kept.size:
        h2 = h2[kept]  # (n, D), the rows that count
    dh = np.empty_like(h2) if records_graph(h) else None
    dweight = np.zeros_like(weight.data) if records_graph(weight) else None
    room = np.empty((min(CHUNK, len(h2)), vocab_size), h.dtype)  # for the logits of each chunk in turn
    total = 0.0
    for start in range(0, len(h2), CHUNK):
        part = slice(start, start + CHUNK)
        logits = np.matmul(h2[part], weight.data.T, out=room[: len(h2) - start])  # (CHUNK, V)
        losses, dlogits = softmax_cross_entropy(logits, targets[part], label_smoothing)
        total += float(losses.sum(dtype=np.float64))
        if dh is not None:
            np.matmul(dlogits, weight.data, out=dh[part])
        if dweight is not None:
            dweight += dlogits.T @ h2[part]
    dh = None if dh is None else all_rows(dh, kept)
    scale = reduction_scale(reduction, len(targets))
    loss = np.asarray(total * scale, dtype=h.dtype)
    saved = (dh, dweight, np.nan_to_num(scale), h.shape)
    return Tensor.from_op(loss, (h, weight), linear_cross_entropy_backward, saved)


def linear_cross_entropy_backward(
    grad: Array, needs: tuple, dh: Array | None, dweight: Array | None, scale: float, shape: tuple
) -> tuple:
    factor = grad * grad.dtype.type(scale)
    return (dh * factor).reshape(shape) if dh is not None else None, dweight * factor if dweight is not None else None


def all_rows(found: Array, kept: Array) -> Array:
    """What was found for the rows that are kept, among zeros for the others."""
    if len(found) == kept.size:
        return found
    rows = np.zeros((kept.size, *found.shape[1:]), found.dtype)
    rows[kept] = found
    return rows


def reduction_scale(reduction: str, n: int) -> float:
    """What the sum of n losses is multiplied by. As in torch, the mean of nothing is NaN (its gradient is 0)."""
    if reduction == "sum":
        return 1.0
    return 1.0 / n if n else float("nan")


def class_ids(op: str, targets: Array, vocab_size: int, ignore_index: int) -> tuple[Array, Array]:
    """The targets that count, (n,), and a mask of the rows that they belong to, (N,)."""
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iu":
        raise TypeError(f"{op}: targets must be integers, the ids of classes, not {targets.dtype}.")
    targets = targets.reshape(-1)
    kept = targets != ignore_index
    targets = targets[kept]
    bad = targets[(targets < 0) | (targets >= vocab_size)]
    if bad.size:
        raise IndexError(
            f"{op}: target {bad[0]} is outside the {vocab_size} classes (0 to {vocab_size - 1}; {ignore_index} is "
            "ignored)."
        )
    return targets, kept
