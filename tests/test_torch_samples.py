"""PyTorch's own samples: what its developers test an op with, and the settings of its optimizers, given to ours.

Values and gradients must be equal, or the call is refused, for a reason that is written down here. `op_db` and
`optim_db` are PyTorch's lists; they come with it, and need the package expecttest.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ops_samples import METHODS, OPS

from minillm import ops
from minillm.engines.sgd import SGD
from minillm.optim import AdamW
from minillm.tensor import Parameter, Tensor

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="PyTorch's samples need it: pip install expecttest")

with warnings.catch_warnings():  # of modules that PyTorch's tests import
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_optimizers import optim_db


optim = SimpleNamespace(AdamW=AdamW, SGD=SGD)


class LacksError(TypeError):
    """What an adapter raises for a setting that our op has not."""


# --- PyTorch's calls, spelled as ours --------------------------------------------------------------------------------


def to(x, *arguments, memory_format):
    """Device, copying and layout say nothing to NumPy."""
    dtype = next((a.dtype for a in arguments if isinstance(a, Tensor)), x.dtype)
    names = [str(a).removeprefix("torch.") for a in arguments if isinstance(a, torch.dtype)]
    return x.to(names[0] if names else dtype)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    if weight is None:
        raise LacksError("a norm without a weight")
    return ops.layer_norm(x, weight, bias, eps)


def rms_norm(x, shape, weight=None, eps=None):
    if weight is None:
        raise LacksError("a norm without a weight")
    return ops.rms_norm(x, weight, np.finfo(x.dtype).eps if eps is None else eps)


def attention(q, k, v, attn_mask=None, *, is_causal=False, dropout_p=0.0, enable_gqa=False, **options):
    if dropout_p:
        raise LacksError("chance")
    if is_causal and q.shape[-2] != k.shape[-2]:
        raise LacksError("a triangle aligned top-left")
    return ops.attention(q, k, v, causal=is_causal, mask=attn_mask, **options)


def cross_entropy(x, target, **options):
    """In torch classes are the second axis, here the last."""
    return ops.cross_entropy(x.permute(0, *range(2, x.ndim), 1), target, **options)


def dropout(x, p=0.5, training=True):
    if training and 0 < p < 1:
        raise LacksError("chance")
    return ops.dropout(x, p, training=training)


def getitem(x, index):
    return x[index]


def topk(x, k, dim=-1, largest=True, sorted=True):
    """Of the smallest it is the largest of −x."""
    if x.ndim == 0:
        raise LacksError("an axis of a number without axes")
    found = x.topk(k, dim) if largest else (-x).topk(k, dim)
    return found if largest else found._replace(values=-found.values)


def reflected(name: str) -> Callable:
    return lambda x, other: getattr(x, name)(other)


CALLS: dict[str, Callable] = {  # PyTorch's name, and its variant if it has one -> our call
    "add": operator.add,
    "__radd__": reflected("__radd__"),
    "sub": operator.sub,
    "__rsub__": reflected("__rsub__"),
    "mul": operator.mul,
    "__rmul__": reflected("__rmul__"),
    "div no_rounding_mode": operator.truediv,
    "__rdiv__": reflected("__rtruediv__"),
    "neg": operator.neg,
    "pow": operator.pow,
    "exp": Tensor.exp,
    "log": Tensor.log,
    "sqrt": Tensor.sqrt,
    "abs": Tensor.abs,
    "clamp": Tensor.clip,
    "tanh": Tensor.tanh,
    "sigmoid": Tensor.sigmoid,
    "to": to,
    "matmul": operator.matmul,
    "__rmatmul__": reflected("__rmatmul__"),
    "sum": Tensor.sum,
    "mean": Tensor.mean,
    "topk": topk,
    "max reduction_no_dim": Tensor.max,
    "max reduction_with_dim": Tensor.max,
    "min reduction_no_dim": Tensor.min,
    "min reduction_with_dim": Tensor.min,
    "var": Tensor.var,
    "var unbiased": Tensor.var,
    "reshape": Tensor.reshape,
    "expand": Tensor.expand,
    "transpose": Tensor.transpose,
    "permute": Tensor.permute,
    "__getitem__": getitem,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "cat": ops.cat,
    "stack": ops.stack,
    "where": lambda x, condition, other: ops.where(condition, x, other),
    "softmax": ops.softmax,
    "log_softmax": ops.log_softmax,
    "nn.functional.linear": ops.linear,
    "nn.functional.embedding": lambda weight, ids: ops.embedding(ids, weight),
    "nn.functional.gelu": ops.gelu,
    "nn.functional.relu": ops.relu,
    "nn.functional.logsigmoid": ops.log_sigmoid,
    "nn.functional.silu": ops.silu,
    "nn.functional.layer_norm": layer_norm,
    "nn.functional.rms_norm": rms_norm,
    "nn.functional.scaled_dot_product_attention": attention,
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.linear_cross_entropy": ops.linear_cross_entropy,
    "nn.functional.mse_loss": ops.mse_loss,
    "nn.functional.binary_cross_entropy_with_logits": ops.binary_cross_entropy_with_logits,
    "nn.functional.dropout": dropout,
}
SPELLED = {  # theirs: ours
    "__rdiv__": "__rtruediv__", "clamp": "clip", "logsigmoid": "log_sigmoid",
    "scaled_dot_product_attention": "attention",
}  # fmt: skip
OPERATORS = {"add", "sub", "mul", "div", "neg", "pow", "matmul", "eq", "ne", "lt", "le", "gt", "ge"}
NO_SAMPLES = {  # ours that PyTorch has no samples for
    "__abs__": "Python's abs(x), which is x.abs(): those samples",
    "rope": "not an op of PyTorch: test_ops.py compares with complex numbers",
    "swiglu": "not an op of PyTorch: test_ops.py composes it",
    "lstm": "PyTorch tests it as a module: so does test_ops.py",
    "lstm_cell": "PyTorch tests it as a module: so does test_ops.py",
}

SCALED = "a scaled operand is written out: a + 2 * b"
ONE_PRECISION = "float32 and float64 don't mix in silence"
NUMBERS = "bounds are numbers; a bound for each element is written with where"
LAST_AXIS = "a norm is over the last axis, as in every model here"
WEIGHTED = "no class weights: no model here needs them"
PROBABILITIES = "a target is a class; soft targets are label_smoothing's"
TO_TRAIN = "a loss is one number, to call backward() on"
OUTPUT_LAYER = "the output layer is one matrix without a bias, as in every model here"
CHANCE = "what is drawn at random differs between engines: test_ops.py compares with a given mask"
REFUSED = {  # (PyTorch's name, what our message says) -> the reason
    ("add", "no keyword arguments"): SCALED,
    ("sub", "no keyword arguments"): SCALED,
    ("pow", "the exponent must be a Python number"): "a tensor's power is written as it is differentiated: exp(n ln x)",
    ("clamp", "must be Python numbers"): NUMBERS,
    ("matmul", "each needs at least 2 axes"): "a vector's missing axis is said by reshape, not guessed",
    ("__rmatmul__", "each needs at least 2 axes"): "as matmul",
    ("var", "unexpected keyword argument 'unbiased'"): "correction=0 or 1 says it, in torch too",
    ("var", "an integer is required"): "unbiased by position: as above",
    ("var", "correction must be a number"): "1 is the default; None would say the same",
    ("transpose", "out of bounds"): "a number has no axes to swap",
    ("topk", "an axis of a number"): "a number has no axes to look along",
    ("cat", "must all have as many axes"): "torch passes over an empty vector beside anything, for old code's sake",
    ("layer_norm", "must have 1 axis"): LAST_AXIS,
    ("layer_norm", "a norm without a weight"): LAST_AXIS,
    ("rms_norm", "must have 1 axis"): LAST_AXIS,
    ("rms_norm", "a norm without a weight"): LAST_AXIS,
    ("scaled_dot_product_attention", "must each have 4 axes"): "(batch, heads, length, features), always",
    ("scaled_dot_product_attention", "mask must be boolean"): "True = may look; a mask to be added says the same",
    ("scaled_dot_product_attention", "aligned top-left"): "ours is aligned bottom-right, as a cache needs it",
    ("scaled_dot_product_attention", "chance"): CHANCE,
    ("dropout", "chance"): CHANCE,
    ("dropout", "at least 0 and below 1"): "p = 1 leaves nothing to learn from",
    ("cross_entropy", "one class id for each row"): PROBABILITIES,
    ("cross_entropy", "unexpected keyword argument 'weight'"): WEIGHTED,
    ("linear_cross_entropy", "one class id for each row"): PROBABILITIES,
    ("linear_cross_entropy", "must have 2 axes"): OUTPUT_LAYER,
    ("linear_cross_entropy", "unexpected keyword argument 'linear_bias'"): OUTPUT_LAYER,
    ("linear_cross_entropy", "multiple values for argument 'weight'"): WEIGHTED,
    ("mse_loss", "reduction must be 'mean' or 'sum'"): TO_TRAIN,
    ("binary_cross_entropy_with_logits", "reduction must be 'mean' or 'sum'"): TO_TRAIN,
    ("binary_cross_entropy_with_logits", "unexpected keyword argument 'weight'"): WEIGHTED,
    ("binary_cross_entropy_with_logits", "unexpected keyword argument 'pos_weight'"): WEIGHTED,
}
REFUSED_OF_REFERENCES = {  # met by the long form only
    **{(name, "both must be of one precision"): ONE_PRECISION for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    ("cat", "float32 or float64, not float16"): ONE_PRECISION,
}


def samples_of(info: Any, dtype: Any, form: str) -> list:
    torch.manual_seed(0)
    samples = getattr(info, form)("cpu", dtype, requires_grad=info.supports_autograd)
    return [sample for sample in samples if not isinstance(sample.input, (int, float))]  # two numbers are Python's


def both(value: Any, leaves: list) -> tuple[Any, Any]:
    """A value of a sample as ours takes it, and as torch does; tensors that want a gradient are noted in `leaves`."""
    if isinstance(value, torch.Tensor):
        theirs = value.detach()  # some samples are leaves and views at once, and get no gradient
        if not value.is_floating_point():
            return theirs.numpy(), theirs
        ours = Tensor(theirs.numpy(), requires_grad=value.requires_grad)
        if value.requires_grad:
            leaves.append((ours, theirs.requires_grad_()))
        return ours, theirs
    if isinstance(value, (list, tuple)):
        pairs = [both(item, leaves) for item in value]
        return type(value)(a for a, _ in pairs), type(value)(b for _, b in pairs)
    if isinstance(value, dict):
        pairs = {key: both(item, leaves) for key, item in value.items()}
        return {key: a for key, (a, _) in pairs.items()}, {key: b for key, (_, b) in pairs.items()}
    return value, value


def compare(call: Callable, info: Any, sample: Any, rtol: float) -> None:
    """Raises what ours raises, and AssertionError where values or gradients differ."""
    leaves: list = []
    (x, t_x), (rest, t_rest), (options, t_options) = (
        both(value, leaves) for value in (sample.input, sample.args, sample.kwargs)
    )
    theirs = info.op(t_x, *t_rest, **t_options)
    with np.errstate(all="ignore"):
        ours, theirs = (r[0] if isinstance(r, tuple) else r for r in (call(x, *rest, **options), theirs))
        array, expected = ours.data if isinstance(ours, Tensor) else np.asarray(ours), theirs.detach().numpy()
        assert array.shape == expected.shape and array.dtype == expected.dtype
        np.testing.assert_allclose(array, expected, rtol=rtol, atol=rtol)
        if not theirs.requires_grad:
            return
        grad = np.asarray(np.random.default_rng(0).standard_normal(expected.shape), expected.dtype)
        ours.backward(grad)
    wanted = torch.autograd.grad(theirs, [leaf for _, leaf in leaves], torch.from_numpy(grad), allow_unused=True)
    for (x, _), want in zip(leaves, wanted):
        assert (x.grad is None) == (want is None)
        if want is not None:
            scale = float(np.max(np.abs(np.nan_to_num(want.numpy(), posinf=0, neginf=0)), initial=1.0))
            np.testing.assert_allclose(x.grad, want.numpy(), rtol=rtol, atol=rtol * scale)
            assert x.grad.dtype == x.dtype


def compare_all(name: str, form: str, refused: dict) -> tuple[int, set]:
    """Every sample of one op in both precisions: how many were equal, and the keys of `refused` that were met."""
    op, _, variant = name.partition(" ")
    (info,) = [i for i in op_db if (i.name, i.variant_test_name) == (op, variant)]
    n_equal, met = 0, set()
    for dtype, rtol in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
        for sample in samples_of(info, dtype, form):
            try:
                compare(CALLS[name], info, sample, rtol)
                n_equal += 1
            except (TypeError, ValueError, IndexError) as error:
                reasons = {key for key in refused if key[0] == op.split(".")[-1] and key[1] in str(error)}
                assert reasons, f"{sample} is refused, and REFUSED doesn't say why: {error!r}"
                met |= reasons
    return n_equal, met


@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_torchs_or_the_call_is_refused_for_a_reason(name):
    n_equal, met = compare_all(name, "sample_inputs", REFUSED)
    assert n_equal or name in ("pow", "clamp", "var unbiased")  # PyTorch's samples hold nothing but what is refused
    op = name.partition(" ")[0]
    for other in CALLS:  # another list of samples of the same op: what it is refused for may be met there only
        if other != name and other.partition(" ")[0] == op:
            met |= compare_all(other, "sample_inputs", REFUSED)[1]
    unmet = {key for key in REFUSED if key[0] == op.split(".")[-1]} - met
    assert not unmet, f"{unmet} are not refused any more: take them out of REFUSED."


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("clamp", "where")])
def test_the_longer_list_of_samples(name):
    """Among them infinities, NaN, huge numbers and every layout. (clamp's and where's hold integers only.)"""
    compare_all(name, "reference_inputs", {**REFUSED, **REFUSED_OF_REFERENCES})


def test_every_op_and_method_is_compared():
    names = {name.partition(" ")[0].split(".")[-1] for name in CALLS}
    ours = {f"__{name}__".replace("div", "truediv") if name in OPERATORS else SPELLED.get(name, name) for name in names}
    assert ours >= (set(OPS) | set(METHODS)) - set(NO_SAMPLES)
    assert not ours & set(NO_SAMPLES)


# --- optimizers -------------------------------------------------------------------------------------------------------

REFUSED_SETTINGS = {  # of PyTorch's optimizers, and why ours has them not
    "maximize": "a loss is made small; for the opposite, negate it",
    "amsgrad": "no model is trained with it any more",
    "dampening": "momentum without it, as all models are trained",
    "lr a tensor": "a Python number: there is no graph to capture",
}
SETTINGS = [
    (info.optim_cls.__name__, settings.kwargs)
    for info in optim_db
    if info.optim_cls.__name__ in ("AdamW", "SGD")
    for settings in info.optim_inputs_func(device="cpu")
]


def few_steps(make: Callable, module: Any) -> list[np.ndarray]:
    """Two parameters, one gradient after another; large and small ones take turns."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    params = [Parameter(a.copy()) if module is optim else torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    optimizer = make(params)
    for step in range(12):
        for p in params:
            grad = rng.standard_normal(tuple(p.shape)) * 10.0 ** (-3 * (step % 3))
            p.grad = grad if module is optim else torch.tensor(grad)
        optimizer.step()
    return [p.data if module is optim else p.detach().numpy() for p in params]


