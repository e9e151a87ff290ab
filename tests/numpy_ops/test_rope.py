"""Rotary positions: whole rows at a time give the same bits as the formula, pair by pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.numpy_ops.rope import rope_backward, rotate


def plain(x, cos, sin):
    half = x.shape[-1] // 2
    x1, x2 = x[..., :half], x[..., half:]
    return np.concatenate((x1 * cos - x2 * sin, x2 * cos + x1 * sin), axis=-1)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 9), st.integers(0, 5), st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_turned_as_the_formula_says(dtype, batch, heads, length, half, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, length, heads, 2 * half)).astype(dtype).swapaxes(1, 2)
    before = x.copy()
    for table in ((length, half), (batch, 1, length, half)):
        cos, sin = (f(rng.uniform(-9, 9, table)).astype(dtype) for f in (np.cos, np.sin))
        got = rotate(x, cos, sin)
        assert got.dtype == dtype and got.shape == x.shape
        np.testing.assert_array_equal(got, plain(x, cos, sin))
        np.testing.assert_array_equal(x, before)


def test_the_backward_pass_turns_back():
    """A rotation's derivative is its transpose: what was turned forth and back is as it was."""
    rng = np.random.default_rng(0)
    x, angle = rng.standard_normal((2, 3, 5, 8)), rng.uniform(-9, 9, (5, 4))
    turned = rotate(x, np.cos(angle), np.sin(angle))
    (back,) = rope_backward(turned, (True,), np.cos(angle), np.sin(angle))
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-14)
    assert not np.allclose(turned, x)
