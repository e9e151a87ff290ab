"""Numbers at the edge: empty axes, tensors without axes, infinities, values whose squares overflow. What PyTorch gives
is right, and stands here as a number."""

from __future__ import annotations

import numpy as np
import pytest

from minillm import nn, ops
from minillm.engines.sgd import SGD
from minillm.optim import AdamW, clip_grad_norm_
from minillm.tensor import Parameter, Tensor


def gradient(f, *arrays):
    """The gradients of the sum of f's outcome, in all its arguments."""
    leaves = [Tensor(np.asarray(a), requires_grad=True) for a in arrays]
    y = f(*leaves)
    y.backward(np.ones(y.shape, y.dtype))
    return [x.grad for x in leaves]


# --- indices ----------------------------------------------------------------------------------------------------------

INDICES = [
    (0, slice(None), [1, 2]),
    ([1, 0], slice(None), 2),
    (slice(None), 1, slice(None), [0, 1, 1]),
    (..., 1, [0, 2]),
    (1, None, slice(None), np.array([0, 0])),
    (np.array(1), slice(None), [0, 2]),
    (np.int64(1), slice(1, 2), [0, 2]),
    (0, slice(None), np.array([True, False, True, True])),
    (np.array([[True, False, True], [False, True, True]]), slice(None), 1),
    (1, ..., [0, 2]),
    ([0, 1], slice(None), [1, 2]),
    (-1, [0, 1]),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_numbers_beside_arrays_in_an_index_put_the_axes_where_torch_does(index):
    torch = pytest.importorskip("torch")
    a = np.arange(120.0).reshape(2, 3, 4, 5)
    parts = tuple(torch.from_numpy(p) if isinstance(p, np.ndarray) else int(p) if isinstance(p, np.int64) else p
                  for p in index)  # fmt: skip
    x, t = Tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)
    found, expected = x[index], t[parts]
    np.testing.assert_array_equal(found.data, expected.detach().numpy())
    grad = np.random.default_rng(0).standard_normal(found.shape)
    found.backward(grad)
    expected.backward(torch.from_numpy(grad))
    np.testing.assert_allclose(x.grad, t.grad.numpy(), rtol=1e-14)


def test_an_index_of_numbers_and_slices_stays_one_view():
    x = Tensor(np.zeros((2, 3, 4)), requires_grad=True)
    y = x[0, :, 1]
    assert y.node.parents == (x,) and np.shares_memory(y.data, x.data)


# --- nothing, and numbers without axes --------------------------------------------------------------------------------


def test_no_axes_are_all_axes():
    x = Tensor(np.arange(4.0).reshape(2, 2))
    for empty in ((), []):
        assert (x.sum(empty).data, x.mean(empty).data, x.var(empty, correction=0).data) == (6.0, 1.5, 1.25)
    assert x.sum([0, 1]).data == 6.0 and x.sum((), keepdim=True).shape == (1, 1)


@pytest.mark.parametrize("dim", [0, -1, (0,), [-1]])
@pytest.mark.parametrize("keepdim", [False, True])
def test_a_number_has_an_axis_after_all(dim, keepdim):
    for method, right in ((Tensor.sum, 1.0), (Tensor.mean, 1.0)):
        (grad,) = gradient(lambda x, method=method: method(x, dim, keepdim), 2.0)
        assert grad.shape == () and grad == right
    x = Tensor(np.float64(2.0))
    assert x.var(dim, correction=0, keepdim=keepdim).data == 0.0
    if isinstance(dim, int):
        values, indices = x.max(dim, keepdim)
        assert values.shape == indices.shape == () and (values.data, indices) == (2.0, 0)
        assert ops.softmax(x, dim).data == 1.0 and ops.log_softmax(x, dim).data == 0.0
    with pytest.raises(ValueError, match="out of bounds"):
        x.sum(1)


def test_the_mean_of_nothing_is_nan_and_of_no_rows_there_is_none():
    x = Tensor(np.zeros((0, 3)), requires_grad=True)
    assert np.isnan(x.mean().data) and x.mean(1).shape == (0,)
    assert x.mean(0).shape == (3,) and np.isnan(x.mean(0).data).all()
    x.mean().backward()
    assert x.grad.shape == (0, 3)


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
def test_softmax_over_an_empty_axis(op):
    for shape, dim in (((3, 0), -1), ((0, 3), 0), ((0, 3), 1), ((2, 0, 3), 1)):
        (grad,) = gradient(lambda x, dim=dim: op(x, dim), np.zeros(shape))
        assert grad.shape == shape


