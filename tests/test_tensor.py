"""What a Tensor is made from, what its methods promise beyond their derivative, and what its errors say.

Values and gradients of every method are checked in test_ops.py, the graph's pitfalls in the test_tensor_*.py.
"""

from __future__ import annotations

import operator

import numpy as np
import pytest

from minillm.tensor import Parameter, Tensor


def zeros(*shape, dtype=np.float64) -> Tensor:
    return Tensor(np.zeros(shape, dtype))


# --- making one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1, np.float32),
        (1.5, np.float32),
        (True, np.float32),
        ([1, 2], np.float32),
        ([[1.0], [2.0]], np.float32),
        (np.arange(3), np.float32),
        (np.array([True, False]), np.float32),
        (np.zeros(2, np.float32), np.float32),
        (np.zeros(2, np.float64), np.float64),
        (np.float64(1), np.float64),
        (np.float32(1), np.float32),
    ],
)
def test_lists_and_integers_become_float32_and_float_arrays_stay(data, dtype):
    x = Tensor(data)
    assert x.dtype == dtype and x.shape == np.shape(data)
    np.testing.assert_array_equal(x.data, np.asarray(data))
    assert x.grad is None and not x.requires_grad and x.node is None


def test_an_array_is_not_copied():
    array = np.zeros(3)
    assert Tensor(array).data is array and Tensor(array).numpy() is array


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (np.zeros(2, np.float16), "float16"),
        (np.zeros(2, complex), "complex128"),
        (np.array(["a"]), "<U1"),
        (None, "object"),
        ("word", "<U4"),
    ],
)
def test_other_data_is_refused_by_name(data, name):
    with pytest.raises(TypeError, match=f"Tensor.*{name}"):
        Tensor(data)


def test_a_tensor_of_a_tensor_is_refused():
    with pytest.raises(TypeError, match="already a Tensor"):
        Tensor(zeros(2))


def test_a_parameter_wants_a_gradient():
    assert Parameter(np.zeros(2)).requires_grad and isinstance(Parameter([1.0]), Tensor)


def test_repr_shows_values_dtype_and_origin():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    assert repr(x) == "Tensor([1., 2.], float64, requires_grad)"
    assert "from exp" in repr(x.exp()) and "from add" in repr(x + 1)
    assert len(repr(zeros(100, 100))) < 1000


def test_len_item_iteration():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    assert len(x) == 2 and [row.shape for row in x] == [(3,), (3,)]
    assert Tensor(2.5).item() == 2.5 and isinstance(zeros(1).item(), float)
    assert x.ndim == 2 and x.shape == (2, 3)


# --- single methods -------------------------------------------------------------------------------------------------


def test_max_shares_its_gradient_between_ties_and_with_dim_picks_one():
    x = Tensor(np.array([[1.0, 3.0, 3.0], [3.0, 0.0, 2.0]]), requires_grad=True)
    x.max().backward()
    np.testing.assert_allclose(x.grad, np.array([[0, 1, 1], [1, 0, 0]]) / 3)
    x.grad = None
    values, indices = x.max(dim=1)
    np.testing.assert_array_equal(values.data, [3, 3])
    np.testing.assert_array_equal(indices, [1, 0])
    values.sum().backward()
    np.testing.assert_array_equal(x.grad, [[0, 1, 0], [1, 0, 0]])
    assert x.max(dim=0, keepdim=True).indices.shape == (1, 3)


def test_max_as_in_torch():
    torch = pytest.importorskip("torch")
    array = np.random.default_rng(0).integers(0, 3, (4, 5, 3)).astype(np.float64)  # many ties
    for dim in (None, 0, 1, -1):
        ours, theirs = Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        if dim is None:
            ours.max().backward()
            theirs.max().backward()
            np.testing.assert_allclose(ours.grad, theirs.grad.numpy())
        else:
            np.testing.assert_array_equal(ours.max(dim).indices, theirs.max(dim).indices.numpy())


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, 0.5])
def test_powers_at_zero_as_in_torch(exponent):
    torch = pytest.importorskip("torch")
    theirs = torch.zeros(1, requires_grad=True, dtype=torch.float64)
    (theirs**exponent).sum().backward()
    ours = Tensor(np.zeros(1), requires_grad=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = ours**exponent
        y.sum().backward()
    np.testing.assert_array_equal(y.data, (theirs**exponent).detach().numpy())
    np.testing.assert_array_equal(ours.grad, theirs.grad.numpy())


def test_odd_powers_of_negative_numbers():
    x = Tensor(np.array([-2.0, -0.5]), requires_grad=True)
    (x**3 + x**2 + x**-1).sum().backward()
    np.testing.assert_allclose(x.grad, 3 * x.data**2 + 2 * x.data - x.data**-2.0, rtol=1e-14)


def test_a_conversion_converts_the_gradient_back():
    x = Tensor(np.array([1.0, 2.0], dtype=np.float32), requires_grad=True)
    y = x.to(np.float64)
    assert y.dtype == np.float64
    (y * np.array([1.0, 3.0])).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [1, 3])


