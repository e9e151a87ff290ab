"""The methods of a Tensor, each with its derivative below it: y = x·z, and what dL/dx and dL/dz are, given dL/dy.

A forward computes with NumPy and hands `from_op` four things: the result, the tensors that it came from, the function
that turns the gradient of the result into theirs, and what that function will need to know. Names and meaning are
PyTorch's. In every backward, `grad` is dL/d(output), L the scalar that `backward()` was called on, and `needs[i]` says
whether input i wants a gradient. `tensor.py` lists these functions as the methods of its class. Broadcasting, sums and
the matrix product are derived in chapters/02_autograd.ipynb.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .tensor import Tensor

Array = np.ndarray


class Piece(NamedTuple):
    """The gradient of `x[index]`: `grad` there and zero elsewhere, without an array of x's size for every slice."""

    index: Any
    grad: Array


def unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: an element that was used many times receives the sum of its copies' gradients."""
    if grad.shape == shape:
        return grad
    added = grad.ndim - len(shape)
    stretched = tuple(i + added for i, n in enumerate(shape) if n == 1 and grad.shape[i + added] != 1)
    return grad.sum(axis=tuple(range(added)) + stretched, keepdims=True).reshape(shape)


# --- arithmetic -----------------------------------------------------------------------------------------------------


def add(self: Tensor, other: Any) -> Tensor:
    other = self.operand(other, "add")
    return self.from_op(self.data + other.data, (self, other), add_backward, (self.shape, other.shape))


def radd(self: Tensor, other: Any) -> Tensor:
    return self + other


def add_backward(grad: Array, needs: tuple, a_shape: tuple, b_shape: tuple) -> tuple:
    """y = a + b: dL/da = dL/dy, dL/db = dL/dy."""
    return unbroadcast(grad, a_shape) if needs[0] else None, unbroadcast(grad, b_shape) if needs[1] else None


def sub(self: Tensor, other: Any) -> Tensor:
    other = self.operand(other, "sub")
    return self.from_op(self.data - other.data, (self, other), sub_backward, (self.shape, other.shape))


def rsub(self: Tensor, other: Any) -> Tensor:
    return self.operand(other, "sub") - self


def sub_backward(grad: Array, needs: tuple, a_shape: tuple, b_shape: tuple) -> tuple:
    """y = a − b: dL/da = dL/dy, dL/db = −dL/dy."""
    return unbroadcast(grad, a_shape) if needs[0] else None, unbroadcast(-grad, b_shape) if needs[1] else None


def mul(self: Tensor, other: Any) -> Tensor:
    other = self.operand(other, "mul")
    return self.from_op(self.data * other.data, (self, other), mul_backward, (self.data, other.data))


def rmul(self: Tensor, other: Any) -> Tensor:
    return self * other


def mul_backward(grad: Array, needs: tuple, a: Array, b: Array) -> tuple:
    """y = a·b: dL/da = dL/dy · b, dL/db = dL/dy · a."""
    return unbroadcast(grad * b, a.shape) if needs[0] else None, unbroadcast(grad * a, b.shape) if needs[1] else None


def div(self: Tensor, other: Any) -> Tensor:
    other = self.operand(other, "div")
    y = self.data / other.data
    return self.from_op(y, (self, other), div_backward, (self.shape, other.data, y))


def rdiv(self: Tensor, other: Any) -> Tensor:
    return self.operand(other, "div") / self


def div_backward(grad: Array, needs: tuple, a_shape: tuple, b: Array, y: Array) -> tuple:
    """y = a/b: dL/da = dL/dy / b, dL/db = −dL/dy · y/b (a/b², but b² may overflow, or be 0)."""
    da = unbroadcast(grad / b, a_shape) if needs[0] else None
    db = unbroadcast(-grad * (y / b), b.shape) if needs[1] else None
    return da, db


def neg(self: Tensor) -> Tensor:
    return self.from_op(-self.data, (self,), neg_backward, ())


