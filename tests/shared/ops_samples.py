"""One entry for every op of minillm.ops and every differentiable method of Tensor: what to call it with, and what to
expect.

An entry has no optional field, and test_ops.py runs every check on every entry, so that an op cannot be added without
finite differences, PyTorch's value and gradient, dtype preservation, a freed graph and a composed twin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch_references as reference
import twins
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from minillm import ops
from minillm.tensor import Tensor


class Call(NamedTuple):
    """One call: the differentiable inputs (float64) by position, everything else by name."""

    inputs: list[np.ndarray]
    options: dict[str, Any]


class Entry(NamedTuple):
    ours: Callable[..., Any]  # on Tensors
    torch: Callable[..., Any]  # the same on torch tensors
    twin: Callable[..., Any] | None  # composed from other methods; None for the primitives that twins are made of
    calls: st.SearchStrategy[Call]


def tensors_first(op: Callable, *names: str) -> Callable:
    """An op whose tensors are passed by these names."""

    def call(*tensors, **options):
        return op(**dict(zip(names, tensors)), **options)

    return call


def listed(op: Callable) -> Callable:
    """An op that takes its tensors as one list."""

    def call(*tensors, **options):
        return op(list(tensors), **options)

    return call


# --- inputs ---------------------------------------------------------------------------------------------------------

sides = st.integers(1, 4)


@st.composite
def values(draw, shape, *, low=None, spread=1.0):
    """Normal numbers, no two alike; with `low`, uniform in low..low+spread."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.asarray(spread * rng.standard_normal(shape) if low is None else low + spread * rng.random(shape))


@st.composite
def integers(draw, shape, below):
    return np.asarray(np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, below, shape))


@st.composite
def booleans(draw, shape, share=None):
    share = draw(st.sampled_from([0.2, 0.5, 0.8])) if share is None else share
    return np.asarray(np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random(shape) < share)


@st.composite
def pair(draw, low=None):
    """Two inputs whose shapes broadcast, axes of length 0 and scalars included."""
    a, b = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=4)).input_shapes
    return Call([draw(values(a)), draw(values(b, low=low))], {})


@st.composite
def single(draw, *, low=None, spread=1.0, options=None):
    shape = draw(array_shapes(min_dims=0, max_dims=4, max_side=4))
    chosen = {} if options is None else {name: draw(choice) for name, choice in options.items()}
    return Call([draw(values(shape, low=low, spread=spread))], chosen)


@st.composite
def along_axis(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=4, max_side=5))
    return Call([draw(values(shape, spread=3.0))], {"dim": draw(st.integers(-len(shape), len(shape) - 1))})


@st.composite
def reductions(draw, several_axes=True):
    shape = draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    axis = st.integers(-len(shape), len(shape) - 1)
    some = st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True).map(tuple)
    dim = draw(st.one_of(st.none(), axis, some) if several_axes else st.one_of(st.none(), axis))
    keepdim = draw(st.booleans()) if dim is not None else False
    return Call([draw(values(shape))], {"dim": dim, "keepdim": keepdim})


@st.composite
def matrices(draw):
    n, k, m = draw(sides), draw(sides), draw(sides)
    a, b = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    return Call([draw(values((*a, n, k))), draw(values((*b, k, m)))], {})