def test_linear_without_features_gives_the_bias():
    y = ops.linear(Tensor(np.zeros((2, 0))), Tensor(np.zeros((4, 0))), Tensor(np.arange(4.0)))
    assert y.data.tolist() == [[0, 1, 2, 3]] * 2
    for x, w in (((2, 0), (4, 0)), ((2, 3), (0, 3)), ((0, 3), (4, 3))):
        grads = gradient(ops.linear, np.ones(x), np.ones(w))
        assert [g.shape for g in grads] == [x, w]
    (grad,) = gradient(lambda w: ops.embedding(np.array([[0, 1]]), w), np.zeros((3, 0)))
    assert grad.shape == (3, 0)
    h, w = Tensor(np.zeros((2, 0)), True), Tensor(np.zeros((4, 0)), True)
    loss = ops.linear_cross_entropy(h, w, np.array([0, 3]))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(4)) and (h.grad.shape, w.grad.shape) == ((2, 0), (4, 0))


# --- what overflows on the way ----------------------------------------------------------------------------------------


def test_the_gradient_of_a_quotient_does_not_square_its_divisor():
    a, b = np.array([1e-25, 0, 1e20], np.float32), np.array([1e-25, 1e-25, 1e20], np.float32)
    da, db = gradient(lambda a, b: a / b, a, b)
    np.testing.assert_allclose(db, [-1e25, 0, -1e-20], rtol=1e-6)
    np.testing.assert_allclose(da, [1e25, 1e25, 1e-20], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_far_out(dtype):
    far = [2e13, 1e19, 1e30]
    x = np.array([*far, *(-v for v in far)], dtype)
    assert ops.gelu(Tensor(x), "tanh").data.tolist() == [*x[:3].tolist(), 0, 0, 0]
    np.testing.assert_array_equal(gradient(lambda x: ops.gelu(x, "tanh"), x)[0], [1, 1, 1, 0, 0, 0])


def test_binary_cross_entropy_at_infinity():
    x, target = np.array([np.inf, np.inf, -np.inf, -np.inf, np.inf]), np.array([0, 1, 0, 1, 0.5])
    losses = [ops.binary_cross_entropy_with_logits(Tensor(x[i : i + 1]), target[i : i + 1]).item() for i in range(5)]
    assert losses == [np.inf, 0, 0, np.inf, np.inf]  # what is sure and wrong costs all, what is sure and right nothing
    (grad,) = gradient(lambda x: ops.binary_cross_entropy_with_logits(x, target, reduction="sum"), x)
    assert grad.tolist() == [1, 0, 0, -1, 0.5]


# --- tensors and numbers where the other was expected -----------------------------------------------------------------


def test_a_target_may_be_a_tensor_and_gets_its_gradient():
    x, t = np.array([1.0, 2.0, -3.0]), np.array([0.0, 1.0, 0.3])
    dx, dt = gradient(lambda x, t: ops.binary_cross_entropy_with_logits(x, t, reduction="sum"), x, t)
    np.testing.assert_allclose(dx, 1 / (1 + np.exp(-x)) - t)
    np.testing.assert_array_equal(dt, -x)
    alone = Tensor(t, requires_grad=True)  # a third of it, as the mean is asked for, times the gradient that comes in
    (ops.binary_cross_entropy_with_logits(Tensor(x), alone) * 6.0).backward()
    np.testing.assert_allclose(alone.grad, -2 * x)
    loss = ops.binary_cross_entropy_with_logits(Tensor([1.0, 2.0]), Tensor([0.0, 1.0]))
    assert loss.item() == pytest.approx(0.7201, abs=1e-4)


def test_where_takes_a_number_on_either_side():
    torch = pytest.importorskip("torch")
    condition, a = np.array([True, False]), np.array([1.0, 2.0], np.float32)
    for engine in (Tensor, torch.from_numpy):
        c = condition if engine is Tensor else torch.from_numpy(condition)
        assert [float(v) for v in ops.where(c, engine(a), 0.0).data] == [1, 0]
        assert [float(v) for v in ops.where(c, -1, engine(a)).data] == [-1, 2]
    assert gradient(lambda x: ops.where(condition, x, 0.0), a)[0].tolist() == [1, 0]
    with pytest.raises(TypeError, match="must be a tensor"):
        ops.where(condition, 1.0, 0.0)
    with pytest.raises(TypeError, match="condition must be boolean, not int64"):
        ops.where(np.array([1, 0]), Tensor(a), 0.0)


def test_backward_takes_a_tensor_and_names_what_does_not_fit():
    x = Tensor(np.ones(2), requires_grad=True)
    (x * x).backward(Tensor(np.array([1.0, 3.0])))
    assert x.grad.tolist() == [2, 6]
    with pytest.raises(ValueError, match=r"float32\(2,\) must be float64\(2,\)"):
        (x * x).backward(Tensor(np.ones(2, np.float32)))
    with pytest.raises(ValueError, match=r"float64\(\) must be float64\(2,\)"):
        (x * x).backward(1.0)


def test_a_norms_weight_has_one_axis_on_both_engines():
    """torch would norm over as many axes as the weight has, NumPy over the last."""
    torch = pytest.importorskip("torch")
    for make in (lambda *shape: Tensor(np.ones(shape)), lambda *shape: torch.ones(shape)):
        for op in (ops.layer_norm, ops.rms_norm):
            with pytest.raises(ValueError, match=r"weight \(2, 3\) must have 1 axis"):
                op(make(2, 2, 3), make(2, 3))
        with pytest.raises(ValueError, match=r"linear: weight \(3,\) must have 2 axes"):
            ops.linear(make(2, 3), make(3))
        with pytest.raises(ValueError, match=r"x \(\) must end with"):
            ops.linear(make(), make(2, 3))


def test_more_smoothing_than_there_is_is_refused_on_both_engines():
    torch = pytest.importorskip("torch")
    ids = np.array([1])
    for x, w, targets in ((Tensor(np.zeros((1, 3))), Tensor(np.zeros((4, 3))), ids),
                          (torch.zeros(1, 3), torch.zeros(4, 3), torch.from_numpy(ids))):  # fmt: skip
        for smoothing in (2.0, -0.1, float("nan")):
            with pytest.raises(ValueError, match=f"label_smoothing must be from 0 to 1, not {smoothing}"):
                ops.cross_entropy(x, targets, label_smoothing=smoothing)
            with pytest.raises(ValueError, match=f"label_smoothing must be from 0 to 1, not {smoothing}"):
                ops.linear_cross_entropy(x, w, targets, label_smoothing=smoothing)


# --- optimizers -------------------------------------------------------------------------------------------------------


def stepped(optimizer, p, *grads):
    for grad in grads:
        p.grad = np.asarray(grad, p.dtype)
        optimizer.step()
    return p.data


def test_a_groups_own_momentum():
    p, q = Parameter(np.zeros(1)), Parameter(np.zeros(1))
    optimizer = SGD([{"params": [p], "momentum": 0.9}, {"params": [q]}], lr=0.1)
    assert stepped(optimizer, p, [1.0], [1.0], [1.0]) == pytest.approx(-0.561)
    assert [*optimizer.state[id(p)]] == ["momentum_buffer"] and not optimizer.state[id(q)]


def test_momentum_that_comes_later_begins_with_the_gradient():
    p = Parameter(np.zeros(1))
    optimizer = SGD([p], lr=0.1)
    stepped(optimizer, p, [1.0])
    optimizer.param_groups[0]["momentum"] = 0.5
    assert stepped(optimizer, p, [1.0], [1.0]) == pytest.approx(-0.1 - 0.1 - 0.15)


@pytest.mark.parametrize(
    ("cls", "setting", "message"),
    [
        (AdamW, {"lr": -1.0}, "lr must be 0 or more, not -1.0"),
        (AdamW, {"lr": float("nan")}, "lr must be 0 or more, not nan"),
        (AdamW, {"lr": float("inf")}, "lr must be 0 or more, not inf"),
        (AdamW, {"lr": "0.1"}, "lr must be 0 or more, not 0.1"),
        (AdamW, {"eps": -1e-8}, "eps must be 0 or more"),
        (AdamW, {"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        (AdamW, {"betas": (1.0, 0.9)}, r"betas must be at least 0 and below 1, two of them, not \(1.0, 0.9\)"),
        (AdamW, {"betas": (-0.1, 0.9)}, r"two of them, not \(-0.1, 0.9\)"),
        (AdamW, {"betas": (0.9,)}, "two of them"),
        (SGD, {"momentum": -0.5}, "momentum must be 0 or more"),
        (SGD, {"weight_decay": float("nan")}, "weight_decay must be 0 or more"),
        (SGD, {"nesterov": True}, "nesterov looks ahead along the momentum"),
    ],
    ids=str,
)
def test_a_groups_settings_are_checked_as_the_constructors(cls, setting, message):
    with pytest.raises(ValueError, match=message):
        cls([Parameter(np.ones(2))], **setting)
    with pytest.raises(ValueError, match=message):
        cls([{"params": [Parameter(np.ones(2))], **setting}])


@pytest.mark.parametrize("cls", [AdamW, SGD])
def test_parameters_come_in_a_list(cls):
    p = Parameter(np.ones(3))
    with pytest.raises(TypeError, match="a list of Parameters or of groups, not one of them"):
        cls(p)
    with pytest.raises(TypeError, match="a list of Parameters or of groups, not one of them"):
        cls({"params": [p]})
    assert cls([{"params": p}]).params == [p]  # a group may hold one, as in torch
    for wrong in ([np.ones(3)], [("name", p)], [p * 2]):
        with pytest.raises(TypeError, match="params must be Parameters"):
            cls(wrong)
    for wrong in ([{"params": [p]}, Parameter(np.ones(3))], [{"lr": 0.1}]):
        with pytest.raises(TypeError, match='each parameter group must be a dictionary with "params", not '):
            cls(wrong)


def test_the_gradient_of_one_parameter_is_clipped_too():
    p = Parameter(np.ones(3))
    p.grad = np.full(3, 100.0)
    assert clip_grad_norm_(p, 1.0) == pytest.approx(100 * np.sqrt(3))
    np.testing.assert_allclose(p.grad, 1 / np.sqrt(3))
    assert clip_grad_norm_(p, 0.0) == pytest.approx(1.0) and not p.grad.any()
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="max_norm must be 0 or more"):
            clip_grad_norm_([p], wrong)


def test_adamw_without_a_first_moment_follows_the_gradient_however_small():
    p = Parameter(np.zeros(1, np.float32))
    optimizer = AdamW([p], lr=1.0, betas=(0.0, 0.0), weight_decay=0.0)
    assert stepped(optimizer, p, [100.0], [1e-6]) == pytest.approx(-1.990, abs=1e-3)
    assert optimizer.state[id(p)]["exp_avg"] == np.float32(1e-6)


def test_adamw_with_a_long_first_moment_keeps_its_digits_beside_a_gradient_however_large():
    p = Parameter(np.zeros(1, np.float32))
    optimizer = AdamW([p], betas=(0.9999, 0.999))
    optimizer.state[id(p)]["exp_avg"][:] = 1.0
    stepped(optimizer, p, [1e8])  # g − β₁(g − m) would be wrong by an ulp of 1e8, which is 8
    assert optimizer.state[id(p)]["exp_avg"] == pytest.approx(10000.9999, rel=1e-6)


@pytest.mark.parametrize("make", [AdamW, lambda ps: SGD(ps, momentum=0.9)])
def test_a_model_may_be_converted_after_the_optimizer_was_made(make):
    """Its state goes along: the steps are those of a model that was float64 before."""

    class Model(nn.Module):
        def __init__(self):
            self.w = Parameter(np.ones(3, np.float32))

    first, second = Model(), Model()
    second.to(np.float64)
    optimizers = make(list(first.parameters())), make(list(second.parameters()))
    for model, optimizer in zip((first, second), optimizers):
        stepped(optimizer, model.w, [1.0, 2.0, 3.0])
        model.to(np.float64)
        stepped(optimizer, model.w, [1.0, -2.0, 0.5])
        assert all(a.dtype == np.float64 for a in optimizer.state[id(model.w)].values())
    np.testing.assert_allclose(first.w.data, second.w.data, rtol=1e-6)


def test_several_differences_of_a_state_are_counted_and_one_is_not():
    p, q = Parameter(np.ones(2)), Parameter(np.ones(2))
    optimizer, names = AdamW([p, q]), {id(p): "p", id(q): "q"}
    state = optimizer.state_dict(names)
    del state["p.exp_avg"]
    with pytest.raises(ValueError, match=r"do not fit this model:\n  missing: p.exp_avg \(2,\)$"):
        optimizer.check_state_dict(names, state)
    del state["q.exp_avg"]
    with pytest.raises(ValueError, match=r"missing: p.exp_avg \(2,\)\n  missing: q.exp_avg \(2,\)$"):
        optimizer.check_state_dict(names, state)


@pytest.mark.parametrize("cls", [AdamW, SGD])
def test_a_parameter_that_is_not_contiguous_is_named(cls):
    p = Parameter(np.ones((2, 3)).T)
    with pytest.raises(ValueError, match=r"a parameter of shape \(3, 2\) is not contiguous"):
        stepped(cls([p]), p, np.ones((3, 2)))
