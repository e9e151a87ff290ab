"""GELU, the nonlinearity of GPT's and BERT's feed-forward networks."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Array, Tensor, records_graph
from .blocks import blocks
from .erf import gelu_exact

# GELU(x) = x Φ(x), Φ the standard normal's cumulative distribution (Hendrycks & Gimpel 2016, arXiv 1606.08415).
#   exact:  Φ(x) = (1 + erf(x/√2))/2,  dGELU/dx = Φ(x) + x φ(x),  φ(x) = e^(−x²/2)/√(2π)
#   tanh:   GELU(x) ≈ x (1 + t)/2,  t = tanh(u),  u = √(2/π) (x + 0.044715 x³)
#           d/dx = (1 + t)/2 + x (1 − t²)/2 · u',  u' = √(2/π) (1 + 3·0.044715 x²)
# GPT-2 uses the second, BERT the first, which stands in erf.py. With h = (1 + t)/2 and x u' = 3u − 2 √(2/π) x the
# slope is h [1 + 2 (1 − h) x u']. The forward pass computes it while x and h are in the cache, and keeps nothing else.

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def gelu(x: Tensor, approximate: str) -> Tensor:
    if approximate == "none":
        return gelu_exact(x)
    y = np.empty(x.shape, x.dtype)
    slope = np.empty(x.shape, x.dtype) if records_graph(x) else None
    for part in blocks(x.data, y, *([] if slope is None else [slope])):
        gelu_tanh(*part)
    return Tensor.from_op(y, (x,), gelu_backward, (slope,))


def gelu_tanh(x: Array, h: Array, slope: Array | None = None) -> None:
    """The formulas above, step by step on one block x (n,): writes y over `h`, and its derivative over `slope`."""
    z = np.clip(x, -100, 100)  # from ±10 on, t is ±1 and nothing changes any more, but x³ would overflow: ∞ · 0
    u = z * z
    u *= 0.044715
    u += 1
    u *= z
    u *= SQRT_2_OVER_PI
    np.tanh(u, out=h)
    h += 1
    h *= 0.5
    if slope is not None:
        u *= 3
        z *= 2 * SQRT_2_OVER_PI
        u -= z  # x u'
        np.subtract(1, h, out=slope)
        slope *= u
        slope *= 2
        slope += 1
        slope *= h
    h *= x


def gelu_backward(grad: Array, needs: tuple, slope: Array) -> tuple:
    return (grad * slope,)