@st.composite
def reshapes(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    axis = draw(st.integers(0, len(shape) - 1))
    merged = (*shape[:axis], -1, *shape[axis + 2 :])
    return Call([draw(values(shape))], {"shape": draw(st.sampled_from([(-1,), merged, (*shape, 1)]))})


@st.composite
def transposes(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    axis = st.integers(-len(shape), len(shape) - 1)
    return Call([draw(values(shape))], {"dim0": draw(axis), "dim1": draw(axis)})


@st.composite
def rankings(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=5))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    return Call([draw(values(shape, spread=3.0))], {"k": draw(st.integers(1, shape[dim])), "dim": dim})


@st.composite
def permutations(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    order = draw(st.permutations(range(len(shape))))
    return Call(
        [draw(values(shape))], {"dims": tuple(axis - len(shape) if draw(st.booleans()) else axis for axis in order)}
    )


@st.composite
def expansions(draw):
    """Some axes of the result were of length 1 before, some in front are new, some are said to stay (-1)."""
    full = draw(array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    new = draw(st.integers(0, len(full) - 1))
    shape = [draw(st.sampled_from([1, n])) for n in full[new:]]
    wanted = [-1 if n == m and draw(st.booleans()) else m for n, m in zip(shape, full[new:])]
    return Call([draw(values(tuple(shape)))], {"shape": (*full[:new], *wanted)})


@st.composite
def clips(draw):
    low, high = draw(st.sampled_from([(-0.5, 0.5), (None, 0.3), (-0.3, None), (0.5, -0.5)]))
    return Call(draw(single()).inputs, {"min": low, "max": high})


@st.composite
def variances(draw):
    call = draw(reductions())
    x, dim = call.inputs[0], call.options["dim"]
    axes = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    n = np.prod([x.shape[axis] for axis in axes])
    return Call([x], {**call.options, "correction": draw(st.sampled_from([c for c in (0, 0.5, 1, 2) if c < n]))})


@st.composite
def items(draw):
    rows, columns = draw(st.integers(2, 5)), draw(st.integers(2, 5))
    repeated = np.array([rows - 1, 0, rows - 1, 1])
    index = draw(
        st.sampled_from([
            0, -1, slice(1, None), slice(None, None, 2), (Ellipsis, 1), (slice(None), slice(0, 1)), (slice(None),
            None, 0),
            repeated, repeated.tolist(), (repeated, slice(1, None)), (slice(None), np.array([[0, 1], [1, 1]])),
            (repeated, np.array([1, 0, 1, 1])), np.arange(rows) % 2 == 0, (1, repeated.clip(0, 1)), np.array(1),
        ])
    )  # fmt: skip
    return Call([draw(values((rows, columns, 2)))], {"index": index})


@st.composite
def linears(draw):
    lead = draw(array_shapes(min_dims=0, max_dims=3, max_side=3))
    n_in, n_out = draw(sides), draw(sides)
    inputs = [draw(values((*lead, n_in))), draw(values((n_out, n_in)))]
    return Call(inputs + ([draw(values((n_out,)))] if draw(st.booleans()) else []), {})


@st.composite
def embeddings(draw):
    rows, d = draw(st.integers(1, 6)), draw(sides)
    shape = draw(array_shapes(min_dims=0, max_dims=3, max_side=5))
    return Call([draw(values((rows, d)))], {"ids": draw(integers(shape, rows))})


@st.composite
def norms(draw, bias):
    lead = draw(array_shapes(min_dims=0, max_dims=3, max_side=3))
    d = draw(st.integers(2, 6))
    inputs = [draw(values((*lead, d))), draw(values((d,)))]
    return Call(
        inputs + ([draw(values((d,)))] if bias and draw(st.booleans()) else []),
        {"eps": draw(st.sampled_from([1e-5, 0.1]))},
    )


@st.composite
def two_alike(draw, options=None):
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=4))
    chosen = {} if options is None else {name: draw(choice) for name, choice in options.items()}
    return Call([draw(values(shape)), draw(values(shape))], chosen)


@st.composite
def dropouts(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=4))
    return Call([draw(values(shape))], {"p": draw(st.sampled_from([0.1, 0.5])), "mask": draw(booleans(shape))})


