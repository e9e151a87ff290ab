"""Layer norm: each vector to mean 0 and variance 1."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor

# Layer norm (Ba et al. 2016, arXiv 1607.06450), over the last axis, D features; derived in chapters/02_autograd.ipynb;
# what a Transformer is without it is measured in chapters/07_the_transformer.ipynb:
#   μ = mean x,  σ² = mean (x − μ)²,  r = 1/√(σ² + ε),  x̂ = (x − μ) r,  y = x̂ w + b
# With h = dL/dx̂ = dL/dy · w. x̂ depends on x directly, through μ and through r; collecting the three paths
# (Σᵢ x̂ᵢ = 0 and ∂r/∂xⱼ = −r² x̂ⱼ/D remove the cross terms):
#   dL/dx = r (h − mean(h) − x̂ · mean(h x̂)):  h without its components along 1 and along x̂, the two directions
#   in which moving x does not change the output.
#   dL/dw = Σ_rows dL/dy · x̂,  dL/db = Σ_rows dL/dy


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
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
