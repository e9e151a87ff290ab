"""The pitfalls of an autograd engine, one test each: every one of them has bitten somebody."""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import twins

from minillm import debug, ops
from minillm.debug import debug_mode
from minillm.generate import generate
from minillm.models import GPT, GPTConfig
from minillm.numpy_ops import lstm_cell
from minillm.optim import AdamW
from minillm.tensor import Parameter, Tensor, no_grad, records_graph, topological_order
from minillm.tensor_methods import unbroadcast


def leaf(*shape, dtype=np.float64, seed: int = 0) -> Tensor:
    return Tensor(np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype), requires_grad=True)


@pytest.fixture
def without_garbage_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# --- 1. reference cycles --------------------------------------------------------------------------------------------


def network(x: Tensor, weight: Tensor) -> Tensor:
    h = ops.layer_norm(ops.gelu(ops.linear(x, weight), "tanh"), Tensor(np.ones(64)), Tensor(np.zeros(64)))
    qkv = h.reshape(4, 32, 4, 16).transpose(1, 2)
    h = ops.attention(qkv, qkv, qkv, causal=True).transpose(1, 2).reshape(4 * 32, 64) * 2.0 + h
    h, c = lstm_cell(h, h, h, twice(weight), twice(weight), None, None)
    loss = ops.linear_cross_entropy(h + c, weight, np.zeros(128, dtype=int))
    return loss + ops.softmax(h).max(dim=-1).values.mean()


def twice(weight: Tensor) -> Tensor:
    return ops.cat([weight, weight, weight, weight])


@pytest.mark.parametrize("how", ["dropped", "backward"])
def test_no_reference_cycle_keeps_memory(without_garbage_collector, how):
    """20 graphs, one after another, with the collector off: what is left is less than a tenth of one of them."""
    x, weight = leaf(128, 64), leaf(64, 64, seed=1)

    def step():
        loss = network(x, weight)
        if how == "backward":
            loss.backward()
        weight.grad = x.grad = None

    step()  # whatever is made once and kept
    tracemalloc.start()
    try:
        loss = network(x, weight)
        one_graph = tracemalloc.get_traced_memory()[0]
        del loss
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            step()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert one_graph > 500_000
    assert left < one_graph / 10


def test_a_result_dies_with_its_last_reference(without_garbage_collector):
    a = leaf(3)
    middle = a * 2
    out = middle.exp()
    ref, middle_ref = weakref.ref(out), weakref.ref(middle)
    del middle
    assert middle_ref() is not None  # the graph needs it
    del out
    assert ref() is None and middle_ref() is None


def test_saved_arrays_are_freed_while_backward_runs():
    """The memory of a chain shrinks as backward passes: the peak is no more than the forward's, plus a few
    gradients."""
    x = leaf(100_000)
    tracemalloc.start()
    try:
        y = x
        for _ in range(20):
            y = y.exp().log()  # each saves an array
        loss = y.sum()
        del y
        forward = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        loss.backward()
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    one = 800_000
    assert forward > 35 * one
    assert peak < forward + 4 * one
    assert now < 2 * one  # the gradient of x, no more


# --- 2. depth and shape of the graph --------------------------------------------------------------------------------


def chain(n: int, x: Tensor) -> Tensor:
    y = x
    for _ in range(n):
        y = y + 1.0
    return y


def test_a_chain_of_50_000_nodes():
    x = leaf(2)
    chain(50_000, x).sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 1])


def test_a_chain_of_50_000_nodes_dropped_without_backward(without_garbage_collector):
    """Freeing it must not recurse through the C stack either."""
    x = leaf(2)
    y = chain(50_000, x)
    ref = weakref.ref(y)
    del y
    assert ref() is None


def test_a_chain_of_50_000_nodes_kept_by_retain_graph_and_then_dropped(without_garbage_collector):
    x = leaf(2)
    y = chain(50_000, x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 2])


