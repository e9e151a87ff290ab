"""Other losses: of numbers, and of yes/no questions."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor
from ..tensor_functions import logistic
from .cross_entropy import reduction_scale

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
#   ℓ = −t ln p − (1 − t) ln(1 − p) = max(x, 0) − x t + ln(1 + e^(−|x|)),   dℓ/dx = σ(x) − t
# (the middle form overflows or takes ln 0 for large |x|; the right one is the same function)


def binary_cross_entropy_with_logits(x: Tensor, target: Array, reduction: str) -> Tensor:
    target = np.asarray(target, dtype=x.dtype)
    tail = np.log1p(np.exp(-np.abs(x.data)))
    losses = np.maximum(x.data, 0) - x.data * target + tail
    scale = reduction_scale(reduction, losses.size)
    return Tensor.from_op(
        np.asarray(losses.sum() * losses.dtype.type(scale)), (x,), bce_backward, (x.data, target, scale)
    )


def bce_backward(grad: Array, needs: tuple, x: Array, target: Array, scale: float) -> tuple:
    return ((logistic(x) - target) * (grad * grad.dtype.type(scale)),)
