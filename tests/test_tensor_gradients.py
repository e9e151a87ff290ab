"""Gradients share no memory: what one tensor holds does not change when another's is added to."""

from __future__ import annotations

import numpy as np
import pytest
from leaves import leaf

from minillm import ops
from minillm.tensor import Tensor


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
