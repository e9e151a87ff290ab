"""Debug mode makes what backward() needs read-only, and lets it go in time."""

from __future__ import annotations

import contextvars
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from leaves import leaf

from minillm import debug, ops
from minillm.debug import debug_mode
from minillm.tensor import no_grad


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
        "silu": (x, lambda: ops.silu(x)),
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


# --- indices that repeat ---------------------------------------------------------------------------------------------


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


# --- without a graph -------------------------------------------------------------------------------------------------


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