def test_a_diamond_is_walked_once():
    """y = a·a twice over: 40 diamonds in a row have 2⁴⁰ paths, but 80 nodes."""
    x = Tensor(np.array(1.0), requires_grad=True)
    y = x
    for _ in range(40):
        y = (y * 0.5) + (y * 0.5)
    assert len(topological_order(y.node)) == 120
    y.backward()
    assert x.grad == 1.0


def test_a_node_waits_for_all_that_was_computed_from_it():
    """b reaches the loss by a short and by a long way: its gradient is complete before it is passed on."""
    x = leaf(3)
    b = x * 2.0
    far = ((b + 1.0) * 3.0).exp()
    (far * b + b).sum().backward()
    value = 2 * x.data
    far = np.exp(3 * (value + 1))
    np.testing.assert_allclose(x.grad, 2 * (3 * far * value + far + 1), rtol=1e-13)


def test_the_same_tensor_on_both_sides():
    x = leaf(3)
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, 2 * x.data)
    x = leaf(3)
    (x - x).sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 0, 0])
    x = leaf(3, 3)
    (x @ x).sum().backward()
    np.testing.assert_allclose(x.grad, x.data.sum(0)[:, None] + x.data.sum(1), rtol=1e-13)
    x = leaf(3)
    ops.stack([x, x, x]).sum().backward()
    np.testing.assert_array_equal(x.grad, [3, 3, 3])


def test_one_tensor_as_query_key_and_value():
    x, y = leaf(1, 2, 4, 3), leaf(1, 2, 4, 3)
    ops.attention(x, x, x, causal=True).sum().backward()
    twins.attention(y, y, y, causal=True).sum().backward()
    np.testing.assert_allclose(x.grad, y.grad, rtol=1e-12, atol=1e-14)


# --- 3. aliasing of gradients ---------------------------------------------------------------------------------------


def reshaped(a, b):
    return a.reshape(6) + b.reshape(6)


def transposed(a, b):
    return a.transpose(0, 1) + b.transpose(0, 1)


def summed(a, b):
    return a.sum() + b.sum()


def broadcast(a, b):
    return (a.reshape(1, 2, 3) + b) + Tensor(np.zeros((1, 2, 3)))


def subtracted(a, b):
    return a - (0.0 - b)


def stacked(a, b):
    return ops.stack([a, b])


def joined(a, b):
    return ops.cat([a, b])


def reused(a, b):
    return (a + b) + (a + b)


def chosen(a, b):
    return ops.where(np.ones((2, 3), dtype=bool), a, b) + ops.where(np.ones((2, 3), dtype=bool), b, a)


def sliced(a, b):
    return a[:, :] + b[...]


def plain(a, b):
    return a + b


@pytest.mark.parametrize(
    "combine",
    [plain, reshaped, transposed, summed, broadcast, subtracted, stacked, joined, reused, chosen, sliced],
)
def test_gradients_share_no_memory(combine):
    """After (a + b).backward(), writing into a.grad must leave b.grad, the incoming gradient and all values as they
    are."""
    a, b = leaf(2, 3), leaf(2, 3, seed=1)
    out = combine(a, b)
    incoming = np.ones(out.shape)
    out.backward(incoming)
    arrays = {"a.grad": a.grad, "b.grad": b.grad, "incoming": incoming, "a": a.data, "b": b.data, "out": out.data}
    names = list(arrays)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if first.endswith("grad") or second.endswith("grad"):
                assert not np.shares_memory(arrays[first], arrays[second]), f"{first} and {second}"
    assert a.grad.flags.writeable and b.grad.flags.writeable  # not a read-only broadcast either
    a.grad += 100
    np.testing.assert_array_equal(b.grad, (2 if combine is reused else 1) * np.ones((2, 3)))


@pytest.mark.parametrize("op", [ops.lstm_cell, ops.lstm])
def test_the_two_biases_of_an_lstm_get_their_own_gradients(op):
    """One backward returns one array as the gradient of two inputs."""
    rng = np.random.default_rng(0)
    shapes = [(2, 3) if op is ops.lstm_cell else (2, 5, 3), (2, 4), (2, 4), (16, 3), (16, 4), (16,), (16,)]
    tensors = [Tensor(rng.standard_normal(s), requires_grad=True) for s in shapes]
    *_, h, c = op(*tensors)
    (h + c).sum().backward()
    np.testing.assert_array_equal(tensors[5].grad, tensors[6].grad)
    assert not np.shares_memory(tensors[5].grad, tensors[6].grad)


