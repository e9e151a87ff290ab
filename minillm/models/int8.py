"""Weights of 8 bits, for writing alone: a quarter of the memory, and less to fetch for each token.

A step of one text multiplies every weight once, so that it takes as long as fetching them all. Here each row of a
matrix is divided by its largest number, times 127, and rounded (as in finetune/quantize.py): one byte for a weight and
four for a row, the token table and the head included; biases and norms stay. NumPy has no product for whole numbers
beside floats. So a block of rows, small enough for the processor's cache, is widened to floats and multiplied there,
then the next one in the same place: from memory come the bytes only. PyTorch has a kernel for it, which rounds what
comes in to bfloat16. What rounding costs in bits per byte stands in tests/bench/LOG.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import nn
from ..numpy_ops.cores import blas_threads, shares, side_by_side
from ..ops import AnyTensor
from ..tensor import Tensor
from .gpt import GPT
from .llama import Llama

Array = np.ndarray
BLOCK = 1 << 17  # weights that are widened at a time
SHARED = 1 << 20  # from so many weights on, cores share a product: below, one would wait longer for the other


class Int8Matrix(nn.Module):
    """A matrix as `codes` (out, in) int8 times `row_scale` (out,), in the place of a Linear or of the token table."""

    def __init__(self, weight: Array, bias: Any) -> None:
        largest = np.abs(weight).max(axis=1)
        self.row_scale: Any = largest / weight.dtype.type(127)
        divisor = np.where(largest > 0, self.row_scale, 1)[:, None]
        self.codes: Any = np.empty(weight.shape, np.int8)
        for start in range(0, len(weight), 4096):  # no second matrix of floats
            rows = slice(start, start + 4096)
            self.codes[rows] = np.rint(weight[rows] / divisor[rows])
        self.bias = bias


class Int8Linear(Int8Matrix):
    def forward(self, x: AnyTensor) -> AnyTensor:
        if not isinstance(x, Tensor):
            from ..torch_ops import int8_linear

            return int8_linear(x, self.codes, self.row_scale, self.bias)
        y = int8_product(self)(x.data.reshape(-1, x.shape[-1]))
        return Tensor(y.reshape(*x.shape[:-1], -1))


class Int8Embedding(Int8Linear):
    """The token table: rows of it for ids, and products with it where it is the head, too."""

    def forward(self, ids: Any) -> AnyTensor:
        codes, scale = self.codes[ids], self.row_scale[ids][..., None]
        if isinstance(scale, Array):
            return Tensor(codes * scale)
        return codes * scale

    def logits(self, h: AnyTensor) -> AnyTensor:
        return Int8Linear.forward(self, h)


class Int8GPT(GPT):
    def logits(self, h: AnyTensor) -> AnyTensor:
        return self.token_embedding.logits(h)  # type: ignore[attr-defined]


class Int8Llama(Llama):
    def logits(self, h: AnyTensor) -> AnyTensor:
        return self.token_embedding.logits(h) if self.head is None else self.head(h)  # type: ignore[attr-defined]


INT8 = {GPT: Int8GPT, Llama: Int8Llama}


def quantize_int8(model: Any) -> Any:
    """Round the matrices of a GPT or Llama on NumPy to 8 bits, in place, and return it. It writes as before (and goes
    to torch by `to_torch`), but cannot be trained or saved.

    Raises ValueError for another model, and for one with adapters (merge them first).
    """
    modules = list(model.named_modules()) if type(model) in INT8 else []
    known = (GPT, Llama, nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)
    if not modules or any(isinstance(m, nn.Linear) and type(m) not in known for _, m in modules):
        raise ValueError(
            f"int8: {type(model).__name__} cannot be rounded: only a GPT or a Llama on NumPy, its adapters merged, can."
        )
    for name, module in modules:
        if type(module) is nn.Linear or name == "token_embedding":
            weight = vars(module).pop("weight")
            small = (Int8Embedding if name == "token_embedding" else Int8Linear)(
                weight.data, getattr(module, "bias", None)
            )
            module.__class__ = type(small)
            vars(module).update(vars(small))
    model.__class__ = INT8[type(model)]
    return model


def int8_product(module: Int8Matrix) -> Callable[[Array], Array]:
    """x (N, in) -> x Wᵀ + b (N, out), a block of rows of W at a time; a large matrix is shared among the cores."""
    codes, scale = module.codes, module.row_scale
    bias = None if module.bias is None else module.bias.data

    def product(x: Array) -> Array:
        y = np.empty((len(x), len(codes)), x.dtype)
        n_cores = (blas_threads() or 1) if codes.size >= SHARED else 1
        side_by_side([partial(multiply, x, codes, y, rows) for rows in shares(len(codes), n_cores)])
        y *= scale
        if bias is not None:
            y += bias
        return y

    return product


def multiply(x: Array, codes: Array, y: Array, own: slice) -> None:
    """y[:, own] = x codes[own]ᵀ."""
    rows = max(1, BLOCK // codes.shape[1])
    wide = np.empty((rows, codes.shape[1]), x.dtype)
    for at in range(own.start, own.stop, rows):
        block = wide[: min(rows, own.stop - at)]
        block[...] = codes[at : at + len(block)]
        if len(x) == 1:
            np.dot(block, x[0], out=y[0, at : at + len(block)])
        else:
            y[:, at : at + len(block)] = x @ block.T
