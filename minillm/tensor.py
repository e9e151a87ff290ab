"""The Tensor: an array that remembers how it was computed, so that `backward()` can find gradients.

Every operation makes a new Tensor and, when a gradient will be wanted, a `Node` that records three things: what it was
computed from (its parents), the arrays its derivative needs, and the function that turns the gradient of the result
into the gradients of the parents. `backward()` walks those nodes from the loss to the leaves, each once,
each after everything that was computed from it (reverse topological order), and applies the chain rule.

The method names and their meaning are PyTorch's, so that a model reads the same on both engines. What each computes,
and its derivative, stands in tensor_methods.py (arithmetic, products, sums, shapes) and tensor_functions.py (the rest);
this file is the graph, which chapters/02_autograd.ipynb builds up from a single number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import tensor_functions as functions
from . import tensor_methods as methods
from .debug import Frozen, watching
from .tensor_methods import Array, Piece

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)  # switched off by no_grad()


class Node:
    """One step of the computation. It holds its saved arrays and its parents: leaves as they are, results by their
    nodes, so that an array that no derivative needs is gone with its last user. It never holds its own output: that
    would make a reference cycle, and memory would wait for the garbage collector."""

    __slots__ = ("backward", "dtype", "frozen", "needs", "parents", "saved", "shape")

    def __init__(self, data: Array, parents: tuple[Tensor, ...], backward: Callable[..., tuple], saved: tuple) -> None:
        self.shape, self.dtype = data.shape, data.dtype  # of the result
        self.parents: tuple[Tensor | Node, ...] = tuple(p.node or p for p in parents)
        self.backward = backward
        self.saved: Iterable | None = saved
        self.needs = tuple(p.requires_grad for p in parents)  # which parents want a gradient
        self.frozen: Frozen | None = None  # arrays that debug_mode() made read-only

    def free(self) -> None:
        """Forget parents and saved arrays, so that memory shrinks while the backward pass is still running."""
        self.parents, self.saved, self.frozen = (), None, None


class Tensor:
    """A float32 or float64 array with a gradient.

    `data` is the ndarray; `grad` is None or an ndarray of the same shape and dtype; `requires_grad` says whether
    gradients should reach this tensor. Lists and integers become float32; anything else that is not float32 or
    float64 raises TypeError.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad")
    __array_ufunc__ = None  # makes `ndarray * Tensor` call Tensor.__rmul__, instead of NumPy looping over elements

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if isinstance(data, Tensor):
            raise TypeError(
                "Tensor(data): data is already a Tensor. Use it as it is, or data.detach() for a copy of the handle."
            )
        array = np.asarray(data)
        if array.dtype not in FLOATS:
            if array.dtype.kind not in "iubf" or (isinstance(data, np.ndarray) and array.dtype.kind == "f"):
                raise TypeError(
                    f"Tensor(data): the dtype must be float32 or float64, not {array.dtype}: data.astype(np.float32)."
                )
            array = array.astype(np.float32)
        elif not isinstance(data, (np.ndarray, np.generic)):
            array = array.astype(np.float32)  # a Python list or float: float32, as torch does
        self.data: Array = array
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self.node: Node | None = None

    @staticmethod
    def from_op(data: Array, parents: tuple[Tensor, ...], backward: Callable[..., tuple], saved: tuple) -> Tensor:
        """The result of an operation: `data`, and a Node if any parent wants a gradient.

        `backward(grad, needs, *saved)` returns one array (or None) per parent; `needs[i]` is False where parent i
        wants none, so that its gradient need not be computed.
        """
        out = Tensor.__new__(Tensor)
        if not isinstance(data, np.ndarray):
            data = np.asarray(data)  # NumPy turns results without axes into scalars
        for p in parents:
            if p.data.dtype != data.dtype and backward is not functions.to_backward:
                name = backward.__name__.removesuffix("_backward")
                raise TypeError(
                    f"{name}: inputs {', '.join(f'{p.dtype}{p.shape}' for p in parents)} gave {data.dtype}. All must "
                    "be of one precision, float32 or float64 (constants too: NumPy promotes float32 times "
                    "np.float64(2) to float64). Convert with .to() or .astype()."
                )
        out.data, out.grad, out.node, out.requires_grad = data, None, None, False
        if records_graph(*parents):
            out.requires_grad = True
            out.node = Node(data, parents, backward, saved)
            for watch in watching.get():
                watch(out.node)
        return out

    def backward(self, grad: Array | Tensor | None = None, retain_graph: bool = False) -> None:
        """Add dL/dx to `x.grad` of every leaf x that this tensor L was computed from.

        `grad` is dL/d(self), 1.0 when self is a scalar. Gradients add up over several calls (that is how batches
        are accumulated): set `.grad = None` between steps. The graph is freed on the way, unless `retain_graph`.
        """
        grad = grad.data if isinstance(grad, Tensor) else grad
        if not self.requires_grad:
            raise RuntimeError(
                "backward(): this tensor does not require a gradient: it was computed from no parameter, or under "
                "no_grad()."
            )
        if grad is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"backward(): the tensor has shape {self.shape}; only a scalar has a gradient of 1. Reduce it "
                    "(.sum(), .mean()) or pass grad=."
                )
            grad = np.ones_like(self.data)
        elif not isinstance(grad, np.ndarray) or grad.shape != self.shape or grad.dtype != self.dtype:
            grad = np.asarray(grad)
            raise ValueError(
                f"backward(grad): grad {grad.dtype}{grad.shape} must be {self.dtype}{self.shape}, like the tensor."
            )
        if self.node is None:
            self.grad = grad.copy() if self.grad is None else self.grad + grad
            return

        grads: dict[int, Array] = {id(self.node): grad}  # node -> sum of the gradients that have reached it so far
        owned: set[int] = set()  # nodes and leaves whose sum is an array made here, so that it may be added to in place
        order = topological_order(self.node)
        while order:
            node = order.pop()
            grad = grads.pop(id(node))
            if node.saved is None:
                raise RuntimeError(
                    "backward(): this graph was already freed by an earlier backward(). Compute the loss again, or "
                    "pass retain_graph=True the first time."
                )
            parent_grads = node.backward(grad, node.needs, *node.saved)
            for i, (parent, g) in enumerate(zip(node.parents, parent_grads)):
                if not node.needs[i]:
                    continue
                if isinstance(parent, Node):  # an inner result: sum up until its own turn comes
                    key = id(parent)
                    grads[key] = add_gradient(grads.get(key), g, parent, key, owned)
                else:  # a leaf: its own array, not a view and not one that another tensor holds too
                    first = parent.grad is None and not isinstance(g, Piece)
                    if first and (g is grad or g.base is not None or any(g is other for other in parent_grads[:i])):
                        g = g.copy()
                    parent.grad = add_gradient(parent.grad, g, parent, id(parent), owned)
            if not retain_graph:
                node.free()

    # --- a few things to ask a tensor ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    def item(self) -> float:
        """The value of a one-element tensor as a Python float."""
        return self.data.item()

    def numpy(self) -> Array:
        """The array itself (no copy)."""
        return self.data

    def detach(self) -> Tensor:
        """The same array, cut off from the graph."""
        return Tensor(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)  # of one element; NumPy raises for more: any or all?

    def __repr__(self) -> str:
        values = np.array2string(self.data, precision=4, threshold=20, separator=", ", prefix="Tensor(")
        origin = f", from {self.node.backward.__name__.removesuffix('_backward').strip('_')}" if self.node else ""
        return f"Tensor({values}, {self.dtype}{', requires_grad' if self.requires_grad else ''}{origin})"

    def like(self, other: Any, op: str) -> Tensor:
        """`other` as a Tensor of this tensor's dtype: the right-hand side of the operation named `op`.

        Python and NumPy scalars and integer arrays take self's dtype. A float array of another precision raises:
        NumPy would promote the whole network to float64 without a word.
        """
        if not isinstance(other, Tensor):
            array = np.asarray(other)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{op}: {other!r} must be a number, an array of numbers or a Tensor.")
            if array.ndim == 0 or array.dtype.kind != "f":
                return Tensor(array.astype(self.dtype))
            other = Tensor(array)
        if other.dtype != self.dtype:
            raise TypeError(
                f"{op}: both must be of one precision, not {self.dtype} and {other.dtype}. Convert one, with .to() or "
                ".astype(): silent promotion would slow down everything after it."
            )
        return other

    def operand(self, other: Any, op: str) -> Tensor:
        """`like`, and the shapes checked for an elementwise operation."""
        other = self.like(other, op)
        for a, b in zip(reversed(self.shape), reversed(other.shape)):
            if a != b and a != 1 and b != 1:
                raise ValueError(
                    f"{op}: shapes {self.shape} and {other.shape} must broadcast: counted from the right, each pair "
                    f"of axes must be equal or contain a 1, and {a} meets {b}."
                )
        return other

    # --- what a tensor can do: each function stands in its file, its derivative below it -----------------------------

    __add__, __radd__ = methods.add, methods.radd
    __sub__, __rsub__ = methods.sub, methods.rsub
    __mul__, __rmul__ = methods.mul, methods.rmul
    __truediv__, __rtruediv__ = methods.div, methods.rdiv
    __neg__ = methods.neg
    __pow__ = methods.pow
    __matmul__, __rmatmul__ = methods.matmul, methods.rmatmul
    __getitem__ = methods.getitem
    sum, mean = methods.sum, methods.mean
    reshape, expand = methods.reshape, methods.expand
    transpose, permute = methods.transpose, methods.permute
    exp, log, sqrt = functions.exp, functions.log, functions.sqrt
    tanh, sigmoid = functions.tanh, functions.sigmoid
    abs = __abs__ = functions.abs
    clip = functions.clip
    max, min, var, topk = functions.max, functions.min, functions.var, functions.topk
    to = functions.to
    __eq__, __ne__ = functions.eq, functions.ne
    __lt__, __le__, __gt__, __ge__ = functions.lt, functions.le, functions.gt, functions.ge
    __hash__ = object.__hash__  # by identity, although == compares numbers: tensors may be keys, as in torch