def test_a_gradient_that_the_caller_holds_is_not_changed_later():
    """Accumulation makes a new array: whoever kept the gradient of the first step still has that."""
    x = leaf(3)
    (x * 2.0).sum().backward()
    for step in (lambda: x * x, lambda: x[1:], lambda: x[np.array([0, 0])], lambda: x + x, lambda: x):
        held, kept = x.grad, x.grad.copy()
        step().sum().backward()
        np.testing.assert_array_equal(held, kept)
        assert x.grad is not held


def test_a_shared_gradient_is_not_added_to_in_place():
    """`add` hands one array to both parents; the second contribution to one of them must not reach the other."""
    a, b, w = leaf(3), leaf(3, seed=1), leaf(3, seed=2)
    h, g = a * 1.0, b * 1.0  # inner tensors: h and g receive the same array
    ((h + g) + h * w + h[0] + h[np.array([0, 0])].sum()).backward(np.ones(3))
    np.testing.assert_allclose(b.grad, [1, 1, 1])
    np.testing.assert_allclose(a.grad, 1 + w.data + [9, 0, 0])


def test_the_gradient_of_a_slice_is_not_added_to_a_shared_one():
    """h and g first receive one array from h + g; then h receives a slice's gradient, before g is walked."""
    a, b = leaf(3), leaf(3, seed=1)
    h, g = a * 1.0, b * 1.0
    ((g.sum() * 0.0 + h[0]) + (h + g)).backward(np.ones(3))
    np.testing.assert_array_equal(b.grad, [1, 1, 1])
    np.testing.assert_array_equal(a.grad, [4, 1, 1])


# --- 4. views, and writing between forward and backward -------------------------------------------------------------


def test_reshape_transpose_and_slices_are_views():
    x = leaf(2, 3)
    for view in (x.reshape(3, 2), x.transpose(0, 1), x[1], x.detach()):
        assert np.shares_memory(view.data, x.data)


def saving_ops():
    x, w = leaf(2, 4), leaf(3, 4, seed=1)
    heads = leaf(1, 1, 2, 4)
    return {
        "mul": (x, lambda: x * x),
        "div": (x, lambda: 1.0 / x),
        "pow": (x, lambda: x**3),
        "matmul": (x, lambda: x @ w.transpose(0, 1)),
        "linear input": (x, lambda: ops.linear(x, w)),
        "linear weight": (w, lambda: ops.linear(x, w)),
        "gelu": (x, lambda: ops.gelu(x, "tanh")),
        "attention": (heads, lambda: ops.attention(heads, heads, heads)),
    }


@pytest.mark.parametrize("name", list(saving_ops()))
def test_debug_mode_makes_saved_arrays_read_only_until_backward(name):
    tensor, call = saving_ops()[name]
    with debug_mode():
        out = call()
        with pytest.raises(ValueError, match="read-only"):
            tensor.data[...] = 0
        out.sum().backward()
        tensor.data[...] = 1  # it has run: now it may change
    out = call()
    tensor.data[...] = 2  # and outside nothing is frozen
    out.sum().backward()


def test_debug_mode_guards_outputs_that_backward_needs():
    x = leaf(3)
    with debug_mode():
        y = x.exp()
        with pytest.raises(ValueError, match="read-only"):
            y.data += 1


def test_debug_mode_lets_go_when_a_graph_is_dropped():
    """A loss that was only looked at must not leave the weights read-only, or the next optimizer step would fail."""
    x = leaf(3)
    with debug_mode():
        loss = (x * x).sum()
        del loss
    x.data -= 0.1


