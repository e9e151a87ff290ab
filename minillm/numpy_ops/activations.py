"""Nonlinearities of other models than GPT: ReLU (the first Transformer), SiLU and SwiGLU (Llama), and ln σ."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor
from ..tensor_functions import logistic

# ReLU(x) = max(0, x) (Nair & Hinton 2010): dL/dx = dL/dy where x > 0, and 0 elsewhere, also at the corner x = 0.


def relu(x: Tensor) -> Tensor:
    return Tensor.from_op(np.maximum(x.data, x.dtype.type(0)), (x,), relu_backward, (x.data <= 0,))


def relu_backward(grad: Array, needs: tuple, off: Array) -> tuple:
    return (grad * ~off,)  # where x is NaN the gradient goes through, as in torch


# SiLU(x) = x σ(x) (also called swish):  d/dx = σ(x) + x σ(x)(1 − σ(x)) = σ (1 + x (1 − σ))


def silu(x: Tensor) -> Tensor:
    s = logistic(x.data)
    return Tensor.from_op(x.data * s, (x,), silu_backward, (x.data, s))


def silu_backward(grad: Array, needs: tuple, x: Array, s: Array) -> tuple:
    return (grad * (s * (1 + x * (1 - s))),)


# ln σ(x) = −ln(1 + e^−x) = min(x, 0) − ln(1 + e^−|x|), which overflows nowhere:  d/dx = 1 − σ(x) = σ(−x)


def log_sigmoid(x: Tensor) -> Tensor:
    y = np.minimum(x.data, x.dtype.type(0)) - np.log1p(np.exp(-np.abs(x.data)))
    return Tensor.from_op(y, (x,), log_sigmoid_backward, (x.data,))


def log_sigmoid_backward(grad: Array, needs: tuple, x: Array) -> tuple:
    return (grad * logistic(-x),)


# SwiGLU(g, u) = SiLU(g) · u, a gate g on the values u (Shazeer 2020, arXiv 2002.05202):
#   dL/dg = dL/dy · u · SiLU'(g),  dL/du = dL/dy · SiLU(g)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    s = logistic(gate.data)
    return Tensor.from_op(gate.data * s * up.data, (gate, up), swiglu_backward, (gate.data, s, up.data))


def swiglu_backward(grad: Array, needs: tuple, gate: Array, s: Array, up: Array) -> tuple:
    dgate = grad * up * (s * (1 + gate * (1 - s))) if needs[0] else None
    dup = grad * (gate * s) if needs[1] else None
    return dgate, dup
