"""Rotary positions: queries and keys turned by their place in the text."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor

# Rotary position embedding (Su et al. 2021, arXiv 2104.09864, section 3.2): the pair (x₁, x₂) at position t is turned
# by the angle t·θᵢ, so that a query and a key, turned by their own positions, meet in a dot product that depends on
# the distance only (chapters/07_the_transformer.ipynb).
#   y₁ = x₁ cos − x₂ sin     y₂ = x₂ cos + x₁ sin
# A rotation's derivative is the same rotation, its transpose turns back: dL/dx is dL/dy rotated by minus the angle.
# Pairs are (xᵢ, xᵢ₊D/2), "half-split", as in Llama checkpoints. cos and sin are constants (T, D/2).


def rope(x: Tensor, cos: Array, sin: Array) -> Tensor:
    return Tensor.from_op(rotate(x.data, cos, sin), (x,), rope_backward, (cos, sin))


def rope_backward(grad: Array, needs: tuple, cos: Array, sin: Array) -> tuple:
    return (rotate(grad, cos, -sin),)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """y₁ and y₂ side by side: whole rows at a time, where NumPy would have halves of few features to begin and end."""
    half = x.shape[-1] // 2
    y = np.concatenate((x[..., half:], x[..., :half]), axis=-1)  # (x₂, x₁)
    y *= np.concatenate((-sin, sin), axis=-1)
    y += x * np.concatenate((cos, cos), axis=-1)
    return y
