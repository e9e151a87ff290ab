"""Views, the one unbroadcast, and indices that repeat."""

from __future__ import annotations

import numpy as np
import pytest
from leaves import leaf

from minillm.tensor_methods import unbroadcast


def test_reshape_transpose_and_slices_are_views():
    x = leaf(2, 3)
    for view in (x.reshape(3, 2), x.transpose(0, 1), x[1], x.detach()):
        assert np.shares_memory(view.data, x.data)


# --- unbroadcast -----------------------------------------------------------------------------------------------------


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


# --- indices that repeat ---------------------------------------------------------------------------------------------


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
