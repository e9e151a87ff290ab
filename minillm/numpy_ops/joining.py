"""Putting tensors together: cat, stack, where. Each backward hands every input the piece of the gradient that was its
own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..tensor import Array, Tensor
from ..tensor_methods import unbroadcast


def cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    sizes = [t.shape[dim] for t in tensors]
    return Tensor.from_op(
        np.concatenate([t.data for t in tensors], axis=dim), tuple(tensors), cat_backward, (sizes, dim)
    )


def cat_backward(grad: Array, needs: tuple, sizes: list[int], dim: int) -> tuple:
    return tuple(np.split(grad, np.cumsum(sizes)[:-1], axis=dim))


def stack(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return Tensor.from_op(np.stack([t.data for t in tensors], axis=dim), tuple(tensors), stack_backward, (dim,))


def stack_backward(grad: Array, needs: tuple, dim: int) -> tuple:
    return tuple(np.moveaxis(grad, dim, 0))


def where(condition: Array, a: Tensor | float, b: Tensor | float) -> Tensor:
    condition = np.asarray(condition)
    if condition.dtype != bool:
        raise TypeError(f"where: condition must be boolean, not {condition.dtype}: write what is asked, such as x > 0.")
    a = a if isinstance(a, Tensor) else b.like(a, "where")  # type: ignore[union-attr]
    b = a.like(b, "where")
    return Tensor.from_op(np.where(condition, a.data, b.data), (a, b), where_backward, (condition, a.shape, b.shape))


def where_backward(grad: Array, needs: tuple, condition: Array, a_shape: tuple, b_shape: tuple) -> tuple:
    zero = grad.dtype.type(0)
    return unbroadcast(np.where(condition, grad, zero), a_shape), unbroadcast(np.where(condition, zero, grad), b_shape)
