"""Far tails, the hand-made Φ, dropout's share, and the lengths of rows after the norms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minillm import ops
from minillm.numpy_ops.blocks import BLOCK
from minillm.numpy_ops.erf import TERMS_FLOAT32, normal_cdf
from minillm.tensor import Tensor


def phi(x: np.ndarray) -> np.ndarray:
    cdf, power = np.empty((2, x.size), x.dtype)
    normal_cdf(x, cdf, power)
    return cdf


def test_phi_equals_erfc_to_the_last_digits_over_the_whole_line():
    """Relative to math.erfc, from 1e-300 in the far left tail to 1."""
    x = np.concatenate([np.linspace(-37, 37, 4001), np.linspace(-1e-3, 1e-3, 101), [0.0, -0.0, 1e-300]])
    expected = [0.5 * math.erfc(-v / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(phi(x), expected, rtol=3e-13)
    np.testing.assert_allclose(phi(x[abs(x) < 4]), np.array(expected)[abs(x) < 4], rtol=4e-15)
    np.testing.assert_allclose(phi(x.astype(np.float32))[abs(x) < 4], np.array(expected)[abs(x) < 4], rtol=5e-6)


def test_gelu_in_several_blocks():
    """It is computed block by block, with fewer terms in float32: shapes stay, and so do values across the borders."""
    values = np.random.default_rng(0).standard_normal((3, 50, 1000))
    assert values.size > 2 * BLOCK and TERMS_FLOAT32 < 12
    found = {}
    for dtype in (np.float64, np.float32):
        for recorded in (True, False):
            x = Tensor(values.astype(dtype), requires_grad=recorded)
            y = ops.gelu(x)
            assert y.shape == x.shape and y.dtype == dtype
            found[dtype, recorded] = y.data
        np.testing.assert_array_equal(found[dtype, True], found[dtype, False])
    rows = [ops.gelu(Tensor(row.copy())).data for row in values.reshape(-1, 1000)]
    np.testing.assert_allclose(found[np.float64, True].reshape(-1, 1000), rows, rtol=1e-13)
    assert np.abs(found[np.float32, True] - found[np.float64, True]).max() < 6e-7


FAR = [-1e4, -100.0, -40.0, -20.0, -10.0, -0.0, 0.0, 10.0, 20.0, 40.0, 100.0, 1e4]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_out(approximate, dtype):
    """0 on the left, x on the right, gradient 0 and 1; no overflow, no NaN."""
    x = Tensor(np.array(FAR, dtype=dtype), requires_grad=True)
    y = ops.gelu(x, approximate)
    y.backward(np.ones_like(x.data))
    np.testing.assert_allclose(y.data, np.maximum(x.data, 0), atol=1e-20 if approximate == "none" else 1e-15)
    np.testing.assert_allclose(
        x.grad, np.where(x.data == 0, 0.5, x.data > 0), atol=1e-20 if approximate == "none" else 1e-15
    )


def test_gelu_left_tail_keeps_its_digits():
    """x Φ(x) = x erfc(−x/√2)/2 down to 1e-300, where 1 + erf would be 0 from x = −8.3 on."""
    x = np.linspace(-37, -5, 200)
    expected = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(ops.gelu(Tensor(x)).data, expected, rtol=3e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_and_silu_far_out(dtype):
    """σ(x) → eˣ on the left: the digits must not drown in 1 + tanh, or ln σ(x) would be −∞ from x = −17 on in
    float32."""
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    x = np.array([-80.0, -40.0, -20.0, -10.0, -1.0, 0.0, 1.0, 10.0, 80.0])
    exact = np.exp(x) / (1 + np.exp(x))
    t = Tensor(x.astype(dtype), requires_grad=True)
    np.testing.assert_allclose(t.sigmoid().data, exact, rtol=rtol)
    np.testing.assert_allclose(ops.silu(t).data, x * exact, rtol=rtol)
    t.sigmoid().log().sum().backward()
    np.testing.assert_allclose(t.grad, 1 - exact, rtol=rtol, atol=rtol)
    far = Tensor(np.array(FAR, dtype=dtype), requires_grad=True)
    y = ops.silu(far) + far.sigmoid()
    y.sum().backward()
    assert np.isfinite(y.data).all() and np.isfinite(far.grad).all()


def test_relu_has_no_slope_at_its_corner_and_lets_a_nan_be_seen():
    x = Tensor(np.array([-1.0, -0.0, 0.0, 2.0, np.nan]), requires_grad=True)
    ops.relu(x).backward(np.full(5, 3.0))
    np.testing.assert_array_equal(x.grad, [0, 0, 0, 3, 3])


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_far_out(op, dtype):
    x = Tensor(np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [3e38, 0, 0]], dtype=dtype), requires_grad=True)
    y = op(x)
    y.backward(np.ones_like(y.data))
    p = np.exp(y.data) if op is ops.log_softmax else y.data
    np.testing.assert_allclose(p, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0]], rtol=1e-6)
    assert np.isfinite(x.grad).all()


def test_softmax_does_not_see_a_shift():
    x = np.random.default_rng(0).standard_normal((3, 5))
    np.testing.assert_allclose(ops.softmax(Tensor(x + 1000)).data, ops.softmax(Tensor(x)).data, rtol=1e-11)


def test_layer_norm_gives_mean_zero_and_variance_one():
    x = Tensor(np.random.default_rng(0).standard_normal((4, 64)) * 10 + 3)
    y = ops.layer_norm(x, Tensor(np.ones(64)), Tensor(np.zeros(64)), eps=0.0).data
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(-1), 1, rtol=1e-13)
    y = ops.rms_norm(x, Tensor(np.ones(64)), eps=0.0).data
    np.testing.assert_allclose((y * y).mean(-1), 1, rtol=1e-13)


def test_layer_norm_keeps_its_digits_far_from_zero():
    """mean x² − (mean x)² would be all rounding error here; mean (x − mean x)² is not."""
    x = np.random.default_rng(0).standard_normal((2, 128)).astype(np.float32)
    weight, bias = Tensor(np.ones(128, np.float32)), Tensor(np.zeros(128, np.float32))
    moved = (x + np.float32(4096)).astype(np.float32)
    expected = ops.layer_norm(Tensor(moved - np.float32(4096)), weight, bias).data
    np.testing.assert_allclose(ops.layer_norm(Tensor(moved), weight, bias).data, expected, atol=5e-3)


def test_a_constant_row_has_a_finite_gradient():
    x = Tensor(np.full((2, 8), 3.0), requires_grad=True)
    ops.layer_norm(x, Tensor(np.ones(8)), Tensor(np.zeros(8))).sum().backward()
    zero = Tensor(np.zeros((2, 8)), requires_grad=True)
    ops.rms_norm(zero, Tensor(np.ones(8))).sum().backward()
    assert np.isfinite(x.grad).all() and np.isfinite(zero.grad).all()


# --- dropout --------------------------------------------------------------------------------------------------------


def test_dropout_drops_its_share_and_keeps_the_mean():
    x = Tensor(np.ones((200, 200), dtype=np.float32), requires_grad=True)
    y = ops.dropout(x, 0.3, rng=np.random.default_rng(0))
    assert np.mean(y.data == 0) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(np.unique(y.data), np.float32([0, 1 / 0.7]))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)  # the same elements are kept, with the same factor


def test_of_evenly_spread_draws_dropout_drops_exactly_its_share():
    """Draws are at least 0 and below 1: the one that equals p is kept, or a little too much would be dropped."""

    class Evenly:
        def random(self, shape, dtype):
            return np.arange(8, dtype=dtype).reshape(shape) / 8

    y = ops.dropout(Tensor(np.ones((2, 4))), 0.25, rng=Evenly()).data
    np.testing.assert_allclose(y, [[0, 0, 4 / 3, 4 / 3], [4 / 3] * 4])


def test_dropout_comes_from_the_generator_alone():
    """The same state gives the same mask, the next call another, and NumPy's global generator is not touched."""
    x = Tensor(np.ones(1000, dtype=np.float32))
    before = np.random.get_state()[1].copy()
    rng = np.random.default_rng(5)
    first, second = ops.dropout(x, 0.5, rng=rng).data, ops.dropout(x, 0.5, rng=rng).data
    np.testing.assert_array_equal(first, ops.dropout(x, 0.5, rng=np.random.default_rng(5)).data)
    assert (first != second).any()
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_dropout_draws_the_same_in_float32_and_float64():
    ones = np.ones(1000)
    a = ops.dropout(Tensor(ones), 0.5, rng=np.random.default_rng(5)).data
    b = ops.dropout(Tensor(ones.astype(np.float32)), 0.5, rng=np.random.default_rng(5)).data
    np.testing.assert_array_equal(a, b)