def test_the_mean_of_large_float32_arrays():
    """A sum in float32 one by one would stop at 2²⁴."""
    assert Tensor(np.ones((1 << 12, 1 << 13), np.float32)).mean().item() == 1.0


def test_min_as_in_torch():
    torch = pytest.importorskip("torch")
    array = np.random.default_rng(0).integers(0, 3, (4, 5, 3)).astype(np.float64)  # many ties
    for dim in (None, 0, -1):
        ours, theirs = Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        ours_min, theirs_min = (ours.min(), theirs.min()) if dim is None else (ours.min(dim)[0], theirs.min(dim)[0])
        ours_min.sum().backward()
        theirs_min.sum().backward()
        np.testing.assert_array_equal(ours_min.data, theirs_min.detach().numpy())
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy())
        if dim is not None:
            np.testing.assert_array_equal(ours.min(dim).indices, theirs.min(dim).indices.numpy())


def test_the_corners_of_abs_clip_and_relu_as_in_torch():
    torch = pytest.importorskip("torch")
    from minillm import ops

    array = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    for function in (lambda x: x.abs(), abs, lambda x: x.clip(-0.5, 0.5), lambda x: x.clip(0.5, -0.5), ops.relu):
        ours, theirs = Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        function(ours).sum().backward()
        function(theirs).sum().backward()
        np.testing.assert_array_equal(function(ours).data, function(theirs).detach().numpy())
        np.testing.assert_array_equal(ours.grad, theirs.grad.numpy())


def test_the_variance_keeps_its_digits_far_from_zero():
    x = np.random.default_rng(0).standard_normal(1000)
    assert Tensor((x + 4096).astype(np.float32)).var().item() == pytest.approx(x.var(ddof=1), rel=1e-3)
    with np.errstate(invalid="ignore"):
        assert np.isnan(Tensor([3.0]).var().item())


# --- comparisons ----------------------------------------------------------------------------------------------------


COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("compare", COMPARISONS)
def test_comparisons_as_in_torch(compare):
    torch = pytest.importorskip("torch")
    a, b = np.array([[0.0, 1.0, 2.0], [np.nan, -1.0, 0.5]]), np.array([0.0, 2.0, np.inf])
    found = compare(Tensor(a, requires_grad=True), Tensor(b))
    expected = compare(torch.tensor(a), torch.tensor(b)).numpy()
    assert isinstance(found, np.ndarray) and found.dtype == bool
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(compare(Tensor(a), b), expected)
    np.testing.assert_array_equal(compare(a, Tensor(b)), expected)
    for number in (1, 0.5, np.float64(1), True):
        np.testing.assert_array_equal(compare(Tensor(a), number), compare(torch.tensor(a), number).numpy())
        np.testing.assert_array_equal(compare(number, Tensor(a)), compare(number, torch.tensor(a)).numpy())


def test_a_comparison_is_a_mask_for_where_and_for_products():
    from minillm import ops

    x = Tensor(np.array([-1.0, 2.0, 3.0]), requires_grad=True)
    (ops.where(x > 0, x * 2.0, x * 0.5) + x * (x >= 3)).sum().backward()
    np.testing.assert_array_equal(x.grad, [0.5, 2.0, 3.0])


def test_equality_compares_numbers_and_the_hash_identity():
    """As in torch: tensors may be keys of a dict and members of a set, and == with what has no numbers is False."""
    x, y = zeros(2), zeros(2)
    assert (x == y).all() and hash(x) != hash(y) and len({x, y, x}) == 2 and {x: 1}[x] == 1
    assert (x == None) is False and (x != "word") is True  # noqa: E711
    assert x in [x, y] and y not in {x}  # a list looks for identity first, a set by the hash
    with pytest.raises(TypeError, match="<"):
        x < None  # noqa: B015
    with pytest.raises(ValueError, match=r"eq: .*\(2,\).*\(3,\)"):
        x == zeros(3)  # noqa: B015
    with pytest.raises(TypeError, match=r"lt: .*float64.*float32"):
        x < zeros(2, dtype=np.float32)  # noqa: B015


# --- shapes ---------------------------------------------------------------------------------------------------------


def test_reshape_takes_a_shape_in_both_spellings():
    x = zeros(2, 6)
    assert x.reshape(3, -1).shape == x.reshape((3, -1)).shape == x.reshape([3, 4]).shape == (3, 4)
    assert zeros(1).reshape(()).shape == zeros(1, 1).reshape([]).shape == ()


def test_expand_and_permute_take_both_spellings_and_share_memory():
    x = zeros(2, 1, 3)
    assert x.expand(4, 2, 5, -1).shape == x.expand((4, 2, 5, 3)).shape == (4, 2, 5, 3)
    assert x.permute(2, 0, -2).shape == x.permute((2, 0, 1)).shape == (3, 2, 1)
    assert np.shares_memory(x.expand(2, 5, 3).data, x.data) and np.shares_memory(x.permute(1, 0, 2).data, x.data)
    assert zeros(3).expand(0, 3).shape == (0, 3) and zeros().permute().shape == ()


