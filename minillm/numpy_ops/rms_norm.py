"""RMS norm: each vector to a root mean square of 1."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor

# RMS norm (Zhang & Sennrich 2019, arXiv 1910.07467): r = 1/√(mean x² + ε),  x̂ = x r,  y = x̂ w. As
# layer norm (layer_norm.py), without the mean; derived in exercise 4 of chapters/02_autograd.ipynb:
#   dL/dx = r (h − x̂ · mean(h x̂)),  h = dL/dy · w;   dL/dw = Σ_rows dL/dy · x̂


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
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
