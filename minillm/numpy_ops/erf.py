"""The exact GELU, and the function Φ that it needs and NumPy lacks."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Array, Tensor, records_graph
from .blocks import blocks

# y = x Φ(x),  dy/dx = Φ(x) + x φ(x),  φ(x) = e^(−x²/2)/√(2π): see gelu.py


def gelu_exact(x: Tensor) -> Tensor:
    y = normal_cdf(x.data)
    slope = None
    if records_graph(x):
        slope = np.empty(x.shape, x.dtype)
        for part in blocks(x.data, y, slope):
            exact_slope(*part)
    y *= x.data
    return Tensor.from_op(y, (x,), gelu_exact_backward, (slope,))


def exact_slope(x: Array, cdf: Array, slope: Array) -> None:
    np.multiply(x, x, out=slope)
    slope *= -0.5
    np.exp(slope, out=slope)
    slope *= x
    slope *= 1 / math.sqrt(2 * math.pi)
    slope += cdf


def gelu_exact_backward(grad: Array, needs: tuple, slope: Array) -> tuple:
    return (grad * slope,)


def normal_cdf(x: Array) -> Array:
    """Φ(x) = erfc(−x/√2)/2. NumPy has no erf, so erfc is computed here: for z ≥ 0, erfc(z) = e^(−z²) · t · P(t) with
    t = 1/(1 + z/2) and a Chebyshev polynomial P (fitted at import by `erfc_coefficients`, error below 1e-15).

    Two things make it cheap: float32 needs only the first terms, and a block's intermediate results stay in the cache.
    """
    x = np.asarray(x)
    flat = x.reshape(-1)
    out = np.empty_like(flat)
    coefficients = ERFC_COEFFICIENTS if x.dtype.itemsize > 4 else ERFC_COEFFICIENTS[:TERMS_FLOAT32]
    for start in range(0, flat.size, BLOCK):
        half = half_erfc(flat[start : start + BLOCK], coefficients)  # upper tail, P(X > |x|)
        out[start : start + BLOCK] = np.where(flat[start : start + BLOCK] > 0, 1 - half, half)
    return out.reshape(x.shape)


def half_erfc(x: Array, coefficients: list[float]) -> Array:
    """erfc(|x|/√2)/2 for x (n,)."""
    z = np.abs(x) * math.sqrt(0.5)
    t = 1 / (1 + 0.5 * z)  # in (0, 1]
    s2 = 4 * t - 2  # 2s for s = 2t − 1 in (−1, 1], where Chebyshev polynomials live
    # Clenshaw's recurrence for Σ cₖ Tₖ(s), b₁ ← 2s b₁ − b₂ + c, in three arrays that take turns
    b1, b2, free = np.zeros_like(s2), np.zeros_like(s2), np.empty_like(s2)
    for c in coefficients[:0:-1]:
        np.multiply(s2, b1, out=free)
        free -= b2
        free += c
        b1, b2, free = free, b1, b2
    b1 *= 0.5 * s2
    b1 -= b2
    b1 += coefficients[0]
    return 0.5 * (t * np.exp(-z * z) * b1)


def erfc_coefficients(degree: int) -> list[float]:
    """Chebyshev coefficients of g(t) = erfc(z) e^(z²) / t at z = 2/t − 2, from values of math.erfc.

    For large z, where e^(z²) overflows, g comes from erfc's asymptotic continued fraction (Abramowitz & Stegun 7.1.14).
    """
    n = degree + 1
    coefficients = [0.0] * n
    angles = [math.pi * (k + 0.5) / n for k in range(n)]
    for angle in angles:
        t = (math.cos(angle) + 1) / 2
        z = 2 / t - 2
        if z < 5:
            scaled = math.erfc(z) * math.exp(z * z)
        else:  # √π e^(z²) erfc(z) = 1/(z + (1/2)/(z + 1/(z + (3/2)/(z + ...))))
            tail = z
            for k in range(60, 0, -1):
                tail = z + (k / 2) / tail
            scaled = 1 / (math.sqrt(math.pi) * tail)
        for k in range(n):
            coefficients[k] += (1 if k == 0 else 2) / n * (scaled / t) * math.cos(k * angle)
    return coefficients


ERFC_COEFFICIENTS = erfc_coefficients(27)
TERMS_FLOAT32 = next(k for k in range(28) if sum(map(abs, ERFC_COEFFICIENTS[k:])) < 1e-8)
BLOCK = 8192  # numbers: six arrays of so many fit into a core's cache
