"""A float32 model stays float32, whatever numbers and arrays stand beside its tensors."""

from __future__ import annotations

import numpy as np
import pytest
from leaves import leaf

from minillm import ops
from minillm.tensor import Parameter, Tensor

# --- NEP 50: NumPy promotes float32 by np.float64 and integer arrays -------------------------------------------------

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


# --- ndarray on the left ---------------------------------------------------------------------------------------------


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
