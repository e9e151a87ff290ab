"""Dropout: set elements to zero at random, so that no unit can rely on another (Srivastava et al. 2014)."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Array, Tensor

# y = x m / (1 − p), with m = 1 with probability 1 − p, else 0; the division keeps the expected value. dL/dx = dL/dy ·
# m/(1 − p). What waits for the backward pass is m as bits, a 32nd of x.


def dropout(x: Tensor, p: float, rng: np.random.Generator | None, mask: Array | None) -> Tensor:
    mask = draw_mask(x.shape, p, rng) if mask is None else mask
    return Tensor.from_op(x.data * mask_scale(mask, p, x.dtype), (x,), dropout_backward, (packed(mask), p))


def dropout_backward(grad: Array, needs: tuple, bits: Array, p: float) -> tuple:
    return (grad * mask_scale(unpacked(bits, grad.shape), p, grad.dtype),)


def draw_mask(shape: tuple[int, ...], p: float, rng: np.random.Generator | None) -> Array:
    """m, True = keep."""
    if rng is None:
        raise ValueError(
            "dropout: pass rng=, a np.random.Generator (the model's), or mask=. Hidden global randomness could "
            "not be resumed."
        )
    return rng.random(shape, dtype=np.float32) >= p


def mask_scale(mask: Array, p: float, dtype: np.dtype) -> Array:
    """m/(1 − p)."""
    return np.multiply(mask, dtype.type(1 / (1 - p)), dtype=dtype)


def packed(mask: Array) -> Array:
    """Booleans of any shape as bits."""
    return np.packbits(mask)


def unpacked(bits: Array, shape: tuple[int, ...]) -> Array:
    """The same as 0 and 1."""
    return np.unpackbits(bits, count=math.prod(shape)).reshape(shape)
