"""The embedding's backward: ids that repeat add up, whatever method is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from leaves import leaf

from minillm import ops


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