def test_an_injected_mask_replaces_the_draw():
    mask = np.array([True, False, True])
    x = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    y = ops.dropout(x, 0.5, rng=rng, mask=mask)
    np.testing.assert_array_equal(y.data, [2, 0, 6])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 0, 2])
    assert rng.bit_generator.state == state


def test_dropout_does_nothing_outside_training_or_at_zero():
    x = Tensor(np.ones(3))
    assert ops.dropout(x, 0.5, training=False) is x
    assert ops.dropout(x, 0.0) is x


# --- errors ---------------------------------------------------------------------------------------------------------


def zeros(*shape) -> Tensor:
    return Tensor(np.zeros(shape))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_an_impossible_share_is_named(p):
    with pytest.raises(ValueError, match=f"dropout: p = {p}"):
        ops.dropout(zeros(3), p, rng=np.random.default_rng(0))


def test_dropout_without_a_generator_or_with_a_foreign_mask():
    with pytest.raises(ValueError, match="rng="):
        ops.dropout(zeros(3), 0.5)
    with pytest.raises(ValueError, match=r"x \(3,\) and mask \(2, 3\)"):
        ops.dropout(zeros(3), 0.5, mask=np.ones((2, 3), dtype=bool))


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: ops.linear(zeros(2, 3), zeros(5, 4)), ["linear", "(2, 3)", "(5, 4)"]),
        (lambda: ops.linear(zeros(2, 3), zeros(5, 3), zeros(3)), ["linear", "(5,)", "(3,)"]),
        (lambda: ops.linear(zeros(2, 3), zeros(5, 3), zeros(1)), ["linear", "(5,)", "(1,)"]),
        (lambda: ops.swiglu(zeros(2, 3), zeros(2, 4)), ["swiglu", "(2, 3)", "(2, 4)"]),
        (lambda: ops.layer_norm(zeros(2, 3), zeros(4), zeros(4)), ["layer_norm", "(2, 3)", "(4,)"]),
        (lambda: ops.layer_norm(zeros(2, 3), zeros(3), zeros(2)), ["layer_norm", "(3,)", "(2,)"]),
        (lambda: ops.layer_norm(zeros(2, 3), zeros(3), zeros(1)), ["layer_norm", "(3,)", "(1,)"]),
        (lambda: ops.rms_norm(zeros(2, 3), zeros(1)), ["rms_norm", "(2, 3)", "(1,)"]),
        (lambda: ops.gelu(zeros(2), "erf"), ["gelu", "'erf'", "'tanh'"]),
    ],
)
def test_what_does_not_fit_is_named(call, names):
    with pytest.raises(ValueError) as error:
        call()
    for name in names:
        assert name in str(error.value)


def test_ids_outside_the_table_are_named():
    for bad in (7, -1):
        with pytest.raises(IndexError, match=f"embedding: id {bad} is outside the table of 7 rows"):
            ops.embedding(np.array([[0, 6], [bad, 1]]), zeros(7, 2))
    with pytest.raises(IndexError, match="embedding: id 9 is outside"):  # the first of them
        ops.embedding(np.array([[0, 9], [8, 1]]), zeros(7, 2))
    with pytest.raises(TypeError, match="float64"):
        ops.embedding(np.zeros(3), zeros(7, 2))
    assert ops.embedding(np.zeros((0, 4), dtype=int), zeros(7, 2)).shape == (0, 4, 2)
