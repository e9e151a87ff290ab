"""The exact GELU, and the function Φ that it needs and NumPy lacks."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Array, Tensor, records_graph
from .blocks import blocks

# y = x Φ(x),  dy/dx = Φ(x) + x φ(x),  φ(x) = e^(−x²/2)/√(2π): see gelu.py
#
# The upper tail is half an erfc, 1 − Φ(|x|) = erfc(z)/2 with z = |x|/√2, and erfc(z) = e^(−z²) · t · P(t) with t = 1/(1
# + pz) in (0, 1] (Abramowitz & Stegun 7.1.26 has this form, for five digits). P is a polynomial, fitted at import by
# `erfc_coefficients`. With u = 2t and s = u − 1, in which its powers are small, and with P/4 for P,
#   1 − Φ(|x|) = e^(−x²/2) · u · P(s)
# Φ(x) itself is that on the left and 1 less that on the right: 1 or 0, less the tail with the sign of x. (No 1 + erf:
# far on the left nothing would be left of it.) The power of e serves φ, too.
#
# Some forty passes over the numbers: a block of them, with what is computed from it, stays in a core's cache.


def gelu_exact(x: Tensor) -> Tensor:
    y = np.empty(x.shape, x.dtype)
    slope = np.empty(x.shape, x.dtype) if records_graph(x) else None
    for part in blocks(x.data, y, *([] if slope is None else [slope])):
        gelu_part(*part)
    return Tensor.from_op(y, (x,), gelu_exact_backward, (slope,))


def gelu_part(x: Array, y: Array, slope: Array | None = None) -> None:
    """One block x (n,): writes y over `y`, and its derivative over `slope`."""
    power = np.empty_like(x) if slope is None else slope
    normal_cdf(x, y, power)
    if slope is not None:
        slope *= x
        slope *= 1 / math.sqrt(2 * math.pi)  # x φ(x)
        slope += y
    y *= x


def gelu_exact_backward(grad: Array, needs: tuple, slope: Array) -> tuple:
    return (grad * slope,)


def normal_cdf(x: Array, cdf: Array, power: Array) -> None:
    """Writes Φ(x) over `cdf` and e^(−x²/2) over `power`, all of one shape (n,). In float64 the error is below 1e-15,
    and the tails keep their digits; float32 needs fewer terms."""
    coefficients = POWERS if x.dtype.itemsize > 4 else POWERS_FLOAT32
    u = np.abs(x)
    u *= SCALE * math.sqrt(0.5)
    u += 1
    np.divide(2, u, out=u)
    s = u - 1  # in (−1, 1]
    np.multiply(s, coefficients[-1], out=cdf)  # Horner's rule, from the highest power down
    for c in coefficients[-2:0:-1]:
        cdf += c
        cdf *= s
    cdf += coefficients[0]
    np.square(x, out=power)
    power *= -0.5
    np.exp(power, out=power)
    cdf *= u
    cdf *= power  # the upper tail of |x|
    np.copysign(cdf, x, out=cdf)
    np.subtract(~np.signbit(x), cdf, out=cdf)


def erfc_coefficients(n: int, scale: float) -> list[float]:
    """Chebyshev coefficients of g(t) = erfc(z) e^(z²) / t, t = 1/(1 + scale · z), from values of math.erfc.

    For large z, where e^(z²) overflows, g comes from erfc's asymptotic continued fraction (Abramowitz & Stegun 7.1.14).
    """
    coefficients = [0.0] * n
    angles = [math.pi * (k + 0.5) / n for k in range(n)]
    for angle in angles:
        t = (math.cos(angle) + 1) / 2
        z = (1 / t - 1) / scale
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


def powers(chebyshev: list[float]) -> list[float]:
    """The same polynomial as Σ pₖ sᵏ: Tₖ₊₁ = 2s Tₖ − Tₖ₋₁. The coefficients fall so fast that no digits are lost."""
    total = [0.0] * len(chebyshev)
    t, after = [1.0], [0.0, 1.0]  # T₀ and T₁
    for c in chebyshev:
        for k, factor in enumerate(t):
            total[k] += c * factor
        t, after = after, [a - b for a, b in zip([0.0, *(2 * f for f in after)], [*t, 0.0, 0.0])]
    return total


SCALE = 0.35  # p: about where the fewest terms do
ERFC_COEFFICIENTS = erfc_coefficients(26, SCALE)
TERMS_FLOAT32 = next(k for k in range(26) if sum(map(abs, ERFC_COEFFICIENTS[k:])) < 6e-8)
POWERS = [c / 4 for c in powers(ERFC_COEFFICIENTS)]
POWERS_FLOAT32 = [c / 4 for c in powers(ERFC_COEFFICIENTS[:TERMS_FLOAT32])]
