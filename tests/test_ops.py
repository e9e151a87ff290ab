"""Every op and every differentiable method of Tensor, each put to every check (ops_samples.py lists them).

After the checks for all come what single ops promise beyond them: far tails, masks, ignored targets, chunk boundaries,
error messages.
"""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_samples import ENTRIES, METHODS, NOT_DIFFERENTIABLE, OPS, PRIMITIVES, Call

from minillm import numpy_ops, ops
from minillm.debug import debug_mode
from minillm.tensor import Node, Tensor, no_grad, topological_order

every_entry = pytest.mark.parametrize("name", sorted(ENTRIES))
every_twin = pytest.mark.parametrize("name", sorted(set(ENTRIES) - PRIMITIVES))
examples = settings(max_examples=20)


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch")


# --- running a call -------------------------------------------------------------------------------------------------


def outputs(result) -> list:
    return list(result) if isinstance(result, tuple) else [result]


def random_like(outs: list, seed: int = 0) -> list[np.ndarray]:
    """One incoming gradient for each output: the random projection that turns outputs into a scalar loss."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(out.shape).astype(out.dtype) for out in outs]


def gradients(op, call: Call, grads=None, needs=None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Values of the outputs, and Σ gradient · ∂output/∂input for each input."""
    tensors = [Tensor(array, requires_grad=needs is None or i in needs) for i, array in enumerate(call.inputs)]
    outs = outputs(op(*tensors, **call.options))
    for i, (out, grad) in enumerate(zip(outs, random_like(outs) if grads is None else grads)):
        out.backward(grad, retain_graph=i < len(outs) - 1)
    return [out.data for out in outs], [tensor.grad for tensor in tensors]


def torch_gradients(torch, op, call: Call, grads: list[np.ndarray]):
    tensors = [torch.from_numpy(np.array(array)).requires_grad_() for array in call.inputs]
    outs = outputs(op(*tensors, **call.options))
    loss = sum((out * torch.from_numpy(np.array(grad))).sum() for out, grad in zip(outs, grads))
    found = torch.autograd.grad(loss, tensors, allow_unused=True)
    zeros = [np.zeros(array.shape) for array in call.inputs]
    return [out.detach().numpy() for out in outs], [z if g is None else g.numpy() for g, z in zip(found, zeros)]


def as_float32(call: Call) -> Call:
    def convert(value):
        return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value

    return Call([convert(a) for a in call.inputs], {k: convert(v) for k, v in call.options.items()})


def as_float64(call: Call) -> Call:
    def convert(value):
        return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value

    return Call([convert(a) for a in call.inputs], {k: convert(v) for k, v in call.options.items()})


