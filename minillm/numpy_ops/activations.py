"""Nonlinearities of other models than GPT: ReLU (the first Transformer), SiLU and SwiGLU (Llama), and ln σ."""

from __future__ import annotations

import numpy as np

from ..tensor import Array, Tensor, records_graph
from ..tensor_functions import logistic
from .blocks import blocks

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


# SwiGLU(g, u) = SiLU(g) · u, a gate g on the values u (Shazeer 2020, arXiv 2002.05202; its backward is exercise 3 of
# chapters/07_the_transformer.ipynb):
#   dL/dg = dL/dy · u · SiLU'(g),  dL/du = dL/dy · SiLU(g)
# The forward pass computes both factors while a block is in the cache, and keeps nothing else.


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    y = np.empty(gate.shape, gate.dtype)
    if not records_graph(gate, up):
        for g, u, out in blocks(gate.data, up.data, y):
            np.multiply(g, logistic(g), out=out)
            out *= u
        return Tensor.from_op(y, (gate, up), swiglu_backward, ())
    dgate, dup = np.empty_like(y), np.empty_like(y)
    for g, u, out, dg, du in blocks(gate.data, up.data, y, dgate, dup):
        s = logistic(g)
        np.multiply(g, s, out=du)  # SiLU(g)
        np.multiply(du, u, out=out)
        np.subtract(1, s, out=dg)
        dg *= du
        dg += s  # SiLU'(g) = σ + x σ (1 − σ)
        dg *= u
    return Tensor.from_op(y, (gate, up), swiglu_backward, (dgate, dup))


def swiglu_backward(grad: Array, needs: tuple, dgate: Array, dup: Array) -> tuple:
    return grad * dgate if needs[0] else None, grad * dup if needs[1] else None
