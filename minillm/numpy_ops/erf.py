"""The exact GELU, and the function Φ that it needs and NumPy lacks."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Array, Tensor

# y = x Φ(x),  dy/dx = Φ(x) + x φ(x),  φ(x) = e^(−x²/2)/√(2π): see gelu.py


def gelu_exact(x: Tensor) -> Tensor:
    cdf = normal_cdf(x.data)
    return Tensor.from_op(x.data * cdf, (x,), gelu_exact_backward, (x.data, cdf))


def gelu_exact_backward(grad: Array, needs: tuple, x: Array, cdf: Array) -> tuple:
    pdf = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return (grad * (cdf + x * pdf),)


def normal_cdf(x: Array) -> Array:
    """Φ(x) = erfc(−x/√2)/2. NumPy has no erf, so erfc is computed here: for z ≥ 0, erfc(z) = e^(−z²) · t · P(t) with
    t = 1/(1 + z/2) and a Chebyshev polynomial P (fitted at import by `erfc_coefficients`, error below 1e-15)."""
    z = np.abs(x) * math.sqrt(0.5)
    t = 1 / (1 + 0.5 * z)  # in (0, 1]
    s = 2 * t - 1  # in (−1, 1]: where Chebyshev polynomials live
    # Clenshaw's recurrence for Σ cₖ Tₖ(s)
    b1 = np.zeros_like(s)
    b2 = np.zeros_like(s)
    for c in ERFC_COEFFICIENTS[:0:-1]:
        b1, b2 = 2 * s * b1 - b2 + c, b1
    erfc = t * np.exp(-z * z) * (s * b1 - b2 + ERFC_COEFFICIENTS[0])
    half = 0.5 * erfc  # upper tail, P(X > |x|)
    return np.where(x > 0, 1 - half, half)


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
