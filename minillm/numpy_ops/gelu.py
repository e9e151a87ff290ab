"""GELU, the nonlinearity of GPT's and BERT's feed-forward networks."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Array, Tensor
from .erf import gelu_exact

# GELU(x) = x Φ(x), Φ the standard normal's cumulative distribution (Hendrycks & Gimpel 2016, arXiv 1606.08415).
#   exact:  Φ(x) = (1 + erf(x/√2))/2,  dGELU/dx = Φ(x) + x φ(x),  φ(x) = e^(−x²/2)/√(2π)
#   tanh:   GELU(x) ≈ x (1 + t)/2,  t = tanh(u),  u = √(2/π) (x + 0.044715 x³)
#           d/dx = (1 + t)/2 + x (1 − t²)/2 · u',  u' = √(2/π) (1 + 3·0.044715 x²)
# GPT-2 uses the second, BERT the first, which stands in erf.py.

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def gelu(x: Tensor, approximate: str) -> Tensor:
    if approximate == "none":
        return gelu_exact(x)
    with np.errstate(over="ignore"):  # tanh ∞ is 1, as it should be
        u = np.asarray(x.data * x.data)  # NumPy makes a product of 0-d arrays a scalar, which out= does not take
        u *= 0.044715
        u += 1
        u *= x.data
        u *= SQRT_2_OVER_PI
    t = np.tanh(u, out=u)
    y = t + 1
    y *= x.data
    y *= 0.5
    return Tensor.from_op(y, (x,), gelu_tanh_backward, (x.data, t))


def gelu_tanh_backward(grad: Array, needs: tuple, x: Array, t: Array) -> tuple:
    # with the factor ½ taken out: dx = ½ grad · [(1 + t) + x (1 − t²) u'] = ½ grad (1 + t) [1 + x (1 − t) u']
    x = np.clip(x, -100, 100)  # from ±10 on, t is ±1 and nothing changes any more, but x³ would overflow: ∞ · 0
    dx = x * x
    dx *= 3 * 0.044715
    dx += 1
    dx *= x
    dx *= SQRT_2_OVER_PI  # x u'
    dx *= 1 - t
    dx += 1
    dx *= t + 1
    dx *= grad
    dx *= 0.5
    return (dx,)
