"""The LSTM's products, a few rows of the weights at a time."""

from __future__ import annotations

import numpy as np
import pytest

from minillm import ops
from minillm.numpy_ops import recurrent
from minillm.tensor import Tensor


@pytest.mark.parametrize("most", [1, 40, 120, 10**6])
def test_products_by_rows_of_the_weights_give_the_same(most, monkeypatch):
    """One row at a time, several, all at once: 4H = 12 rows forward, H = 3 backward."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((5, 4, 2), (5, 3), (5, 3), (12, 2), (12, 3), (12,), (12,))]

    def run():
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        out = ops.lstm(*tensors)[0]
        (out * out).sum().backward()
        return out.data, *(t.grad for t in tensors)

    expected = run()
    monkeypatch.setattr(recurrent, "SMALL_PRODUCT", most)
    for found, wanted in zip(run(), expected):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


def test_parts_are_as_few_as_are_small_and_divide_the_rows():
    for n, m, columns in ((1024, 256, 8), (1024, 256, 4), (2600, 650, 3), (7, 10**6, 9), (12, 3, 0)):
        parts = recurrent.in_parts(np.empty((n, m), np.float32), columns)
        k, rows, _ = parts.shape
        assert k * rows == n and (rows * m * columns <= recurrent.SMALL_PRODUCT or rows == 1)
        assert not any(n % fewer == 0 and n // fewer * m * columns <= recurrent.SMALL_PRODUCT for fewer in range(1, k))
