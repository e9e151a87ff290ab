"""Softmax and its logarithm, along one axis."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor

# Softmax: yᵢ = e^(xᵢ − m) / Σⱼ e^(xⱼ − m); m = max x changes nothing, since it cancels, but prevents overflow.
# From ∂yᵢ/∂xⱼ = yᵢ (δᵢⱼ − yⱼ):   dL/dxⱼ = Σᵢ gᵢ yᵢ (δᵢⱼ − yⱼ) = yⱼ (gⱼ − Σᵢ gᵢ yᵢ); derived in
# chapters/06_attention.ipynb.


def softmax(x: Tensor, dim: int) -> Tensor:
    y = np.exp(x.data - x.data.max(axis=dim, keepdims=True, initial=-np.inf))  # initial: of an empty axis, nothing
    y /= y.sum(axis=dim, keepdims=True)
    return Tensor.from_op(y, (x,), softmax_backward, (y, dim))


def softmax_backward(grad: Array, needs: tuple, y: Array, dim: int) -> tuple:
    dx = grad * y
    dx -= y * dx.sum(axis=dim, keepdims=True)
    return (dx,)


# log-softmax: zᵢ = xᵢ − m − ln Σⱼ e^(xⱼ − m), so ∂zᵢ/∂xⱼ = δᵢⱼ − yⱼ with y = softmax(x) = e^z:  dL/dxⱼ = gⱼ − yⱼ Σᵢ gᵢ.


def log_softmax(x: Tensor, dim: int) -> Tensor:
    shifted = x.data - x.data.max(axis=dim, keepdims=True, initial=-np.inf)
    z = shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True)) if x.data.size else shifted
    return Tensor.from_op(z, (x,), log_softmax_backward, (z, dim))


def log_softmax_backward(grad: Array, needs: tuple, z: Array, dim: int) -> tuple:
    return (grad - np.exp(z) * grad.sum(axis=dim, keepdims=True),)