def test_debug_mode_guards_until_the_last_graph_is_done():
    """Two losses of one weight, one of them through a view: after the first backward the second still needs it."""
    x, w = leaf(2, 4), leaf(3, 4, seed=1)
    with debug_mode():
        first, second = (w * w).sum(), ops.linear(w.reshape(2, 6), leaf(5, 6)).sum()
        ops.linear(x, w).sum().backward()
        first.backward()
        with pytest.raises(ValueError, match="read-only"):
            w.data[...] = 1
        second.backward()
        w.data[...] = 1


def test_debug_mode_freezes_nothing_without_a_graph():
    x = leaf(3)
    with debug_mode(), no_grad():
        y = x * x
        x.data -= 0.1
        y.data -= 0.1


def test_debug_mode_guards_the_gradient_that_a_fused_loss_has_computed_already():
    h, weight = leaf(2, 4), leaf(3, 4, seed=1)
    with debug_mode():
        loss = ops.linear_cross_entropy(h, weight, np.array([1, 2]))
        for array in loss.node.saved[:2]:
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_debug_mode_counts_right_when_threads_freeze_the_same_memory():
    """Four threads use one weight. It is read-only while any of them needs it, and writeable after the last."""
    w = leaf(64)
    start = threading.Barrier(4)

    def use():
        start.wait()
        with debug_mode():
            for _ in range(300):
                losses = [(w * w).sum(), (w.reshape(8, 8) * 2.0).exp().sum()]
                assert not w.data.flags.writeable
                losses.pop().backward()
                assert not w.data.flags.writeable

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for task in [pool.submit(use) for _ in range(4)]:
                task.result()
    finally:
        sys.setswitchinterval(interval)
    w.data -= 0.1
    assert id(w.data) not in debug.uses and id(w.data) not in debug.frozen and not debug.changes


def test_debug_mode_stands_a_graph_that_is_dropped_while_another_is_frozen(monkeypatch):
    """As the garbage collector may do, in the middle of the bookkeeping."""
    x = leaf(3)
    with debug_mode():
        dropped = [x * x]
        freeze = debug.freeze

        def drop_and_freeze(chain):
            dropped.clear()
            freeze(chain)

        monkeypatch.setattr(debug, "freeze", drop_and_freeze)
        kept = x * x
        with pytest.raises(ValueError, match="read-only"):
            x.data -= 0.1
        del kept
    x.data -= 0.1


# --- 5. NEP 50: NumPy promotes float32 by np.float64 and integer arrays ---------------------------------------------

SCALARS = {
    "float": 2.0,
    "int": 2,
    "np.float64": np.float64(2),
    "np.float32": np.float32(2),
    "np.int64": np.int64(2),
    "bool": True,
    "0-d float64": np.array(2.0),
    "0-d int": np.array(2),
    "int array": np.array([1, 2, 3]),
    "bool array": np.array([True, False, True]),
    "float32 array": np.array([1, 2, 3], dtype=np.float32),
}


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_float32_stays_float32_beside(name, side):
    value = SCALARS[name]
    for op in ("__add__", "__sub__", "__mul__", "__truediv__"):
        x = Parameter(np.array([1, 2, 4], dtype=np.float32))
        if side == "left":
            y = getattr(x, op.replace("__", "__r", 1))(value)
        elif name == "bool array" and op == "__truediv__":
            continue  # a division by zero
        else:
            y = getattr(x, op)(value)
        assert y.dtype == np.float32
        y.sum().backward()
        assert x.grad.dtype == np.float32 and x.grad.shape == x.shape


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x ** np.float64(2),
        lambda x: x ** np.float64(0.5),
        lambda x: ops.layer_norm(x, Tensor(np.ones(3, np.float32)), eps=np.float64(1e-5)),
        lambda x: ops.rms_norm(x, Tensor(np.ones(3, np.float32)), eps=np.float64(1e-5)),
        lambda x: ops.dropout(x, np.float64(0.1), rng=np.random.default_rng(0)),
        lambda x: ops.attention(*[x.reshape(1, 1, 1, 3)] * 3, scale=np.float64(2)),
        lambda x: ops.attention(*[x.reshape(1, 1, 1, 3)] * 3, dropout_p=np.float64(0.1), rng=np.random.default_rng(0)),
        lambda x: ops.cross_entropy(x, np.array(1), label_smoothing=np.float64(0.1)),
        lambda x: ops.rope(x.reshape(1, 3)[:, :2].reshape(1, 1, 1, 2), np.ones((1, 1)), np.zeros((1, 1))),
        lambda x: ops.binary_cross_entropy_with_logits(x, np.array([0.0, 0.5, 1.0])),
    ],
    ids=[
        "pow 2",
        "pow ½",
        "layer_norm",
        "rms_norm",
        "dropout",
        "scale",
        "attention dropout",
        "smoothing",
        "rope",
        "bce",
    ],
)
def test_numpy_numbers_as_settings_do_not_promote(call):
    """np.float64 is a Python float by inheritance, and gets in through any setting that was computed."""
    x = Tensor(np.array([1, 2, 4], dtype=np.float32), requires_grad=True)
    y = call(x)
    assert y.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32


