"""The output layer and each row's own loss: what the log-probability of an answer is made of."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor
from .cross_entropy import CHUNK, all_rows, class_ids, softmax_cross_entropy

# As linear_cross_entropy (cross_entropy.py), but for the sum.
# With one loss for each row, dL/dloss is (N,), and not known before the backward pass, which makes each chunk's logits
# once more: a third more products, and nothing of their size is kept.


def linear_row_losses(h: Tensor, weight: Tensor, targets: Array, ignore_index: int, label_smoothing: float) -> Tensor:
    weight = h.like(weight, "linear_cross_entropy")
    targets, kept = class_ids("linear_cross_entropy", targets, weight.shape[0], ignore_index)
    h2 = h.data.reshape(kept.size, weight.shape[1])[kept]  # (n, D), the rows that count
    losses = np.empty(targets.size, dtype=h.dtype)
    room = np.empty((min(CHUNK, len(h2)), weight.shape[0]), h.dtype)  # for the logits of each chunk in turn
    for start in range(0, len(h2), CHUNK):
        part = slice(start, start + CHUNK)
        logits = np.matmul(h2[part], weight.data.T, out=room[: len(h2) - start])  # (CHUNK, V)
        losses[part], _ = softmax_cross_entropy(logits, targets[part], label_smoothing)
    saved = (h2, weight.data, targets, kept, label_smoothing)
    losses = all_rows(losses, kept).reshape(h.shape[:-1])
    return Tensor.from_op(losses, (h, weight), linear_row_losses_backward, saved)


def linear_row_losses_backward(
    grad: Array, needs: tuple, h2: Array, weight: Array, targets: Array, kept: Array, label_smoothing: float
) -> tuple:
    dh, dweight = np.empty_like(h2), np.zeros_like(weight)
    rows = grad.reshape(-1, 1)[kept]  # (n, 1)
    room = np.empty((min(CHUNK, len(h2)), len(weight)), h2.dtype)
    for start in range(0, len(h2), CHUNK):
        part = slice(start, start + CHUNK)
        logits = np.matmul(h2[part], weight.T, out=room[: len(h2) - start])
        _, dlogits = softmax_cross_entropy(logits, targets[part], label_smoothing)
        dlogits *= rows[part]
        np.matmul(dlogits, weight, out=dh[part])
        if needs[1]:
            dweight += dlogits.T @ h2[part]
    return all_rows(dh, kept).reshape(*grad.shape, weight.shape[1]), dweight if needs[1] else None