class Parameter(Tensor):
    """A Tensor that a Module owns and an optimizer changes: a leaf with `requires_grad=True`."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


# --- the graph ------------------------------------------------------------------------------------------------------


def add_gradient(total: Array | None, g: Array | Piece, tensor: Tensor | Node, key: int, owned: set[int]) -> Array:
    """total + g for one tensor. Gradients that came in may be shared with other tensors and are never written to; a
    sum that was made here belongs to us (`key` is in `owned`) and is added to in place."""
    if isinstance(g, Piece):
        if total is None:
            total = np.zeros(tensor.shape, dtype=tensor.dtype)
        elif key not in owned:
            total = total.copy()
        owned.add(key)
        parts = g.index if isinstance(g.index, tuple) else (g.index,)
        once = (int, np.integer, slice, type(None), type(Ellipsis))  # and boolean masks: what takes no element twice
        if all(isinstance(part, once) or (isinstance(part, np.ndarray) and part.dtype == bool) for part in parts):
            total[g.index] += g.grad
        else:  # other arrays and sequences may: `total[index] += grad` would add once
            np.add.at(total, g.index, g.grad)
        return total
    if g.shape != tensor.shape or g.dtype != tensor.dtype:
        raise AssertionError(
            f"the gradient {g.dtype}{g.shape} that a backward returned must be {tensor.dtype}{tensor.shape}."
        )
    if total is None:
        return g if isinstance(g, np.ndarray) else np.asarray(g)
    if key in owned:
        total += g
        return total
    owned.add(key)
    return np.asarray(total + g)


def topological_order(root: Node) -> list[Node]:
    """Every node that `root` was computed from, parents before children, `root` last.

    Depth-first with an explicit stack: recursion would fail at Python's limit of about 1,000 frames, which an
    unrolled recurrent network reaches.
    """
    order: list[Node] = []
    visited = {id(root)}
    stack: list[tuple[Node, Iterator[Tensor | Node]]] = [(root, iter(root.parents))]
    while stack:
        node, parents = stack[-1]
        for parent in parents:
            if isinstance(parent, Node) and id(parent) not in visited:
                visited.add(id(parent))
                stack.append((parent, iter(parent.parents)))
                break
        else:  # all parents are placed: now the node itself
            order.append(node)
            stack.pop()
    return order


def records_graph(*parents: Tensor) -> bool:
    """Whether the result of an operation on these tensors will have a Node, and so need saved arrays."""
    return grad_enabled.get() and any(p.requires_grad for p in parents)


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside, operations record no graph: less memory where no gradient is wanted, as in evaluation. It holds for this
    thread: another may train meanwhile (one that is handed a copy of this context inherits it)."""
    before = grad_enabled.get()
    grad_enabled.set(False)
    try:
        yield
    finally:
        grad_enabled.set(before)