def close(found: list, expected: list, rtol: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        scale = float(np.max(np.abs(b), initial=1.0))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


LAYOUTS = ("contiguous", "fortran", "swapped", "sliced", "reversed", "repeated rows", "repeated columns", "one number")


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The array with other strides, read-only; the "repeated" ones have stride 0, and so other values too."""
    array = array.copy()
    if layout == "fortran" and array.ndim:
        array = np.asfortranarray(array)
    elif layout == "swapped" and array.ndim >= 2:
        array = np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)
    elif layout == "sliced" and array.ndim:
        room = np.full((*array.shape[:-1], 2 * array.shape[-1] + 1), np.nan, array.dtype)
        room[..., 1::2] = array
        array = room[..., 1::2]
    elif layout == "reversed" and array.ndim:
        array = array[::-1].copy()[::-1]
    elif layout == "repeated rows" and array.ndim and array.size:
        array = np.broadcast_to(array[:1], array.shape)
    elif layout == "repeated columns" and array.ndim and array.size:
        array = np.broadcast_to(array[..., :1], array.shape)
    elif layout == "one number" and array.ndim and array.size:
        array = np.broadcast_to(array.flat[0], array.shape)
    array.flags.writeable = False
    return array


# --- the checks, each for every entry -------------------------------------------------------------------------------


@every_entry
@examples
@given(data=st.data())
def test_gradients_equal_finite_differences(name, data):
    """In float64: move all inputs along random directions by ±ε, one input at a time; the loss must change as the
    gradient says."""
    entry = ENTRIES[name]
    call = data.draw(entry.calls)
    outs, grads = gradients(entry.ours, call)
    projection = random_like(outs)
    rng = np.random.default_rng(1)
    eps = 1e-6
    for i, x in enumerate(call.inputs):
        direction = rng.standard_normal(x.shape)
        losses = []
        for step in (eps, -eps):
            moved = [
                Tensor(np.asarray(x + step * direction)) if j == i else Tensor(a) for j, a in enumerate(call.inputs)
            ]
            results = outputs(entry.ours(*moved, **call.options))
            losses.append(sum(float((w * out.data).sum()) for w, out in zip(projection, results)))
        measured = (losses[0] - losses[1]) / (2 * eps)
        claimed = float((grads[i] * direction).sum())
        assert claimed == pytest.approx(measured, rel=1e-6, abs=1e-7 * (1 + abs(losses[0])))


@every_entry
@examples
@given(data=st.data())
def test_values_and_gradients_equal_torch_in_any_layout(name, data, torch):
    """In float64 at 1e-12, inputs and incoming gradients contiguous, transposed, sliced, reversed or with stride 0.
    All of them
    are read-only: neither forward nor backward may write into what it was given."""
    entry = ENTRIES[name]
    call = data.draw(entry.calls)
    layout = st.sampled_from(LAYOUTS)
    call = Call([laid_out(array, data.draw(layout)) for array in call.inputs], call.options)
    shapes = outputs(entry.ours(*[Tensor(a) for a in call.inputs], **call.options))
    grads = [laid_out(grad, data.draw(layout)) for grad in random_like(shapes)]
    found, found_grads = gradients(entry.ours, call, grads)
    expected, expected_grads = torch_gradients(torch, entry.torch, call, grads)
    assert [a.shape for a in found] == [tuple(b.shape) for b in expected]
    close(found, expected, 1e-12)
    close(found_grads, expected_grads, 1e-12)


@every_entry
@examples
@given(data=st.data())
def test_float32_stays_float32_and_agrees_with_float64(name, data):
    entry = ENTRIES[name]
    call = as_float32(data.draw(entry.calls))
    outs, grads = gradients(entry.ours, call)
    assert {array.dtype for array in outs + grads} == {np.dtype(np.float32)}
    assert [g.shape for g in grads] == [x.shape for x in call.inputs]
    outs64, grads64 = gradients(entry.ours, as_float64(call), [w.astype(np.float64) for w in random_like(outs)])
    assert {array.dtype for array in outs64 + grads64} == {np.dtype(np.float64)}
    close(outs, outs64, 1e-4)
    close(grads, grads64, 1e-4)


@every_twin
@examples
@given(data=st.data())
def test_the_composed_twin_agrees(name, data):
    """The op written from primitives, with no derivative of its own, has the same values and gradients."""
    entry = ENTRIES[name]
    call = data.draw(entry.calls)
    found, found_grads = gradients(entry.ours, call)
    expected, expected_grads = gradients(entry.twin, call)
    assert [a.shape for a in found] == [b.shape for b in expected]
    close(found, expected, 1e-11)
    close(found_grads, expected_grads, 1e-11)


def graph(out: Tensor) -> list[Node]:
    return [] if out.node is None else topological_order(out.node)


def saved_arrays(nodes: list[Node], but_not: list) -> list[weakref.ref]:
    known = {id(array) for array in arrays_in(but_not)}
    return [weakref.ref(array) for array in arrays_in([node.saved for node in nodes]) if id(array) not in known]


def arrays_in(things) -> list[np.ndarray]:
    """All arrays in nested tuples and lists."""
    if isinstance(things, np.ndarray):
        return [things]
    return [array for thing in things for array in arrays_in(thing)] if isinstance(things, (tuple, list)) else []


@every_entry
@settings(max_examples=8)
@given(data=st.data())
def test_the_graph_is_freed(name, data):
    """Without the garbage collector: when the result is dropped, and when backward() has run, nothing of the graph is
    left."""
    entry = ENTRIES[name]
    call = data.draw(entry.calls)
    tensors = [Tensor(array, requires_grad=True) for array in call.inputs]
    kept = [t.data for t in tensors] + list(call.options.values())
    gc.disable()
    try:
        outs = outputs(entry.ours(*tensors, **call.options))
        tracked = saved_arrays(graph(outs[0]), kept) + [weakref.ref(out) for out in outs]
        outs.clear()
        assert [ref() for ref in tracked if ref() is not None] == [], "a dropped result left something behind"

        outs = outputs(entry.ours(*tensors, **call.options))
        nodes = graph(outs[0])
        tracked = saved_arrays(nodes, kept + [out.data for out in outs])
        outs[0].backward(random_like(outs)[0])
        assert all(node.saved is None and node.parents == () for node in nodes)
        if len(outs) == 1:  # an LSTM's other output keeps its own node
            assert [ref() for ref in tracked if ref() is not None] == [], "backward() left something behind"
    finally:
        gc.enable()


@every_entry
@settings(max_examples=5)
@given(data=st.data())
def test_debug_mode_protects_everything_that_backward_needs(name, data):
    """Nothing that a node saves is still to be written, and nothing is left read-only when backward has run."""
    entry = ENTRIES[name]
    call = data.draw(entry.calls)
    tensors = [Tensor(array, requires_grad=True) for array in call.inputs]
    with debug_mode():
        outs = outputs(entry.ours(*tensors, **call.options))
        nodes = [node for out in outs for node in graph(out)]
        saved = [array for array in arrays_in([node.saved for node in nodes]) if array.base is None]
        assert not any(array.flags.writeable for array in saved)
        for i, (out, grad) in enumerate(zip(outs, random_like(outs))):
            out.backward(grad, retain_graph=i < len(outs) - 1)
        outs.clear()
        nodes.clear()
    del out
    assert all(array.flags.writeable for array in saved)


@every_entry
@settings(max_examples=8)
@given(data=st.data())
def test_each_input_alone_gets_the_same_gradient(name, data):
    """A backward computes only the gradients that are needed, and these do not depend on which."""
    entry = ENTRIES[name]
    call = data.draw(entry.calls)
    _, everything = gradients(entry.ours, call)
    for i in range(len(call.inputs)):
        _, alone = gradients(entry.ours, call, needs={i})
        assert [g is not None for g in alone] == [j == i for j in range(len(call.inputs))]
        close([alone[i]], [everything[i]], 1e-14)


@every_entry
@settings(max_examples=8)
@given(data=st.data())
def test_a_second_backward_adds_the_same_again(name, data):
    """With retain_graph: a backward that wrote into its saved arrays or its incoming gradient would differ the second
    time."""
    entry = ENTRIES[name]
    call = data.draw(entry.calls)
    _, once = gradients(entry.ours, call)
    tensors = [Tensor(array, requires_grad=True) for array in call.inputs]
    outs = outputs(entry.ours(*tensors, **call.options))
    grads = random_like(outs)
    for _ in range(2):
        for out, grad in zip(outs, grads):
            out.backward(grad, retain_graph=True)
    close([t.grad for t in tensors], [2 * g for g in once], 1e-14)


@every_entry
@settings(max_examples=5)
@given(data=st.data())
def test_no_graph_without_need(name, data):
    entry = ENTRIES[name]
    call = data.draw(entry.calls)
    for out in outputs(entry.ours(*[Tensor(a) for a in call.inputs], **call.options)):
        assert out.node is None and not out.requires_grad
    with no_grad():
        for out in outputs(entry.ours(*[Tensor(a, requires_grad=True) for a in call.inputs], **call.options)):
            assert out.node is None and not out.requires_grad


@every_entry
@settings(max_examples=5)
@given(data=st.data())
def test_float32_and_float64_do_not_mix(name, data):
    """One input of another precision than the rest: an error that names both, not a network that turns float64 in
    silence."""
    entry = ENTRIES[name]
    call = data.draw(entry.calls)
    if len(call.inputs) < 2:
        return
    for odd in range(len(call.inputs)):
        tensors = [Tensor(a.astype(np.float64 if i == odd else np.float32)) for i, a in enumerate(call.inputs)]
        with pytest.raises(TypeError, match=r"float32.*float64|float64.*float32"):
            entry.ours(*tensors, **as_float32(call).options)


# --- the meta-test: no op escapes -----------------------------------------------------------------------------------


def test_every_op_and_every_method_is_registered():
    assert set(OPS) == set(ops.__all__) == set(numpy_ops.__all__)
    methods = {name for name, value in vars(Tensor).items() if callable(value) or isinstance(value, staticmethod)}
    assert set(METHODS) | NOT_DIFFERENTIABLE == methods, "give a new method of Tensor an entry in ops_samples.py"
    assert not set(METHODS) & NOT_DIFFERENTIABLE


def test_every_check_runs_on_every_entry():
    checks = {
        "finite differences": test_gradients_equal_finite_differences,
        "torch": test_values_and_gradients_equal_torch_in_any_layout,
        "dtype": test_float32_stays_float32_and_agrees_with_float64,
        "freed": test_the_graph_is_freed,
    }
    for what, check in checks.items():
        assert every_entry.mark in check.pytestmark, what
    assert every_twin.mark in test_the_composed_twin_agrees.pytestmark
    for name, entry in ENTRIES.items():
        assert callable(entry.ours) and callable(entry.torch), name
        assert (entry.twin is None) == (name in PRIMITIVES), f"{name} has no composed twin"
        assert name not in OPS or entry.twin.__module__ == twins.__name__, f"{name}: a twin belongs into twins.py"


def test_twins_use_no_fused_op():
    """A twin that called the op would agree with it, whatever it does."""
    assert not {"ops", "numpy_ops"} & set(vars(twins))