@st.composite
def attentions(draw):
    batch, kv_heads, group, d = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(sides)
    t_q, t_k, d_v = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(sides)
    packed = draw(st.booleans())
    t_k = t_q if packed else t_k
    heads = kv_heads * group
    inputs = [
        draw(values((batch, heads, t_q, d))),
        draw(values((batch, kv_heads, t_k, d))),
        draw(values((batch, kv_heads, t_k, d_v))),
    ]
    options: dict[str, Any] = {"causal": draw(st.booleans())}
    if options["causal"] and draw(st.booleans()):
        options["window"] = draw(st.integers(1, 6))
    if packed:
        options["segments"] = draw(integers((batch, t_q), 3))
    elif draw(st.booleans()):
        full = (batch, heads, t_q, t_k)
        shape = [n if draw(st.booleans()) else 1 for n in full]
        options["mask"] = draw(
            booleans(tuple(shape[draw(st.integers(0, 3)) :]) if draw(st.booleans()) else tuple(shape))
        )
    if draw(st.booleans()):
        options["scale"] = draw(st.sampled_from([0.3, 2.0]))
    return Call(inputs + ([draw(values((heads,)))] if draw(st.booleans()) else []), options)


@st.composite
def ropes(draw):
    batch, heads, length, half = draw(sides), draw(sides), draw(sides), draw(st.integers(1, 3))
    places = np.arange(length)  # the same in every row, or not
    if draw(st.booleans()):
        places = draw(integers((batch, 1, length), 4))
    angle = places[..., None] * draw(values((half,), low=0.1))
    return Call([draw(values((batch, heads, length, 2 * half)))], {"cos": np.cos(angle), "sin": np.sin(angle)})


@st.composite
def lstms(draw, sequence=False):
    batch, n_in, n = draw(sides), draw(sides), draw(sides)
    steps = (draw(sides),) if sequence else ()
    shapes = [(batch, *steps, n_in), (batch, n), (batch, n), (4 * n, n_in), (4 * n, n)]
    shapes += [(4 * n,), (4 * n,)] if draw(st.booleans()) else []
    return Call([draw(values(shape)) for shape in shapes], {})


@st.composite
def classifications(draw, linear=False):
    lead = draw(array_shapes(min_dims=0, max_dims=3, max_side=4))
    classes = draw(st.integers(1, 6))
    targets = draw(integers(lead, classes))
    ignore_index = draw(st.sampled_from([-100, 0]))
    ignored = draw(booleans(lead, 0.3))
    if targets.size > 1:
        ignored.flat[0] = False
        targets.flat[0] = classes - 1
    if targets.size > 1 and (classes > 1 or ignore_index < 0):
        targets = np.where(ignored, ignore_index, targets)
    else:
        ignore_index = -100
    options = {
        "targets": targets, "ignore_index": ignore_index,
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
    }  # fmt: skip
    if not linear:
        return Call([draw(values((*lead, classes), spread=2.0))], options)
    d = draw(sides)
    return Call([draw(values((*lead, d))), draw(values((classes, d)))], options)


@st.composite
def yes_no(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=4))
    target = draw(booleans(shape)).astype(np.float64) if draw(st.booleans()) else draw(values(shape, low=0.0))
    return Call(
        [draw(values(shape, spread=3.0))], {"target": target, "reduction": draw(st.sampled_from(["mean", "sum"]))}
    )


@st.composite
def cats(draw):
    shape = list(draw(array_shapes(min_dims=1, max_dims=3, max_side=3)))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    inputs = []
    for _ in range(draw(st.integers(1, 3))):
        shape[dim] = draw(st.integers(1, 3))
        inputs.append(draw(values(tuple(shape))))
    return Call(inputs, {"dim": dim})


@st.composite
def stacks(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=3))
    n = draw(st.integers(1, 3))
    return Call([draw(values(shape)) for _ in range(n)], {"dim": draw(st.integers(-len(shape) - 1, len(shape)))})


@st.composite
def wheres(draw):
    a, b, c = draw(mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=4)).input_shapes
    return Call([draw(values(a)), draw(values(b))], {"condition": draw(booleans(c))})


# --- the entries ----------------------------------------------------------------------------------------------------

