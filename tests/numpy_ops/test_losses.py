"""Losses: targets that do not count, extreme logits, chunks, and what happens to nonsense."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from minillm import ops
from minillm.tensor import Tensor

LOSSES = ["cross_entropy", "linear_cross_entropy"]


def loss_and_gradient(name, logits, targets, **options):
    """Either op on given logits; linear_cross_entropy gets them as logits @ identityᵀ."""
    x = Tensor(np.asarray(logits), requires_grad=True)
    if name == "cross_entropy":
        loss = ops.cross_entropy(x, targets, **options)
    else:
        loss = ops.linear_cross_entropy(x, Tensor(np.eye(x.shape[-1], dtype=x.dtype)), targets, **options)
    loss.backward()
    return loss.item(), x.grad


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_ignored_rows_are_as_if_they_were_not_there(name, reduction, label_smoothing):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((7, 5))
    targets = np.array([0, -100, 4, 2, -100, -100, 1])
    counts = targets != -100
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    loss, grad = loss_and_gradient(name, logits, targets, **options)
    only, only_grad = loss_and_gradient(name, logits[counts], targets[counts], **options)
    assert loss == pytest.approx(only, rel=1e-14)
    np.testing.assert_allclose(grad[counts], only_grad, rtol=1e-13, atol=1e-16)
    assert not grad[~counts].any()


@pytest.mark.parametrize("name", LOSSES)
def test_everything_ignored(name):
    """The sum of nothing is 0, its mean NaN, as in torch; neither sends a gradient, so a batch of padding harms no
    weight."""
    logits = np.random.default_rng(0).standard_normal((3, 4))
    targets = np.full(3, -100)
    loss, grad = loss_and_gradient(name, logits, targets, reduction="sum")
    assert loss == 0 and not grad.any()
    loss, grad = loss_and_gradient(name, logits, targets)
    assert np.isnan(loss)
    assert not grad.any()


def test_everything_ignored_as_in_torch():
    torch = pytest.importorskip("torch")
    x = torch.randn(3, 4, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x, torch.full((3,), -100))
    loss.backward()
    assert torch.isnan(loss) and not x.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_ignore_index_may_be_a_class(name):
    """With ignore_index=0 (a padding token), class 0 is not an error and does not count."""
    logits = np.random.default_rng(0).standard_normal((4, 3))
    loss, grad = loss_and_gradient(name, logits, np.array([0, 1, 2, 0]), ignore_index=0)
    only, _ = loss_and_gradient(name, logits[1:3], np.array([1, 2]))
    assert loss == pytest.approx(only, rel=1e-14) and not grad[[0, 3]].any()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_stay_finite(name, dtype):
    logits = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [0, 0, 1e4]], dtype=dtype)
    loss, grad = loss_and_gradient(name, logits, np.array([1, 0, 2]), reduction="sum")
    assert loss == pytest.approx(2e4 + np.log(3), rel=1e-6)
    np.testing.assert_allclose(grad, [[1, -1, 0], [-2 / 3, 1 / 3, 1 / 3], [0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_uniform_logits_cost_ln_v(name):
    loss, _ = loss_and_gradient(name, np.zeros((6, 17)), np.arange(6))
    assert loss == pytest.approx(np.log(17), rel=1e-14)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint16, np.uint32, np.int64])
def test_targets_of_any_integer_type(dtype):
    logits = np.random.default_rng(0).standard_normal((5, 200))
    targets = np.array([0, 3, 1, 2, 100])
    for name in LOSSES:
        expected = loss_and_gradient(name, logits, targets)[0]
        assert loss_and_gradient(name, logits, targets.astype(dtype))[0] == expected


@pytest.mark.parametrize("rows", [1, 2, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025])
def test_linear_cross_entropy_at_the_borders_of_its_chunks(rows):
    rng = np.random.default_rng(rows)
    h, weight = rng.standard_normal((rows, 3)), rng.standard_normal((5, 3))
    targets = rng.integers(0, 5, rows)
    targets[rng.random(rows) < 0.2] = -100
    targets[0] = 1
    for options in ({"reduction": "sum"}, {"label_smoothing": 0.1}, {"reduction": "none"}):
        whole = [Tensor(h, requires_grad=True), Tensor(weight, requires_grad=True)]
        fused = [Tensor(h, requires_grad=True), Tensor(weight, requires_grad=True)]
        expected = ops.cross_entropy(ops.linear(*whole), targets, **options)
        found = ops.linear_cross_entropy(*fused, targets, **options)
        weights = rng.standard_normal(rows)  # of each row's loss, where there is one for each
        for loss in (expected, found):
            (loss * weights if loss.ndim else loss).sum().backward()
        np.testing.assert_allclose(found.data, expected.data, rtol=1e-11, atol=1e-13)
        for a, b in zip(fused, whole):
            np.testing.assert_allclose(a.grad, b.grad, rtol=1e-11, atol=1e-13)


def test_linear_cross_entropy_never_holds_all_logits():
    rows, vocab_size = 4096, 1024
    rng = np.random.default_rng(0)
    h = Tensor(rng.standard_normal((rows, 4), dtype=np.float32), requires_grad=True)
    weight = Tensor(rng.standard_normal((vocab_size, 4), dtype=np.float32), requires_grad=True)
    targets = rng.integers(0, vocab_size, rows)
    tracemalloc.start()
    ops.linear_cross_entropy(h, weight, targets).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows * vocab_size * 4 / 2


def test_label_smoothing_may_be_a_numpy_number():
    """np.float64 is a Python float too, and it must not turn float32 into float64."""
    logits = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    for name in LOSSES:
        _, grad = loss_and_gradient(name, logits, np.array([0, 1, 2, 0]), label_smoothing=np.float64(0.1))
        assert grad.dtype == np.float32


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_targets_that_do_not_fit_are_named(name):
    logits = np.zeros((2, 3, 5))
    with pytest.raises(IndexError, match=f"{name}: target 5 is outside the 5 classes"):
        loss_and_gradient(name, logits, np.array([[0, 1, 2], [3, 5, 0]]))
    with pytest.raises(IndexError, match="target -1 "):
        loss_and_gradient(name, logits, np.array([[0, 1, 2], [3, -1, 0]]))
    with pytest.raises(ValueError, match=rf"{name}: .*\(6,\).*\(2, 3\)"):
        loss_and_gradient(name, logits, np.zeros(6, dtype=int))
    with pytest.raises(TypeError, match=f"{name}: .*float64"):
        loss_and_gradient(name, logits, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="'none'"):
        loss_and_gradient(name, logits, np.zeros((2, 3), dtype=int), reduction="max")


def test_linear_cross_entropy_names_shapes():
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(5, 3\)"):
        ops.linear_cross_entropy(Tensor(np.zeros((2, 4))), Tensor(np.zeros((5, 3))), np.zeros(2, dtype=int))


def test_mse_and_binary_cross_entropy_refuse_to_broadcast():
    x = Tensor(np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"mse_loss: .*\(3, 1\).*\(3,\)"):
        ops.mse_loss(x, Tensor(np.zeros(3)))
    with pytest.raises(ValueError, match=r"binary_cross_entropy_with_logits: .*\(3, 1\).*\(1, 3\)"):
        ops.binary_cross_entropy_with_logits(x, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="'none'"):
        ops.mse_loss(x, x, reduction="none")
    with pytest.raises(ValueError, match="'none'"):
        ops.binary_cross_entropy_with_logits(x, np.zeros((3, 1)), reduction="none")


def test_mse_takes_an_array_as_target():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    ops.mse_loss(x, np.array([0.0, 4.0])).backward()
    np.testing.assert_array_equal(x.grad, [1.0, -2.0])


def test_targets_may_be_lists():
    x = Tensor(np.array([[1.0, 2.0], [0.0, 3.0]]))
    for op, targets in ((ops.cross_entropy, [1, 0]), (ops.mse_loss, [[1.0, 2.0], [0.0, 1.0]])):
        assert op(x, targets).item() == op(x, np.array(targets)).item()
    targets = [[1, 0], [0, 1]]
    found = ops.binary_cross_entropy_with_logits(x, targets)
    assert found.item() == ops.binary_cross_entropy_with_logits(x, np.array(targets)).item()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_far_out(dtype):
    """Where σ(x) rounds to 0 or 1 and ln σ(x) would be −∞."""
    x = Tensor(np.array([-1e4, -200.0, -30.0, 30.0, 200.0, 1e4], dtype=dtype), requires_grad=True)
    target = np.array([1, 1, 0, 1, 0, 0])
    loss = ops.binary_cross_entropy_with_logits(x, target, reduction="sum")
    assert loss.item() == pytest.approx(1e4 + 200 + 200 + 1e4, rel=1e-6)
    loss.backward()
    e = np.exp(-30.0)  # σ(−30) to ten digits: the gradient of a right and sure answer is small, not zero
    np.testing.assert_allclose(x.grad, [-1, -1, e, -e, 1, 1], rtol=1e-5, atol=1e-8 if dtype == np.float32 else 1e-16)


def test_gradient_accumulation_in_tokens_equals_one_batch():
    """Two micro-batches of 2 and 6 counted tokens: sums over the global count equal the whole; a mean of means does
    not."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 6, 5))
    targets = rng.integers(0, 5, (2, 6))
    targets[0, 2:] = -100
    whole = Tensor(logits, requires_grad=True)
    ops.cross_entropy(whole, targets).backward()
    parts = Tensor(logits, requires_grad=True)
    for i in range(2):
        (ops.cross_entropy(parts[i], targets[i], reduction="sum") * (1 / 8)).backward()
    np.testing.assert_allclose(parts.grad, whole.grad, rtol=1e-13)
    means = Tensor(logits, requires_grad=True)
    for i in range(2):
        (ops.cross_entropy(means[i], targets[i]) * 0.5).backward()
    assert np.abs(means.grad - whole.grad).max() > 0.01


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rows", [3, 1025])
def test_losses_are_added_up_in_float64(name, rows):
    """Each is 2e38, and their sum more than a float32 can hold; the mean is not."""
    logits = np.zeros((rows, 2), np.float32)
    logits[:, 1] = 2e38
    loss, grad = loss_and_gradient(name, logits, np.zeros(rows, int))
    assert loss == pytest.approx(2e38, rel=1e-6)
    np.testing.assert_allclose(grad, np.tile([-1 / rows, 1 / rows], (rows, 1)), rtol=1e-6)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kept", ["some", "none", "all"])
