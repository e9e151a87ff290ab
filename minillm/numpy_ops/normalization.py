"""Softmax and the two norms: ops in which every output of a row depends on every input of that row."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor

# Softmax: yᵢ = e^(xᵢ − m) / Σⱼ e^(xⱼ − m); m = max x changes nothing, since it cancels, but prevents overflow.
# From ∂yᵢ/∂xⱼ = yᵢ (δᵢⱼ − yⱼ):   dL/dxⱼ = Σᵢ gᵢ yᵢ (δᵢⱼ − yⱼ) = yⱼ (gⱼ − Σᵢ gᵢ yᵢ).


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    y = np.exp(x.data - x.data.max(axis=dim, keepdims=True))
    y /= y.sum(axis=dim, keepdims=True)
    return Tensor.from_op(y, (x,), softmax_backward, (y, dim))


def softmax_backward(grad: Array, needs: tuple, y: Array, dim: int) -> tuple:
    dx = grad * y
    dx -= y * dx.sum(axis=dim, keepdims=True)
    return (dx,)


# log-softmax: zᵢ = xᵢ − m − ln Σⱼ e^(xⱼ − m), so ∂zᵢ/∂xⱼ = δᵢⱼ − yⱼ with y = softmax(x) = e^z:  dL/dxⱼ = gⱼ − yⱼ Σᵢ gᵢ.


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    shifted = x.data - x.data.max(axis=dim, keepdims=True)
    z = shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))
    return Tensor.from_op(z, (x,), log_softmax_backward, (z, dim))


def log_softmax_backward(grad: Array, needs: tuple, z: Array, dim: int) -> tuple:
    return (grad - np.exp(z) * grad.sum(axis=dim, keepdims=True),)


# Layer norm (Ba et al. 2016, arXiv 1607.06450), over the last axis with D features:
#   μ = mean x,  σ² = mean (x − μ)²,  r = 1/√(σ² + ε),  x̂ = (x − μ) r,  y = x̂ w + b
# With h = dL/dx̂ = dL/dy · w. x̂ depends on x directly, through μ and through r; collecting the three paths
# (Σᵢ x̂ᵢ = 0 and ∂r/∂xⱼ = −r² x̂ⱼ/D remove the cross terms):
#   dL/dx = r (h − mean(h) − x̂ · mean(h x̂)):  h without its components along 1 and along x̂, the two directions
#   in which moving x does not change the output.
#   dL/dw = Σ_rows dL/dy · x̂,  dL/db = Σ_rows dL/dy


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    check_features("layer_norm", x, weight)
    if bias is not None and bias.shape != weight.shape:
        raise ValueError(
            f"layer_norm: weight {weight.shape} and bias {bias.shape} must have one shape: a scale and a shift for "
            "each feature."
        )
    xhat = x.data - x.data.mean(axis=-1, keepdims=True)
    variance = np.einsum("...d,...d->...", xhat, xhat)[..., None] / x.shape[-1]  # no array for the squares
    rstd = 1 / np.sqrt(variance + float(eps))
    xhat *= rstd
    y = xhat * weight.data
    if bias is not None:
        y += bias.data
    parents = (x, weight) if bias is None else (x, weight, bias)
    return Tensor.from_op(y, parents, layer_norm_backward, (xhat, rstd, weight.data))


def layer_norm_backward(grad: Array, needs: tuple, xhat: Array, rstd: Array, weight: Array) -> tuple:
    rows = tuple(range(grad.ndim - 1))
    dweight = np.einsum("nd,nd->d", grad.reshape(-1, weight.size), xhat.reshape(-1, weight.size)) if needs[1] else None
    dbias = grad.sum(axis=rows) if len(needs) == 3 and needs[2] else None
    dx = None
    if needs[0]:
        dx = grad * weight  # h
        mean_h = dx.mean(axis=-1, keepdims=True)
        mean_hx = np.einsum("...d,...d->...", dx, xhat)[..., None] / weight.size
        dx -= mean_h
        dx -= xhat * mean_hx
        dx *= rstd
    return (dx, dweight, dbias)[: len(needs)]


# RMS norm (Zhang & Sennrich 2019, arXiv 1910.07467): r = 1/√(mean x² + ε),  x̂ = x r,  y = x̂ w. As above, without
# the mean:
#   dL/dx = r (h − x̂ · mean(h x̂)),  h = dL/dy · w;   dL/dw = Σ_rows dL/dy · x̂


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    check_features("rms_norm", x, weight)
    mean_square = np.einsum("...d,...d->...", x.data, x.data)[..., None] / x.shape[-1]
    rstd = 1 / np.sqrt(mean_square + float(eps))
    xhat = x.data * rstd
    return Tensor.from_op(xhat * weight.data, (x, weight), rms_norm_backward, (xhat, rstd, weight.data))


def rms_norm_backward(grad: Array, needs: tuple, xhat: Array, rstd: Array, weight: Array) -> tuple:
    dweight = np.einsum("nd,nd->d", grad.reshape(-1, weight.size), xhat.reshape(-1, weight.size)) if needs[1] else None
    dx = None
    if needs[0]:
        dx = grad * weight  # h
        mean_hx = np.einsum("...d,...d->...", dx, xhat)[..., None] / weight.size
        dx -= xhat * mean_hx
        dx *= rstd
    return dx, dweight


def check_features(op: str, x: Tensor, weight: Tensor) -> None:
    if weight.shape != x.shape[-1:]:
        raise ValueError(
            f"{op}: x {x.shape} has {x.shape[-1]} features on its last axis, but weight {weight.shape} scales "
            f"{weight.data.size}."
        )