reduction = st.sampled_from(["mean", "sum"])

OPS: dict[str, Entry] = {
    "attention": Entry(
        tensors_first(ops.attention, "q", "k", "v", "sinks"), reference.attention, twins.attention, attentions()
    ),
    "binary_cross_entropy_with_logits": Entry(
        ops.binary_cross_entropy_with_logits,
        reference.binary_cross_entropy_with_logits,
        twins.binary_cross_entropy_with_logits,
        yes_no(),
    ),
    "cat": Entry(listed(ops.cat), reference.cat, twins.cat, cats()),
    "cross_entropy": Entry(ops.cross_entropy, reference.cross_entropy, twins.cross_entropy, classifications()),
    "dropout": Entry(ops.dropout, reference.dropout, twins.dropout, dropouts()),
    "embedding": Entry(tensors_first(ops.embedding, "weight"), reference.embedding, twins.embedding, embeddings()),
    "gelu": Entry(
        ops.gelu,
        reference.gelu,
        twins.gelu,
        single(spread=2.0, options={"approximate": st.sampled_from(["none", "tanh"])}),
    ),
    "layer_norm": Entry(ops.layer_norm, reference.layer_norm, twins.layer_norm, norms(bias=True)),
    "linear": Entry(ops.linear, reference.linear, twins.linear, linears()),
    "linear_cross_entropy": Entry(
        ops.linear_cross_entropy,
        reference.linear_cross_entropy,
        twins.linear_cross_entropy,
        classifications(linear=True),
    ),
    "log_sigmoid": Entry(ops.log_sigmoid, reference.log_sigmoid, twins.log_sigmoid, single(spread=2.0)),
    "log_softmax": Entry(ops.log_softmax, reference.log_softmax, twins.log_softmax, along_axis()),
    "lstm": Entry(ops.lstm, reference.lstm, twins.lstm, lstms(sequence=True)),
    "lstm_cell": Entry(ops.lstm_cell, reference.lstm_cell, twins.lstm_cell, lstms()),
    "mse_loss": Entry(ops.mse_loss, reference.mse_loss, twins.mse_loss, two_alike({"reduction": reduction})),
    "relu": Entry(ops.relu, reference.relu, twins.relu, single(spread=2.0)),
    "rms_norm": Entry(ops.rms_norm, reference.rms_norm, twins.rms_norm, norms(bias=False)),
    "rope": Entry(ops.rope, reference.rope, twins.rope, ropes()),
    "silu": Entry(ops.silu, reference.silu, twins.silu, single(spread=2.0)),
    "softmax": Entry(ops.softmax, reference.softmax, twins.softmax, along_axis()),
    "stack": Entry(listed(ops.stack), reference.stack, twins.stack, stacks()),
    "swiglu": Entry(ops.swiglu, reference.swiglu, twins.swiglu, two_alike()),
    "where": Entry(tensors_first(ops.where, "a", "b"), reference.where, twins.where, wheres()),
}


def reflected(name: str) -> Callable:
    """b.__rsub__(a) for Python's a - b, as it is called when a is a constant on the left."""

    def call(a, b):
        return getattr(Tensor, name)(b, a)

    return call


def reshape(x, *, shape):
    return x.reshape(shape)


def ranked(x, *, k, dim):
    """No two elements alike: which of two the gradient goes to is nowhere said."""
    return (x + np.arange(x.data.size).reshape(x.shape).astype(x.dtype) * 0.01).topk(k, dim).values


def power(x, *, exponent):
    return x**exponent


def converted(x):
    """To its own precision: finite differences would drown in the digits that float32 drops (test_tensor.py
    converts)."""
    return x.to(x.dtype)


def expand(x, *, shape):
    return x.expand(*shape)


def permute(x, *, dims):
    return x.permute(*dims)


def getitem(x, *, index):
    return x[index]


def largest(x, *, dim, keepdim):
    return x.max() if dim is None else x.max(dim, keepdim).values


