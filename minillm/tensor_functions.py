"""More methods of a Tensor, as in tensor_methods.py: functions of one number, the largest and smallest, the variance,
and comparisons."""

from __future__ import annotations

import operator
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .tensor_methods import Array, axes

if TYPE_CHECKING:
    from .tensor import Tensor


class Extremes(NamedTuple):
    """What `x.max(dim)`, `x.min(dim)` and `x.topk(k)` return, as in torch: the values and where they stood."""

    values: Tensor
    indices: Array


# --- functions of one number ----------------------------------------------------------------------------------------


def exp(self: Tensor) -> Tensor:
    y = np.exp(self.data)
    return self.from_op(y, (self,), exp_backward, (y,))


def exp_backward(grad: Array, needs: tuple, y: Array) -> tuple:
    """y = eˣ: dL/dx = dL/dy · y."""
    return (grad * y,)


def log(self: Tensor) -> Tensor:
    return self.from_op(np.log(self.data), (self,), log_backward, (self.data,))


def log_backward(grad: Array, needs: tuple, x: Array) -> tuple:
    """y = ln x: dL/dx = dL/dy / x."""
    return (grad / x,)


def sqrt(self: Tensor) -> Tensor:
    y = np.sqrt(self.data)
    return self.from_op(y, (self,), sqrt_backward, (y,))


def sqrt_backward(grad: Array, needs: tuple, y: Array) -> tuple:
    """y = √x: dL/dx = dL/dy / 2y (∞ at x = 0)."""
    return (grad / (2 * y),)


def abs(self: Tensor) -> Tensor:
    return self.from_op(np.abs(self.data), (self,), abs_backward, (self.data,))


def abs_backward(grad: Array, needs: tuple, x: Array) -> tuple:
    """y = |x|: dL/dx = dL/dy · sign x (0 at x = 0, and of NaN, as in torch)."""
    return (grad * np.sign(x, out=np.zeros_like(x), where=~np.isnan(x)),)


def clip(self: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """What is below `min` becomes `min`, what is above `max` becomes `max`; both are Python numbers."""
    if not all(bound is None or isinstance(bound, Real) for bound in (min, max)):
        raise TypeError(f"clip: min and max must be Python numbers or None, not {min!r:.40} and {max!r:.40}.")
    low = self.dtype.type(-np.inf if min is None else min)
    high = self.dtype.type(np.inf if max is None else max)
    inside = (self.data >= low) & (self.data <= high)
    return self.from_op(np.clip(self.data, low, high), (self,), clip_backward, (inside,))


def clip_backward(grad: Array, needs: tuple, inside: Array) -> tuple:
    """y = x between the bounds, both included: dL/dx = dL/dy there; a constant beyond them: 0."""
    return (grad * inside,)


def tanh(self: Tensor) -> Tensor:
    y = np.tanh(self.data)
    return self.from_op(y, (self,), tanh_backward, (y,))


def tanh_backward(grad: Array, needs: tuple, y: Array) -> tuple:
    """y = tanh x: dL/dx = dL/dy · (1 − y²)."""
    return (grad * (1 - y * y),)


def sigmoid(self: Tensor) -> Tensor:
    y = logistic(self.data)
    return self.from_op(y, (self,), sigmoid_backward, (y,))


def sigmoid_backward(grad: Array, needs: tuple, y: Array) -> tuple:
    """y = σ(x): dL/dx = dL/dy · y(1 − y)."""
    return (grad * (y * (1 - y)),)


def logistic(x: Array) -> Array:
    """σ(x) = 1/(1 + e⁻ˣ). Where e⁻ˣ overflows to ∞, 1/∞ = 0 is right. (1 + tanh(x/2))/2 cannot overflow, but loses
    every digit of a small σ(x) ≈ eˣ, so that ln σ(x) would be −∞ from x = −17 on in float32."""
    y = np.asarray(-x)
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    return np.divide(1, y, out=y)


def to(self: Tensor, dtype: Any) -> Tensor:
    """Convert to float32 or float64; the gradient is converted back."""
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"to: the dtype must be float32 or float64, not {dtype}.")
    return self.from_op(self.data.astype(dtype), (self,), to_backward, (self.dtype,))


def to_backward(grad: Array, needs: tuple, dtype: np.dtype) -> tuple:
    """A conversion passes its gradient on, in the precision that it came from."""
    return (grad.astype(dtype),)


# --- largest, smallest, variance ------------------------------------------------------------------------------------