@pytest.mark.parametrize("place", ["of all", "of one group", "of both groups"])
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_optimizers_step_as_torchs(name, settings, place):
    """With every setting that PyTorch tests: given to the constructor, to a group, and to two groups, of which the
    second's learning rate is another."""

    def make(module: Any) -> Callable:
        cls = getattr(module, name)
        if place == "of all":
            return lambda params: cls(params, **settings)
        if place == "of one group":
            return lambda params: cls([{"params": params[0], **settings}, {"params": params[1:]}], lr=0.02)
        return lambda params: cls([{"params": p, **settings, **more} for p, more in zip(params, ({}, {"lr": 0.05}))])

    if set(settings) & set(REFUSED_SETTINGS) or isinstance(settings.get("lr"), torch.Tensor):
        with pytest.raises((TypeError, ValueError), match=r"maximize|amsgrad|dampening|lr must be"):
            few_steps(make(optim), optim)
    else:
        for ours, wanted in zip(few_steps(make(optim), optim), few_steps(make(torch.optim), torch.optim)):
            np.testing.assert_allclose(ours, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_what_torchs_optimizers_refuse_ours_refuse(name):
    """(Its cases without settings are about parameters: test_optim.py.)"""
    (info,) = [info for info in optim_db if info.optim_cls.__name__ == name]
    cls, p = getattr(optim, name), Parameter(np.ones(3))
    cases = [case.optimizer_error_input.kwargs for case in info.optim_error_inputs_func("cpu", torch.float64)]
    for settings in filter(None, cases):
        with pytest.raises((TypeError, ValueError)):
            cls([p], **settings)
        with pytest.raises((TypeError, ValueError)):
            cls([{"params": [p], **settings}])
