"""Other losses: of logits that are there already, of numbers, and of yes/no questions."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor
from ..tensor_functions import logistic
from .cross_entropy import all_rows, class_ids, reduction_scale, softmax_cross_entropy

# Cross-entropy of logits (..., V): the formulas stand in cross_entropy.py.


def cross_entropy(logits: Tensor, targets: Array, ignore_index: int, reduction: str, label_smoothing: float) -> Tensor:
    vocab_size = logits.shape[-1]
    targets, kept = class_ids("cross_entropy", targets, vocab_size, ignore_index)
    rows = logits.data.reshape(kept.size, vocab_size)[kept]  # a copy of those that count
    found, dlogits = softmax_cross_entropy(rows, targets, label_smoothing)
    losses, dlogits = all_rows(found, kept), all_rows(dlogits, kept)
    if reduction == "none":
        return Tensor.from_op(losses.reshape(logits.shape[:-1]), (logits,), row_losses_backward, (dlogits,))
    scale = reduction_scale(reduction, len(targets))
    loss = np.asarray(losses.sum(dtype=np.float64) * scale, dtype=losses.dtype)
    return Tensor.from_op(loss, (logits,), cross_entropy_backward, (dlogits, np.nan_to_num(scale), logits.shape))


def cross_entropy_backward(grad: Array, needs: tuple, dlogits: Array, scale: float, shape: tuple) -> tuple:
    return ((dlogits * (grad * grad.dtype.type(scale))).reshape(shape),)


def row_losses_backward(grad: Array, needs: tuple, dlogits: Array) -> tuple:
    return ((dlogits * grad.reshape(-1, 1)).reshape(*grad.shape, -1),)


# Mean squared error: ℓ = mean (x − t)²,  dℓ/dx = 2 (x − t)/n,  dℓ/dt = −dℓ/dx


def mse_loss(x: Tensor, target: Tensor | Array, reduction: str) -> Tensor:
    target = x.like(target, "mse_loss")
    difference = x.data - target.data
    scale = reduction_scale(reduction, difference.size)
    loss = np.asarray(np.vdot(difference, difference) * difference.dtype.type(scale))
    return Tensor.from_op(loss, (x, target), mse_loss_backward, (difference, scale))


def mse_loss_backward(grad: Array, needs: tuple, difference: Array, scale: float) -> tuple:
    dx = difference * (grad * grad.dtype.type(2 * scale))
    return dx if needs[0] else None, -dx if needs[1] else None


# Binary cross-entropy on logits, p = σ(x), target t in [0, 1]:
#   ℓ = −t ln p − (1 − t) ln(1 − p) = |x| w + ln(1 + e^(−|x|)),  w = 1 − t where x > 0, else t: what x's sign got wrong
#   dℓ/dx = σ(x) − t,  dℓ/dt = −x
# (the middle form overflows or takes ln 0 for large |x|; the right one is the same function)


def binary_cross_entropy_with_logits(x: Tensor, target: Tensor | Array, reduction: str) -> Tensor:
    if not isinstance(target, Tensor):
        target = Tensor(np.asarray(target, dtype=x.dtype))
    size = np.abs(x.data)
    wrong = np.where(x.data > 0, 1 - target.data, target.data)
    losses = np.log1p(np.exp(-size))
    losses += np.multiply(size, wrong, out=np.zeros_like(size), where=wrong != 0)  # nothing wrong: 0, also of ∞
    scale = reduction_scale(reduction, losses.size)
    loss = np.asarray(losses.sum() * losses.dtype.type(scale))
    return Tensor.from_op(loss, (x, target), bce_backward, (x.data, target.data, scale))


def bce_backward(grad: Array, needs: tuple, x: Array, target: Array, scale: float) -> tuple:
    grad = grad * grad.dtype.type(scale)
    return (logistic(x) - target) * grad if needs[0] else None, -x * grad if needs[1] else None