def test_a_float_array_of_another_precision_is_refused():
    x = leaf(3, dtype=np.float32)
    for call in (lambda: x + np.ones(3), lambda: np.ones(3) * x, lambda: x / leaf(3), lambda: leaf(3) - x):
        with pytest.raises(TypeError, match=r"float32.*float64|float64.*float32"):
            call()


def test_tensors_without_axes_keep_their_dtype_and_stay_arrays():
    """NumPy turns 0-d arrays into scalars at every operation."""
    for dtype in (np.float32, np.float64):
        x = Tensor(np.array(0.5, dtype=dtype), requires_grad=True)
        y = ((x * x + 1.0) / 2.0 - x**3).exp().log().tanh().sigmoid().sum().mean().max() * x
        y = y + ops.gelu(x, "tanh") + ops.gelu(x) + ops.silu(x)
        y.backward()
        assert isinstance(y.data, np.ndarray) and y.dtype == dtype
        assert isinstance(x.grad, np.ndarray) and x.grad.dtype == dtype and x.grad.shape == ()


# --- 6. ndarray on the left -----------------------------------------------------------------------------------------


def test_an_array_on_the_left_reaches_the_tensor():
    """Without __array_ufunc__ = None, NumPy would loop over its elements and return an array of Tensors."""
    x = leaf(3)
    array = np.array([1.0, 2.0, 3.0])
    for y, gradient in ((array + x, 1), (array - x, -1), (array * x, array), (array / x, -array / x.data**2)):
        assert isinstance(y, Tensor)
        x.grad = None
        y.sum().backward()
        np.testing.assert_allclose(x.grad, gradient * np.ones(3))
    assert isinstance(np.float64(2) * x, Tensor) and isinstance(np.array(2.0) - x, Tensor)
    with pytest.raises(TypeError):
        np.exp(x)
    with pytest.raises(TypeError):
        array += x  # an ndarray cannot hold a graph


# --- 7. unbroadcast -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 4), (3, 4), (2, 1, 1), (1, 3, 4), (2, 3, 4), (1, 1, 1)])
def test_unbroadcast_sums_the_copies(shape):
    grad = np.random.default_rng(0).standard_normal((2, 3, 4))
    found = unbroadcast(grad, shape)
    assert found.shape == shape
    expected = np.zeros(shape)
    for index in np.ndindex(2, 3, 4):  # each copy's gradient goes to the one element it was made from
        own = tuple(0 if n == 1 else i for i, n in zip(index[3 - len(shape) :], shape))
        expected[own] += grad[index]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_unbroadcast_with_axes_of_length_zero_and_one():
    assert unbroadcast(np.ones((0, 3)), (1, 3)).tolist() == [[0, 0, 0]]
    assert unbroadcast(np.ones((2, 0)), (0,)).shape == (0,)
    grad = np.ones((2, 1))
    assert unbroadcast(grad, (2, 1)) is grad


# --- 8. indices that repeat -----------------------------------------------------------------------------------------


