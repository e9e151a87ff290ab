"""Nonlinearities of the feed-forward layers: GELU (both forms), SiLU and SwiGLU."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Array, Tensor
from ..tensor_methods import logistic

# GELU(x) = x Φ(x), Φ the standard normal's cumulative distribution (Hendrycks & Gimpel 2016, arXiv 1606.08415).
#   exact:  Φ(x) = (1 + erf(x/√2))/2,  dGELU/dx = Φ(x) + x φ(x),  φ(x) = e^(−x²/2)/√(2π)
#   tanh:   GELU(x) ≈ x (1 + t)/2,  t = tanh(u),  u = √(2/π) (x + 0.044715 x³)
#           d/dx = (1 + t)/2 + x (1 − t²)/2 · u',  u' = √(2/π) (1 + 3·0.044715 x²)
# GPT-2 uses the second, BERT the first.

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        cdf = normal_cdf(x.data)
        return Tensor.from_op(x.data * cdf, (x,), gelu_exact_backward, (x.data, cdf))
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


def gelu_exact_backward(grad: Array, needs: tuple, x: Array, cdf: Array) -> tuple:
    pdf = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return (grad * (cdf + x * pdf),)


def gelu_tanh_backward(grad: Array, needs: tuple, x: Array, t: Array) -> tuple:
    # with the factor ½ taken out: dx = ½ grad · [(1 + t) + x (1 − t²) u'] = ½ grad (1 + t) [1 + x (1 − t) u']
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


# SiLU(x) = x σ(x) (also called swish):  d/dx = σ(x) + x σ(x)(1 − σ(x)) = σ (1 + x (1 − σ))


def silu(x: Tensor) -> Tensor:
    s = logistic(x.data)
    return Tensor.from_op(x.data * s, (x,), silu_backward, (x.data, s))


def silu_backward(grad: Array, needs: tuple, x: Array, s: Array) -> tuple:
    return (grad * (s * (1 + x * (1 - s))),)


# SwiGLU(g, u) = SiLU(g) · u, a gate g on the values u (Shazeer 2020, arXiv 2002.05202):
#   dL/dg = dL/dy · u · SiLU'(g),  dL/du = dL/dy · SiLU(g)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    if gate.shape != up.shape:
        raise ValueError(
            f"swiglu: gate {gate.shape} and up {up.shape} must have one shape: two projections of the same input."
        )
    s = logistic(gate.data)
    return Tensor.from_op(gate.data * s * up.data, (gate, up), swiglu_backward, (gate.data, s, up.data))


def swiglu_backward(grad: Array, needs: tuple, gate: Array, s: Array, up: Array) -> tuple:
    dgate = grad * up * (s * (1 + gate * (1 - s))) if needs[0] else None
    dup = grad * (gate * s) if needs[1] else None
    return dgate, dup