def test_the_head_computes_nothing_where_no_target_counts(kept, reduction, engine):
    """NaN there reaches neither loss nor gradients, which are those of the rows that count, alone."""
    rng = np.random.default_rng(0)
    h, weight = rng.standard_normal((2, 9, 5)), rng.standard_normal((7, 5))
    counts = {"some": rng.random((2, 9)) < 0.4, "none": np.zeros((2, 9), bool), "all": np.ones((2, 9), bool)}[kept]
    targets = np.where(counts, rng.integers(0, 7, (2, 9)), -100)
    alone, gradients = loss_and_gradients(h[counts], weight, targets[counts], reduction, "numpy")
    found, (dh, dweight) = loss_and_gradients(
        np.where(counts[..., None], h, np.nan), weight, targets, reduction, engine
    )
    expected = np.zeros((2, 9)) if reduction == "none" else alone
    if reduction == "none":
        expected[counts] = alone
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(dh[counts], gradients[0], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(dweight, gradients[1], rtol=1e-12, atol=1e-15)
    assert not dh[~counts].any()


def loss_and_gradients(h, weight, targets, reduction, engine):
    """The loss, and its sum's gradients in h and weight."""
    if engine == "numpy":
        parameters = [Tensor(a, requires_grad=True) for a in (h, weight)]
        loss = ops.linear_cross_entropy(*parameters, targets, reduction=reduction, label_smoothing=0.1)
        loss.sum().backward()
        return loss.data, [p.grad for p in parameters]
    torch = pytest.importorskip("torch")

    parameters = [torch.tensor(a, requires_grad=True) for a in (h, weight)]
    loss = ops.linear_cross_entropy(*parameters, torch.tensor(targets), reduction=reduction, label_smoothing=0.1)
    loss.sum().backward()
    return loss.detach().numpy(), [p.grad.numpy() for p in parameters]