def test_repeated_ids_in_an_embedding_add_up():
    weight = leaf(4, 2)
    ids = np.array([[1, 1, 3], [1, 0, 3]])
    grad = np.random.default_rng(1).standard_normal((2, 3, 2))
    ops.embedding(ids, weight).backward(grad)
    expected = np.zeros((4, 2))
    np.add.at(expected, ids, grad)
    np.testing.assert_allclose(weight.grad, expected, rtol=1e-14)


@pytest.mark.parametrize("rows", [10, 5000])
def test_repeated_ids_in_a_large_embedding(rows):
    """Whatever method is chosen for large inputs, it is exact: integers in float32 leave no rounding to hide behind."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, rows, 4000) // rng.integers(1, 8, 4000)
    grad = rng.integers(-8, 8, (4000, 3)).astype(np.float32)
    weight = leaf(rows, 3, dtype=np.float32)
    ops.embedding(ids, weight).backward(grad)
    expected = np.zeros((rows, 3), dtype=np.float32)
    np.add.at(expected, ids, grad)
    np.testing.assert_array_equal(weight.grad, expected)


@pytest.mark.parametrize(
    "index",
    [
        [0, 0, 2],
        np.array([0, 0, 2]),
        np.array([-1, 2, 0]),
        (np.array([0, 0]), np.array([1, 1])),
        ((0, 0, 2),),
        ((0, 0, 2), slice(None)),
        (slice(None), [1, 1]),
        (Ellipsis, np.array([[0, 0], [0, 1]])),
        range(2),
    ],
    ids=str,
)
def test_repeated_indices_add_up(index):
    x = leaf(3, 2)
    out = x[index]
    grad = np.random.default_rng(1).standard_normal(out.shape)
    out.backward(grad)
    expected = np.zeros((3, 2))
    np.add.at(expected, index, grad)
    np.testing.assert_allclose(x.grad, expected, rtol=1e-14)


@pytest.mark.parametrize("use", ["embedding", "getitem", "getitem in a tuple", "targets"])
def test_debug_mode_guards_ids_too(use):
    """A batcher that fills one buffer again before backward() would send gradients to the wrong rows."""
    weight = leaf(4, 4)
    ids = np.array([1, 1, 3, 0])
    calls = {
        "embedding": lambda: ops.embedding(ids, weight),
        "getitem": lambda: weight[ids],
        "getitem in a tuple": lambda: weight[ids, 1:],
        "targets": lambda: ops.linear_cross_entropy(weight, weight, ids),
    }
    with debug_mode():
        loss = calls[use]().sum()
        if use == "targets":  # their part of the gradient is done already
            ids[:] = 2
            return
        with pytest.raises(ValueError, match="read-only"):
            ids[:] = 2
        loss.backward()
        ids[:] = 2


# --- 11. backward more than once ------------------------------------------------------------------------------------


def test_backward_twice_adds():
    x = leaf(3)
    for _ in range(2):
        (x * x).sum().backward()
    np.testing.assert_allclose(x.grad, 4 * x.data)


def test_a_freed_graph_says_so():
    x = leaf(3)
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        loss.backward()


def test_a_freed_part_of_a_graph_says_so():
    x = leaf(3)
    h = x.exp()
    h.sum().backward()
    with pytest.raises(RuntimeError, match="already freed"):
        (h * 2.0).sum().backward()


def test_retain_graph_keeps_it_until_the_last():
    x = leaf(3)
    loss = (x.exp() * x).sum()
    loss.backward(retain_graph=True)
    once = x.grad.copy()
    loss.backward()
    np.testing.assert_allclose(x.grad, 2 * once, rtol=1e-15)
    with pytest.raises(RuntimeError, match="already freed"):
        loss.backward()


def test_backward_on_a_leaf():
    x = Tensor(np.array(3.0), requires_grad=True)
    x.backward()
    x.backward(np.array(2.0))
    assert x.grad == 3.0


def test_gradient_accumulation_in_tokens_equals_one_batch():
    """Two micro-batches of 2 and 6 counted tokens: sums over the global count equal the whole; a mean of means does
    not."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 6, 5))
    targets = rng.integers(0, 5, (2, 6))
    targets[0, 2:] = -100
    whole = Tensor(logits, requires_grad=True)
    ops.cross_entropy(whole, targets).backward()
    parts = Tensor(logits, requires_grad=True)
    for i in range(2):
        (ops.cross_entropy(parts[i], targets[i], reduction="sum") * (1 / 8)).backward()
    np.testing.assert_allclose(parts.grad, whole.grad, rtol=1e-13)
    means = Tensor(logits, requires_grad=True)
    for i in range(2):
        (ops.cross_entropy(means[i], targets[i]) * 0.5).backward()
    assert np.abs(means.grad - whole.grad).max() > 0.01