def neg_backward(grad: Array, needs: tuple) -> tuple:
    """y = −x: dL/dx = −dL/dy."""
    return (-grad,)


def pow(self: Tensor, exponent: float) -> Tensor:
    if not isinstance(exponent, (int, float)):
        raise TypeError(
            f"pow: the exponent must be a Python number, not {type(exponent).__name__}. For a tensor exponent "
            "write (exponent * x.log()).exp()."
        )
    exponent = float(exponent)  # np.float64, a subclass of float, would promote float32
    return self.from_op(power(self.data, exponent), (self,), pow_backward, (self.data, exponent))


def pow_backward(grad: Array, needs: tuple, x: Array, exponent: float) -> tuple:
    """y = xⁿ: dL/dx = dL/dy · n·xⁿ⁻¹ (0 for n = 0, also at x = 0)."""
    if exponent == 0:
        return (np.zeros_like(grad),)
    return (grad * (exponent * power(x, exponent - 1)),)


def power(x: Array, exponent: float) -> Array:
    """x ** exponent, small whole powers by multiplication: np.power takes over ten times as long for x³."""
    if exponent == 2:
        return x * x
    if exponent == 3:
        return x * x * x
    return x**exponent


# --- matrix product -------------------------------------------------------------------------------------------------


def matmul(self: Tensor, other: Any) -> Tensor:
    """(..., n, k) @ (..., k, m) -> (..., n, m); leading axes broadcast."""
    other = self.like(other, "matmul")
    if self.ndim < 2 or other.ndim < 2 or self.shape[-1] != other.shape[-2]:
        raise ValueError(
            f"matmul: {self.shape} @ {other.shape}: each needs at least 2 axes, and the last axis of the left must "
            "equal the second-last of the right. For vectors, reshape to (1, k) or (k, 1)."
        )
    for a, b in zip(reversed(self.shape[:-2]), reversed(other.shape[:-2])):
        if a != b and a != 1 and b != 1:
            raise ValueError(
                f"matmul: {self.shape} @ {other.shape}: all axes but the last two must broadcast, and {a} meets {b}."
            )
    return self.from_op(self.data @ other.data, (self, other), matmul_backward, (self.data, other.data))


def rmatmul(self: Tensor, other: Any) -> Tensor:
    return self.like(other, "matmul") @ self


def matmul_backward(grad: Array, needs: tuple, a: Array, b: Array) -> tuple:
    """y = a b, that is yᵢⱼ = Σₖ aᵢₖ bₖⱼ: dL/da = dL/dy bᵀ and dL/db = aᵀ dL/dy (the shapes allow nothing else)."""
    da = unbroadcast(grad @ b.swapaxes(-1, -2), a.shape) if needs[0] else None
    db = unbroadcast(a.swapaxes(-1, -2) @ grad, b.shape) if needs[1] else None
    return da, db


# --- sums -----------------------------------------------------------------------------------------------------------


def axes(x: Array, dim: Any) -> Any:
    """`dim` in NumPy's words. As in torch, () is all axes, and a number has the axis 0 (or -1), which is all it has."""
    dim = tuple(dim) if isinstance(dim, list) else dim
    return None if dim == () or (x.ndim == 0 and dim in (0, -1, (0,), (-1,))) else dim