def smallest(x, *, dim, keepdim):
    return x.min() if dim is None else x.min(dim, keepdim).values


exponents = st.sampled_from([0, 1, 2, 3, 4, -1, -2, 0.5, -0.5, 2.5])

METHODS: dict[str, Entry] = {
    "__add__": Entry(Tensor.__add__, reference.add, None, pair()),
    "__radd__": Entry(reflected("__radd__"), reference.add, None, pair()),
    "__sub__": Entry(Tensor.__sub__, reference.sub, twins.sub, pair()),
    "__rsub__": Entry(reflected("__rsub__"), reference.sub, twins.sub, pair()),
    "__mul__": Entry(Tensor.__mul__, reference.mul, None, pair()),
    "__rmul__": Entry(reflected("__rmul__"), reference.mul, None, pair()),
    "__truediv__": Entry(Tensor.__truediv__, reference.div, twins.div, pair(low=0.5)),
    "__rtruediv__": Entry(reflected("__rtruediv__"), reference.div, twins.div, pair(low=0.5)),
    "__neg__": Entry(Tensor.__neg__, reference.neg, lambda x: x * -1.0, single()),
    "__pow__": Entry(power, reference.power, twins.power, single(low=0.5, options={"exponent": exponents})),
    "exp": Entry(Tensor.exp, reference.exp, None, single()),
    "log": Entry(Tensor.log, reference.log, None, single(low=0.2)),
    "sqrt": Entry(Tensor.sqrt, reference.sqrt, lambda x: twins.power(x, exponent=0.5), single(low=0.2)),
    "abs": Entry(Tensor.abs, reference.absolute, lambda x: x * np.sign(x.data), single()),
    "__abs__": Entry(abs, reference.absolute, lambda x: x * np.sign(x.data), single()),
    "clip": Entry(Tensor.clip, reference.clip, twins.clip, clips()),
    "tanh": Entry(Tensor.tanh, reference.tanh, twins.tanh, single()),
    "sigmoid": Entry(Tensor.sigmoid, reference.sigmoid, twins.sigmoid, single()),
    "to": Entry(converted, reference.same, lambda x: x * 1.0, single()),
    "__matmul__": Entry(Tensor.__matmul__, reference.matmul, twins.matmul, matrices()),
    "__rmatmul__": Entry(reflected("__rmatmul__"), reference.matmul, twins.matmul, matrices()),
    "sum": Entry(Tensor.sum, reference.summed, twins.summed, reductions()),
    "mean": Entry(Tensor.mean, reference.mean, twins.mean, reductions()),
    "max": Entry(largest, reference.largest, twins.largest, reductions(several_axes=False)),
    "min": Entry(smallest, reference.smallest, twins.smallest, reductions(several_axes=False)),
    "topk": Entry(ranked, reference.ranked, twins.ranked, rankings()),
    "var": Entry(Tensor.var, reference.var, twins.var, variances()),
    "expand": Entry(expand, reference.expand, twins.expand, expansions()),
    "permute": Entry(permute, reference.permute, twins.permute, permutations()),
    "reshape": Entry(reshape, reference.reshape, None, reshapes()),
    "transpose": Entry(Tensor.transpose, reference.transpose, None, transposes()),
    "__getitem__": Entry(getitem, reference.getitem, None, items()),
}

PRIMITIVES = {"__add__", "__radd__", "__mul__", "__rmul__", "exp", "log", "reshape", "transpose", "__getitem__"}

NOT_DIFFERENTIABLE = {
    "__init__",
    "__bool__",
    "__eq__",
    "__ge__",
    "__gt__",
    "__hash__",
    "__le__",
    "__lt__",
    "__ne__",
    "__len__",
    "__repr__",
    "backward",
    "detach",
    "from_op",
    "item",
    "like",
    "numpy",
    "operand",
}

ENTRIES = {**OPS, **METHODS}