def test_a_gradient_can_be_given_to_backward():
    x = Tensor(np.ones((2, 2)), requires_grad=True)
    (x * 3.0).backward(np.array([[1.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_array_equal(x.grad, [[3, 0], [0, 6]])


# --- errors name the operation and the values -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: zeros(2, 3) + zeros(2, 4), ["add", "(2, 3)", "(2, 4)", "3 meets 4"]),
        (lambda: zeros(2, 3) - zeros(4), ["sub", "(2, 3)", "(4,)"]),
        (lambda: zeros(2, 3) * np.zeros((3, 3)), ["mul", "(2, 3)", "(3, 3)"]),
        (lambda: np.zeros(5) / zeros(2, 3), ["div", "(2, 3)", "(5,)"]),
        (lambda: np.zeros(5) - zeros(2, 3), ["sub", "(2, 3)", "(5,)"]),
        (lambda: zeros(2, 3) @ zeros(2, 3), ["matmul", "(2, 3)"]),
        (lambda: zeros(3) @ zeros(3, 2), ["matmul", "(3,)", "(3, 2)"]),
        (lambda: zeros(2, 2, 3) @ zeros(3, 3, 4), ["matmul", "(2, 2, 3)", "(3, 3, 4)"]),
        (lambda: zeros(2, 3).reshape(4, 2), ["6", "(4,2)"]),
        (lambda: zeros(2, 3).expand(2, 4), ["expand", "(2, 3)", "(2, 4)"]),
        (lambda: zeros(2, 3).expand(3), ["expand", "(2, 3)", "(3,)"]),
        (lambda: zeros(3).expand(-1, 3), ["expand", "(3,)", "(-1, 3)"]),
        (lambda: zeros(2, 3).permute(0, 0), ["permute", "(2, 3)", "(0, 0)"]),
        (lambda: zeros(2, 3).permute(1, 2), ["permute", "(2, 3)", "(1, 2)"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, names):
    with pytest.raises(ValueError) as error:
        call()
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: zeros(2) + zeros(2, dtype=np.float32), ["add", "float64", "float32"]),
        (lambda: zeros(2, dtype=np.float32) * np.zeros(2), ["mul", "float64", "float32"]),
        (lambda: zeros(2, 2) @ zeros(2, 2, dtype=np.float32), ["matmul", "float64", "float32"]),
        (lambda: zeros(2) ** zeros(2), ["pow", "Tensor"]),
        (lambda: zeros(2) ** "2", ["pow", "str"]),
        (lambda: zeros(2).to(np.int64), ["to", "int64"]),
        (lambda: zeros(2).to(np.float16), ["to", "float16"]),
        (lambda: zeros(2) + None, ["add", "None"]),
        (lambda: zeros(2) * "2", ["mul", "'2'"]),
        (lambda: zeros(2) - 1j, ["sub", "1j"]),
        (lambda: zeros(2) @ None, ["matmul", "None"]),
    ],
)
def test_types_that_do_not_fit_are_named(call, names):
    with pytest.raises(TypeError) as error:
        call()
    for name in names:
        assert name in str(error.value)


def test_backward_errors():
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        zeros(1).sum().backward()
    with pytest.raises(RuntimeError, match=r"shape \(2, 3\)"):
        (Parameter(np.zeros((2, 3))) * 2.0).backward()
    y = Parameter(np.zeros((2, 3))) * 2.0
    with pytest.raises(ValueError, match=r"\(3,\).*\(2, 3\)"):
        y.backward(np.ones(3))
    with pytest.raises(ValueError, match=r"float32.*float64"):
        y.backward(np.ones((2, 3), np.float32))


def test_a_backward_with_a_wrong_shape_is_caught():
    """The engine's own check: grad.shape == x.shape and grad.dtype == x.dtype at every step."""

    def wrong_shape(grad, needs):
        return (grad[:1],)

    def wrong_dtype(grad, needs):
        return (grad.astype(np.float32),)

    for backward, message in ((wrong_shape, r"\(1,\).*\(3,\)"), (wrong_dtype, "float32.*float64")):
        x = Parameter(np.zeros(3))
        out = Tensor.from_op(x.data * 1, (x,), backward, ())
        with pytest.raises(AssertionError, match=message):
            out.backward(np.ones(3))


def test_an_array_times_a_tensor_is_a_matrix_product_with_a_gradient():
    a, b = np.arange(6.0).reshape(2, 3), Tensor(np.ones((3, 2)), requires_grad=True)
    product = a @ b
    np.testing.assert_array_equal(product.data, a @ b.data)
    product.sum().backward()
    np.testing.assert_array_equal(b.grad, a.T @ np.ones((2, 2)))


def test_a_tensor_is_true_as_its_only_element_is():
    assert not Tensor(0.0)
    assert Tensor([2.0])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(Tensor([1.0, 2.0]))