# --- no_grad --------------------------------------------------------------------------------------------------------


def test_no_grad_nests_and_ends():
    x = leaf(3)
    with no_grad():
        with no_grad():
            assert (x * x).node is None
        assert (x * x).node is None and not (x * x).requires_grad
    assert (x * x).node is not None


def test_no_grad_ends_after_an_exception():
    x = leaf(3)
    with pytest.raises(KeyError), no_grad():
        raise KeyError("stop")
    assert (x * x).node is not None
    with pytest.raises(KeyError), debug_mode():
        raise KeyError("stop")
    kept = x * x
    x.data += 1  # debug mode is off again
    assert kept.node.saved is not None


def test_no_grad_is_for_its_own_thread():
    """One thread evaluates while another trains: the other's graphs are whole, whoever enters and leaves when."""
    x = leaf(3)
    inside, trained = threading.Event(), threading.Event()

    def evaluate():
        with no_grad():
            inside.set()
            trained.wait(10)
            return (x * x).node

    with ThreadPoolExecutor(1) as pool:
        with no_grad():
            task = pool.submit(evaluate)
            inside.wait(10)
        (x * x).sum().backward()  # left before the other, which is still inside
        trained.set()
        assert task.result() is None
    np.testing.assert_allclose(x.grad, 2 * x.data)
    assert records_graph(x)


def test_debug_mode_is_for_its_own_thread():
    x = leaf(3)
    with ThreadPoolExecutor(1) as pool, debug_mode():
        other = pool.submit(lambda: x * x).result()
        x.data -= 0.1
        assert other.node.frozen is None
        inherited = pool.submit(contextvars.copy_context().run, lambda: x * x).result()
        with pytest.raises(ValueError, match="read-only"):
            x.data -= 0.1
        assert inherited.node.frozen is not None


def tiny_gpt(seed):
    config = GPTConfig(vocab_size=17, context=8, n_layers=1, n_heads=2, d_model=8, dropout=0.1)
    return GPT(config, np.random.default_rng(seed))


def train_a_little(seed):
    model, rng = tiny_gpt(seed), np.random.default_rng(seed)
    optimizer = AdamW(list(model.parameters()), lr=1e-2)
    losses = []
    for _ in range(30):
        model.zero_grad()
        ids = rng.integers(0, 17, (4, 9))
        loss = model(ids[:, :-1], targets=ids[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_two_trainings_and_a_generation_at_once_give_the_same_as_alone():
    writer = tiny_gpt(9)
    write = partial(generate, writer, [[1, 2]], max_new_tokens=40, seed=3)
    work = [partial(train_a_little, 0), partial(train_a_little, 1), write]
    alone = [task() for task in work]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert [task.result() for task in [pool.submit(task) for task in work]] == alone
    finally:
        sys.setswitchinterval(interval)


def test_detach_cuts_the_graph_and_shares_the_array():
    x = leaf(3)
    (x * x.detach()).sum().backward()
    np.testing.assert_array_equal(x.grad, x.data)
    assert not x.detach().requires_grad


def test_constants_get_no_gradient():
    x, constant = leaf(3), Tensor(np.ones(3))
    (x * constant).sum().backward()
    assert constant.grad is None and x.grad is not None