def max(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The largest element as a scalar tensor or, with `dim`, a pair (values, indices), as in torch."""
    if dim is None:
        y = np.asarray(self.data.max())
        return self.from_op(y, (self,), max_backward, (self.data, y))
    if self.ndim == 0 and dim in (0, -1):  # a number has one axis after all, as in torch
        return self.reshape(1).max(0)
    indices = np.expand_dims(self.data.argmax(axis=dim), dim)
    values = np.take_along_axis(self.data, indices, axis=dim)
    if not keepdim:
        values = values.squeeze(dim)
    out = self.from_op(values, (self,), max_dim_backward, (self.shape, indices, dim))
    return Extremes(out, indices if keepdim else indices.squeeze(dim))


def max_backward(grad: Array, needs: tuple, x: Array, y: Array) -> tuple:
    """y = max x: the gradient goes to the largest element, in equal parts if several share the place."""
    winners = x == y
    return (winners * (grad / np.asarray(winners.sum(), dtype=grad.dtype)),)


def max_dim_backward(grad: Array, needs: tuple, shape: tuple, indices: Array, dim: int) -> tuple:
    """y = the largest of one axis, or the k largest: the gradient goes to the elements at `indices`."""
    dx = np.zeros(shape, dtype=grad.dtype)
    np.put_along_axis(dx, indices, grad.reshape(indices.shape), axis=dim)
    return (dx,)


def min(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest element, as `max` gives the largest: min x = −max(−x)."""
    largest = (-self).max(dim, keepdim)
    return -largest if dim is None else Extremes(-largest.values, largest.indices)


def topk(self: Tensor, k: int, dim: int = -1) -> Extremes:
    """The k largest elements along one axis, the largest first, and where they stand."""
    if not 0 <= k <= self.shape[dim]:
        raise ValueError(f"topk: k = {k} must be at most {self.shape[dim]}, the length of axis {dim} of {self.shape}.")
    order = np.argsort(-self.data, axis=dim, kind="stable")
    indices = np.take(order, range(k), axis=dim)
    values = np.take_along_axis(self.data, indices, axis=dim)
    return Extremes(self.from_op(values, (self,), max_dim_backward, (self.shape, indices, dim)), indices)


def var(
    self: Tensor, dim: int | tuple[int, ...] | None = None, *, correction: float = 1, keepdim: bool = False
) -> Tensor:
    """Σ (x − mean)²/(n − correction) over the axes `dim`: correction 1 (the default, as in torch) for a sample, 0 for
    all there is."""
    if not isinstance(correction, Real):
        raise TypeError(f"var: correction must be a number, 1 for a sample or 0 for all there is, not {correction!r}.")
    dim = axes(self.data, dim)
    centred = self.data - self.data.mean(axis=dim, keepdims=True)
    y = np.square(centred).sum(axis=dim, keepdims=keepdim)
    freedom = np.maximum(centred.size / (y.size or 1) - correction, 0.0)  # of nothing to tell it from: NaN, as in torch
    return self.from_op(y / y.dtype.type(freedom), (self,), var_backward, (centred, dim, keepdim, freedom))


def var_backward(grad: Array, needs: tuple, centred: Array, dim: Any, keepdim: bool, freedom: float) -> tuple:
    """y = Σ (xᵢ − μ)²/f: dL/dx = dL/dy · 2 (x − μ)/f. The way through μ adds nothing, since Σ (xᵢ − μ) = 0."""
    if dim is not None and not keepdim:
        grad = np.expand_dims(grad, dim)
    return (centred * (grad * grad.dtype.type(2 / freedom)),)


# --- comparisons: boolean arrays, without a gradient ----------------------------------------------------------------


def compare(self: Tensor, other: Any, how: Callable[[Array, Array], Array]) -> Any:
    """An array of True and False. With what holds no numbers (None, a string) Python is left to decide: == is False,
    < raises TypeError."""
    if not hasattr(other, "dtype") and not isinstance(other, (int, float, list, tuple)):
        return NotImplemented
    return how(self.data, self.operand(other, how.__name__).data)


def eq(self: Tensor, other: Any) -> Any:
    return compare(self, other, operator.eq)


def ne(self: Tensor, other: Any) -> Any:
    return compare(self, other, operator.ne)


def lt(self: Tensor, other: Any) -> Any:
    return compare(self, other, operator.lt)


def le(self: Tensor, other: Any) -> Any:
    return compare(self, other, operator.le)


def gt(self: Tensor, other: Any) -> Any:
    return compare(self, other, operator.gt)


def ge(self: Tensor, other: Any) -> Any:
    return compare(self, other, operator.ge)
