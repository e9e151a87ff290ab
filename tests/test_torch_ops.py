"""Every op of ops.py gives the same values and gradients on PyTorch as on NumPy; tracing; autocast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from ops_samples import OPS, Call  # noqa: E402

from minillm import ops  # noqa: E402
from minillm.tensor import Tensor  # noqa: E402

every_op = pytest.mark.parametrize("name", sorted(OPS))


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def as_list(result):
    return list(result) if isinstance(result, tuple) else [result]


def to_tensors(call):
    tensors = [torch.tensor(a, requires_grad=True) for a in call.inputs]
    return tensors, {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in call.options.items()}


def on_numpy(op, call):
    """Outputs, and gradients of the inputs under a random projection of the outputs."""
    tensors = [Tensor(a, requires_grad=True) for a in call.inputs]
    outs = as_list(op(*tensors, **call.options))
    for out in outs:
        out.backward(normal(*out.shape), retain_graph=out is not outs[-1])
    return [out.data for out in outs] + [t.grad for t in tensors]


def on_torch(op, call, **more):
    tensors, options = to_tensors(call)
    outs = as_list(op(*tensors, **options, **more))
    torch.autograd.backward(outs, [torch.tensor(normal(*out.shape)) for out in outs])
    return [out.detach().numpy() for out in outs] + [t.grad.numpy() for t in tensors]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11 * np.max(np.abs(b), initial=1.0))


@every_op
@settings(max_examples=25)
@given(data=st.data())
def test_same_numbers_as_numpy(name, data):
    call = data.draw(OPS[name].calls)
    assert_same(on_torch(OPS[name].ours, call), on_numpy(OPS[name].ours, call))


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@settings(max_examples=50)
@given(call=OPS["attention"].calls)
def test_each_attention_gives_the_same(call, impl):
    assert_same(on_torch(OPS["attention"].ours, call, impl=impl), on_numpy(OPS["attention"].ours, call))


def test_a_query_that_sees_nothing_gives_zeros_and_no_nan():
    keep = np.ones((2, 1, 5, 5), dtype=bool)
    keep[0, :, 2] = False
    for impl in ("reference", "sdpa"):
        call = Call([normal(2, 4, 5, 6), normal(2, 2, 5, 6), normal(2, 2, 5, 6)], {"mask": keep})
        out, dq, dk, dv = on_torch(ops.attention, call, impl=impl)
        assert not out[0, :, 2].any() and not dq[0, :, 2].any()
        assert all(np.isfinite(a).all() for a in (out, dq, dk, dv))


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
def test_attention_dropout_keeps_the_mean(impl):
    torch.manual_seed(0)
    q = torch.randn(1, 2, 8, 4)
    v = torch.ones(1, 2, 8, 4)
    out = torch.stack([ops.attention(q, q, v, causal=True, dropout_p=0.5, impl=impl) for _ in range(400)])
    assert out.std() > 0.1
    assert abs(out.mean().item() - 1) < 0.05


def test_attention_takes_mixed_dtypes():
    q = torch.randn(1, 2, 5, 4)
    v = q.bfloat16()
    for impl in ("reference", "sdpa"):
        assert ops.attention(q, q, v, causal=True, impl=impl).dtype == torch.bfloat16


def test_triton_where_it_cannot_run_says_why():
    pytest.importorskip("triton")
    q = torch.randn(1, 1, 4, 512)
    with pytest.raises(RuntimeError, match="impl='triton' cannot run here: head size 512"):
        ops.attention(q, q, q, impl="triton")


def test_dropout_zeroes_the_right_share():
    torch.manual_seed(0)
    x = torch.ones(100_000)
    y = ops.dropout(x, 0.3)
    assert abs((y == 0).float().mean().item() - 0.3) < 0.01
    assert torch.equal(y.unique(), torch.tensor([0, 1 / 0.7]))
    assert ops.dropout(x, 0.3, training=False) is x


@pytest.mark.parametrize("want_h", [True, False])
@pytest.mark.parametrize("want_weight", [True, False])
def test_linear_cross_entropy_gives_the_gradients_that_are_wanted(want_h, want_weight):
    h = torch.tensor(normal(2, 5, 4), requires_grad=want_h)
    weight = torch.tensor(normal(7, 4), requires_grad=want_weight)
    t = torch.randint(0, 7, (2, 5))
    t[0, 1:3] = -100
    ours = ops.linear_cross_entropy(h, weight, t, label_smoothing=0.1)
    theirs = ops.cross_entropy(ops.linear(h, weight), t, label_smoothing=0.1)
    assert abs(ours.item() - theirs.item()) < 1e-14
    wanted = [x for x in (h, weight) if x.requires_grad]
    if wanted:
        for a, b in zip(torch.autograd.grad(ours, wanted), torch.autograd.grad(theirs, wanted)):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    with torch.no_grad():
        assert not ops.linear_cross_entropy(h, weight, t).requires_grad


def test_each_rows_loss_in_chunks(monkeypatch):
    from minillm import torch_ops

    monkeypatch.setattr(torch_ops, "CHUNK", 4)
    h, weight = torch.tensor(normal(2, 5, 4), requires_grad=True), torch.tensor(normal(7, 4), requires_grad=True)
    t = torch.randint(0, 7, (2, 5))
    t[0, 1:3] = -100
    ours = ops.linear_cross_entropy(h, weight, t, reduction="none")
    theirs = ops.cross_entropy(ops.linear(h, weight), t, reduction="none")
    assert ours.shape == (2, 5)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)
    by = torch.tensor(normal(2, 5))
    for a, b in zip(
        torch.autograd.grad((ours * by).sum(), (h, weight)), torch.autograd.grad((theirs * by).sum(), (h, weight))
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_linear_cross_entropy_under_autocast():
    h, weight = torch.randn(64, 32, requires_grad=True), torch.randn(50, 32, requires_grad=True)
    t = torch.randint(0, 50, (64,))
    exact = ops.linear_cross_entropy(h, weight, t)
    dh, dweight = torch.autograd.grad(exact, (h, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ops.linear_cross_entropy(h, weight, t)
    assert loss.dtype == torch.float32
    assert abs(loss.item() - exact.item()) < 0.02 * exact.item()
    for a, b in zip(torch.autograd.grad(loss, (h, weight)), (dh, dweight)):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


def ids(array):
    return np.zeros(np.shape(array), dtype=np.int64)


MISTAKES = {
    "linear's features": lambda x, c: ops.linear(x, x[:, 1:]),
    "linear's bias": lambda x, c: ops.linear(x, x, x[0]),
    "gelu's form": lambda x, c: ops.gelu(x, "erf"),
    "swiglu's shapes": lambda x, c: ops.swiglu(x, x[:1]),
    "layer_norm's weight": lambda x, c: ops.layer_norm(x, x[0, 1:]),
    "layer_norm's bias": lambda x, c: ops.layer_norm(x, x[0], x[0, 1:]),
    "rms_norm's weight": lambda x, c: ops.rms_norm(x, x[0, 1:]),
    "dropout's share": lambda x, c: ops.dropout(x, 1.0),
    "dropout's mask": lambda x, c: ops.dropout(x, 0.5, mask=c(np.ones(4, dtype=bool))),
    "attention's axes": lambda x, c: ops.attention(x, x, x),
    "attention's impl": lambda x, c: ops.attention(*[x[None, None]] * 3, impl="fast"),
    "attention's mask": lambda x, c: ops.attention(*[x[None, None]] * 3, mask=c(np.ones((2, 3)) > 0)),
    "attention's segments": lambda x, c: ops.attention(*[x[None, None]] * 3, segments=c(np.zeros((1, 4), int))),
    "attention's segments and mask": lambda x, c: ops.attention(
        *[x[None, None]] * 3, mask=c(np.ones((3, 3)) > 0), segments=c(np.zeros((1, 3), int))
    ),
    "rope's angles": lambda x, c: ops.rope(x[None, None], x, x),
    "lstm_cell's state": lambda x, c: ops.lstm_cell(x, x, x[:1], x, x),
    "lstm's axes": lambda x, c: ops.lstm(x, x, x, x, x),
    "lstm's weights": lambda x, c: ops.lstm(x[:, None], x, x, x, x),
    "lstm's biases": lambda x, c: ops.lstm(x[:, None], x, x, x, x, x[0]),
    "cross_entropy's reduction": lambda x, c: ops.cross_entropy(x, c(ids(range(3))), reduction="max"),
    "cross_entropy's targets": lambda x, c: ops.cross_entropy(x, c(ids(range(4)))),
    "cross_entropy's smoothing": lambda x, c: ops.cross_entropy(x, c(ids(range(3))), label_smoothing=1.5),
    "linear_cross_entropy's features": lambda x, c: ops.linear_cross_entropy(x, x[:, 1:], c(ids(range(3)))),
    "linear_cross_entropy's targets": lambda x, c: ops.linear_cross_entropy(x, x, c(ids(range(4)))),
    "mse_loss's shapes": lambda x, c: ops.mse_loss(x, x[:1]),
    "mse_loss's reduction": lambda x, c: ops.mse_loss(x, x, reduction="none"),
    "binary_cross_entropy's shapes": lambda x, c: ops.binary_cross_entropy_with_logits(x, c(np.zeros((1, 4)))),
    "binary_cross_entropy's reduction": lambda x, c: ops.binary_cross_entropy_with_logits(x, x, reduction="max"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_both_engines_say_the_same_of_a_mistake(mistake):
    said = []
    for tensor, constant in ((Tensor, np.asarray), (torch.tensor, torch.tensor)):
        with pytest.raises(ValueError, match=f"^{mistake.split(chr(39))[0]}.*must ") as error:
            MISTAKES[mistake](tensor(np.zeros((3, 4))), constant)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_both_engines_refuse_a_mask_that_is_not_boolean():
    for tensor, constant in ((Tensor, np.asarray), (torch.tensor, torch.tensor)):
        x = tensor(np.zeros((1, 1, 3, 4)))
        with pytest.raises(TypeError, match="attention: mask must be boolean"):
            ops.attention(x, x, x, mask=constant(np.zeros((3, 3))))


def test_both_engines_refuse_segments_that_are_no_integers():
    for tensor, constant in ((Tensor, np.asarray), (torch.tensor, torch.tensor)):
        x = tensor(np.zeros((1, 1, 3, 4)))
        ops.attention(x, x, x, segments=constant(np.zeros((1, 3), np.int32)))
        with pytest.raises(TypeError, match=r"attention: segments must be int64 or int32, not (torch\.)?float64"):
            ops.attention(x, x, x, segments=constant(np.zeros((1, 3))))


@every_op
@settings(max_examples=1)
@given(data=st.data())
def test_traces_without_a_graph_break(name, data):
    call = data.draw(OPS[name].calls)
    compiled = torch.compile(OPS[name].ours, fullgraph=True, backend="aot_eager")
    assert_same(on_torch(compiled, call), on_torch(OPS[name].ours, call))
