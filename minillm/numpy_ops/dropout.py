"""Dropout: set elements to zero at random, so that no unit can rely on another (Srivastava et al. 2014)."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor

# y = x m / (1 − p), with m = 1 with probability 1 − p, else 0; the division keeps the expected value. dL/dx = dL/dy ·
# m/(1 − p).


def dropout(x: Tensor, p: float, rng: np.random.Generator | None, mask: Array | None) -> Tensor:
    scale = dropout_scale(x.shape, p, x.dtype, rng, mask)
    return Tensor.from_op(x.data * scale, (x,), dropout_backward, (scale,))


def dropout_scale(
    shape: tuple, p: float, dtype: np.dtype, rng: np.random.Generator | None, mask: Array | None
) -> Array:
    """m/(1 − p), drawn from `rng` or made from a given boolean `mask` (True = keep)."""
    if mask is None:
        if rng is None:
            raise ValueError(
                "dropout: pass rng=, a np.random.Generator (the model's), or mask=. Hidden global randomness could "
                "not be resumed."
            )
        mask = rng.random(shape, dtype=np.float32) >= p
    return np.multiply(mask, dtype.type(1 / (1 - p)), dtype=dtype)


def dropout_backward(grad: Array, needs: tuple, scale: Array) -> tuple:
    return (grad * scale,)
