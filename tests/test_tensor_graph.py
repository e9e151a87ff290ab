"""The graph behind a Tensor: it keeps no memory, stands any depth and shape, and is freed as backward() passes."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
import twins
from leaves import leaf

from minillm import ops
from minillm.debug import debug_mode
from minillm.numpy_ops import lstm_cell
from minillm.tensor import Tensor, no_grad, topological_order


@pytest.fixture
def without_garbage_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# --- what keeps memory -----------------------------------------------------------------------------------------------


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
    """Also one in the middle of a graph, with its array where no derivative needs that."""
    a = leaf(3)
    middle = a + 2
    array = weakref.ref(middle.data)
    out = (middle + 1).exp()
    ref, middle_ref, node = weakref.ref(out), weakref.ref(middle), middle.node
    del middle
    assert middle_ref() is None and array() is None
    assert node.parents[0] is a and node.shape == (3,) and node.dtype == a.dtype
    out.sum().backward()
    np.testing.assert_array_equal(a.grad, out.data)
    del out
    assert ref() is None


def test_saved_arrays_are_freed_while_backward_runs():
    """The memory of a chain shrinks as backward passes: the peak is no more than the forward's, plus a few
    gradients."""
    x = leaf(100_000)
    tracemalloc.start()
    try:
        y = x
        for _ in range(20):
            y = y.exp().log()  # each saves the same array, what exp gave; what log gave is not kept
        loss = y.sum()
        del y
        forward = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        loss.backward()
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    one = 800_000
    assert 19 * one < forward < 22 * one
    assert peak < forward + 4 * one
    assert now < 2 * one  # the gradient of x, no more


# --- depth and shape of the graph ------------------------------------------------------------------------------------


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


# --- backward more than once -----------------------------------------------------------------------------------------


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


# --- without a graph -------------------------------------------------------------------------------------------------


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


def test_detach_cuts_the_graph_and_shares_the_array():
    x = leaf(3)
    (x * x.detach()).sum().backward()
    np.testing.assert_array_equal(x.grad, x.data)
    assert not x.detach().requires_grad


def test_constants_get_no_gradient():
    x, constant = leaf(3), Tensor(np.ones(3))
    (x * constant).sum().backward()
    assert constant.grad is None and x.grad is not None