def sum(self: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    dim = axes(self.data, dim)
    return self.from_op(
        np.asarray(self.data.sum(axis=dim, keepdims=keepdim)), (self,), sum_backward, (self.shape, dim, keepdim)
    )


def sum_backward(grad: Array, needs: tuple, shape: tuple, dim: int | tuple | None, keepdim: bool) -> tuple:
    """y = Σ xᵢ: every xᵢ receives dL/dy."""
    if dim is not None and not keepdim:
        grad = np.expand_dims(grad, dim)
    return (np.broadcast_to(grad, shape),)


def mean(self: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    total = self.sum(dim, keepdim)
    return total * (total.data.size / self.data.size if self.data.size else math.nan)  # of nothing: NaN, as in torch


# --- shape ----------------------------------------------------------------------------------------------------------


def reshape(self: Tensor, *shape: Any) -> Tensor:
    new = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape  # (2, 3) or 2, 3
    return self.from_op(self.data.reshape(new), (self,), reshape_backward, (self.shape,))


def reshape_backward(grad: Array, needs: tuple, shape: tuple) -> tuple:
    """The same numbers in another shape: shape the gradient back."""
    return (grad.reshape(shape),)


def expand(self: Tensor, *shape: Any) -> Tensor:
    """Axes of length 1 repeated, and new axes in front, up to `shape`, without a copy; −1 leaves an axis as it is."""
    new = tuple(shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape)  # (2, 3) or 2, 3
    old = (None,) * (len(new) - self.ndim) + self.shape
    new = tuple(a if b == -1 and a is not None else b for a, b in zip(old, new))
    if len(old) != len(new) or any(b < 0 or (a is not None and a not in (1, b)) for a, b in zip(old, new)):
        raise ValueError(f"expand: {self.shape} must fit {new}: counted from the right, each axis must be equal or 1.")
    return self.from_op(np.broadcast_to(self.data, new), (self,), expand_backward, (self.shape,))


def expand_backward(grad: Array, needs: tuple, shape: tuple) -> tuple:
    """An element that was repeated receives the sum of its copies' gradients."""
    return (unbroadcast(grad, shape),)


def transpose(self: Tensor, dim0: int, dim1: int) -> Tensor:
    return self.from_op(self.data.swapaxes(dim0, dim1), (self,), transpose_backward, (dim0, dim1))


def transpose_backward(grad: Array, needs: tuple, dim0: int, dim1: int) -> tuple:
    """Axes swapped: swap them back."""
    return (grad.swapaxes(dim0, dim1),)


def permute(self: Tensor, *dims: Any) -> Tensor:
    """All axes in a new order: axis i of the result is axis dims[i] of self."""
    order = tuple(dims[0] if len(dims) == 1 and isinstance(dims[0], Sequence) else dims)  # (2, 0, 1) or 2, 0, 1
    if sorted(dim + self.ndim if dim < 0 else dim for dim in order) != list(range(self.ndim)):
        raise ValueError(f"permute: dims {order} must name each of the {self.ndim} axes of {self.shape} once.")
    return self.from_op(self.data.transpose(order), (self,), permute_backward, (order,))


def permute_backward(grad: Array, needs: tuple, order: tuple[int, ...]) -> tuple:
    """The axes go back to where they were: argsort inverts a permutation."""
    return (grad.transpose(np.argsort([dim % grad.ndim for dim in order])),)


def getitem(self: Tensor, index: Any) -> Tensor:
    parts = index if isinstance(index, tuple) else ()
    numbers = [is_number(part) for part in parts]
    if any(numbers) and not all(number or part is None or part is Ellipsis or isinstance(part, slice)
                                for number, part in zip(numbers, parts)):  # fmt: skip
        # Numbers beside arrays: as in torch, the numbers are taken first. NumPy would count them as arrays, and put
        # the axes of x[0, :, [1, 2]] elsewhere.
        first: list[Any] = []
        for number, part in zip(numbers, parts):
            if number or part is Ellipsis:
                first.append(part)
            elif part is not None:
                mask = np.asarray(part)
                first += [slice(None)] * (mask.ndim if mask.dtype == bool else 1)
        return self[tuple(first)][tuple(part for number, part in zip(numbers, parts) if not number)]
    return self.from_op(self.data[index], (self,), getitem_backward, (index,))


def is_number(part: Any) -> bool:
    """Whether this part of an index picks one place of its axis, and so takes the axis away."""
    if isinstance(part, np.ndarray):
        return part.ndim == 0 and part.dtype.kind in "iu"
    return isinstance(part, (int, np.integer)) and not isinstance(part, bool)


def getitem_backward(grad: Array, needs: tuple, index: Any) -> tuple:
    """y = x[index]: the gradient goes back to where the elements came from, zero elsewhere."""
    return (Piece(index, grad),)
