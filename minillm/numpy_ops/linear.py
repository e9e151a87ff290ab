"""The two ops that hold nearly all parameters: a matrix product with a bias, and a look-up in a table."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Array, Tensor

# y = x Wᵀ + b, with x (N, in), W (out, in), b (out,): yₙₒ = Σᵢ xₙᵢ Wₒᵢ + bₒ; derived in chapters/02_autograd.ipynb:
#   dL/dxₙᵢ = Σₒ dL/dyₙₒ Wₒᵢ      dL/dx = dL/dy W      (N, out)(out, in)
#   dL/dWₒᵢ = Σₙ dL/dyₙₒ xₙᵢ      dL/dW = (dL/dy)ᵀ x   (out, N)(N, in)
#   dL/dbₒ  = Σₙ dL/dyₙₒ          since b was broadcast over the rows
# Leading axes (batch, time) are flattened into N: one large product is much faster than many small ones.


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, found: Array | None = None) -> Tensor:
    weight = x.like(weight, "linear")
    x2 = x.data.reshape(math.prod(x.shape[:-1]), weight.shape[1])  # (N, in); −1 could not be told for 0 features
    y = x2 @ weight.data.T if found is None else found  # (N, out), found by an earlier pass: engines/recompute.py
    if bias is not None and found is None:
        y += bias.data
    y = y.reshape(*x.shape[:-1], weight.shape[0])  # (..., out)
    parents = (x, weight) if bias is None else (x, weight, bias)
    return Tensor.from_op(y, parents, linear_backward, (x2, weight.data, x.shape))


def linear_backward(grad: Array, needs: tuple, x2: Array, weight: Array, x_shape: tuple) -> tuple:
    grad2 = grad.reshape(len(x2), weight.shape[0])  # (N, out)
    dx = (grad2 @ weight).reshape(x_shape) if needs[0] else None
    dweight = grad2.T @ x2 if needs[1] else None  # (out, in)
    if len(needs) == 2:
        return dx, dweight
    dbias = grad2.sum(axis=0) if needs[2] else None
    return dx, dweight, dbias


# y = W[ids]: row idsₙ of the table W (V, D). Row v was used wherever idsₙ = v, so dL/dWᵥ = Σ over those n of dL/dyₙ.


def embedding(ids: Array, weight: Tensor) -> Tensor:
    ids = np.asarray(ids)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: ids must be integers, not {ids.dtype}.")
    check_ids(ids, weight.shape[0])
    return Tensor.from_op(weight.data[ids], (weight,), embedding_backward, (ids, weight.shape))  # (*ids.shape, D)


def check_ids(ids: Array, n_rows: int) -> None:
    """Raise IndexError for ids that a table of so many rows does not have. PyTorch's own error names none, and on a GPU
    it comes late and ends the process: where ids are still arrays, they are looked at before."""
    if ids.size and (ids.min() < 0 or ids.max() >= n_rows):
        bad = ids[(ids < 0) | (ids >= n_rows)].flat[0]
        raise IndexError(
            f"embedding: id {bad} is outside the table of {n_rows} rows (ids 0 to {n_rows - 1}). "
            "Was the text encoded with another tokenizer than the model's?"
        )


def embedding_backward(grad: Array, needs: tuple, ids: Array, shape: tuple) -> tuple:
    dweight = np.zeros(shape, dtype=grad.dtype)
    rows = grad.reshape(ids.size, shape[1])
    # A loop: `dweight[ids] += rows` would drop repeated ids, and np.add.at is several times slower than this.
    for i, row in zip(ids.ravel().tolist(), rows):
        dweight[i] += row
    return (dweight,)
