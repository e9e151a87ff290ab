"""Module: what it owns, under which names, and what it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from minillm import nn, ops
from minillm.tensor import Parameter, Tensor


class Tied(nn.Module):
    """A table used twice, a list of layers, a constant, and things that a Module does not own."""

    def __init__(self, rng):
        self.table = nn.Embedding(5, 4, rng=rng)
        self.layers = [nn.Linear(4, 4, rng=rng), nn.LayerNorm(4), nn.Dropout(0.5, rng)]
        self.scale = Parameter(np.ones(4, np.float32))
        self.head = nn.Linear(4, 5, bias=False, rng=rng)
        self.head.weight = self.table.weight
        self.angles = np.linspace(0, 1, 4)
        self.counts = np.arange(4)
        self.name = "tied"
        self.sizes = [1, 2]

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x * self.scale)


@pytest.fixture
def model():
    return Tied(np.random.default_rng(0))


NAMES = ["scale", "table.weight", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]


def test_names_stand_in_the_order_of_the_attributes_and_a_tied_weight_once(model):
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert len(list(model.parameters())) == len({id(p) for p in model.parameters()}) == 6
    assert [name for name, _ in model.named_modules()] == ["", "table", "layers.0", "layers.1", "layers.2", "head"]


def test_names_and_order_as_in_torch(model):
    """What checkpoints and optimizer states rely on when a model moves to PyTorch."""
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(5, 4)
            self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Dropout(0.5)])
            self.scale = torch.nn.Parameter(torch.ones(4))
            self.head = torch.nn.Linear(4, 5, bias=False)
            self.head.weight = self.table.weight

    assert [name for name, _ in Theirs().named_parameters()] == NAMES
    assert {n: tuple(p.shape) for n, p in Theirs().named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }


def test_a_tied_weight_gets_both_gradients(model):
    model.eval()
    ids = np.array([1, 1, 3])
    model(ids).sum().backward()
    together = model.table.weight.grad.copy()
    untied = copy.deepcopy(model)
    untied.head.weight = Parameter(model.table.weight.data.copy())
    untied.zero_grad()
    untied(ids).sum().backward()
    np.testing.assert_allclose(together, untied.table.weight.grad + untied.head.weight.grad, rtol=1e-5, atol=1e-6)


def test_state_dict_holds_the_arrays_themselves(model):
    state = model.state_dict()
    assert list(state) == NAMES
    assert all(state[name] is p.data for name, p in model.named_parameters())


def test_load_state_dict_copies_into_the_parameters(model):
    other = Tied(np.random.default_rng(1))
    arrays = {name: p.data for name, p in model.named_parameters()}
    model.load_state_dict(other.state_dict())
    for name, p in model.named_parameters():
        assert p.data is arrays[name] and p.data is not other.state_dict()[name]
        np.testing.assert_array_equal(p.data, other.state_dict()[name])
    assert model.head.weight is model.table.weight


def changed(state, **changes):
    state = {name: array.copy() + 1 for name, array in state.items()}
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"scale": None}, ["missing: scale (4,)"]),
        ({"head__weight": np.zeros((5, 4))}, ["unexpected: head.weight (5, 4)"]),
        ({"layers__0__bias": np.zeros(3)}, ["layers.0.bias", "(3,)", "(4,)"]),
        ({"scale": np.ones(1)}, ["scale", "(1,)"]),
        ({"layers__1__bias": None, "extra": np.zeros(2)}, ["missing: layers.1.bias", "unexpected: extra (2,)"]),
    ],
)
def test_load_state_dict_loads_all_or_nothing(model, changes, messages):
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        model.load_state_dict(changed(before, **changes))
    for message in messages:
        assert message in str(error.value)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_load_state_dict_keeps_the_models_dtype(model):
    model.load_state_dict({name: array.astype(np.float64) for name, array in model.state_dict().items()})
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float32)}


def test_an_unknown_attribute_raises(model):
    with pytest.raises(AttributeError, match="wieght"):
        _ = model.head.wieght
    with pytest.raises(TypeError, match="Module defines no forward"):
        nn.Module()(1)


def test_train_and_eval_reach_every_module(model):
    assert model.training and all(module.training for _, module in model.named_modules())
    assert model.eval() is model
    assert not any(module.training for _, module in model.named_modules())
    ids = np.array([[0, 1]])
    np.testing.assert_array_equal(model(ids).data, model(ids).data)
    assert model.train() is model and all(module.training for _, module in model.named_modules())
    assert (model(ids).data != model(ids).data).any()
    other = Tied(np.random.default_rng(0))
    model.eval()
    assert other.training


def test_to_converts_parameters_constants_and_gradients(model):
    model.eval()
    ids = np.array([1, 2])
    model(ids).sum().backward()
    assert model.to(np.float64) is model
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    assert model.angles.dtype == np.float64 and model.counts.dtype.kind == "i"
    assert model.head.weight is model.table.weight
    model(ids).sum().backward()  # adds to the gradients from before
    assert {p.grad.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    model.to(np.float32)
    assert model.angles.dtype == np.float32
    model(ids).sum().backward()
    assert {p.grad.dtype for p in model.parameters()} == {np.dtype(np.float32)}


def test_to_refuses_other_precisions(model):
    for dtype in (np.float16, np.int64):
        with pytest.raises(TypeError, match=np.dtype(dtype).name):
            model.to(dtype)
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float32)}


def test_zero_grad_forgets_gradients(model):
    model(np.array([1])).sum().backward()
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_layers_are_the_ops(model):
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((2, 3, 4)).astype(np.float32))
    linear, norm, rms = nn.Linear(4, 6, rng=rng), nn.LayerNorm(4), nn.RMSNorm(4)
    np.testing.assert_array_equal(linear(x).data, ops.linear(x, linear.weight, linear.bias).data)
    np.testing.assert_array_equal(norm(x).data, ops.layer_norm(x, norm.weight, norm.bias, 1e-5).data)
    np.testing.assert_array_equal(rms(x).data, ops.rms_norm(x, rms.weight, 1e-6).data)
    assert nn.Linear(4, 6, bias=False, rng=rng)(x).shape == (2, 3, 6)


def test_initial_weights_have_the_standard_deviation_they_were_asked_for():
    linear = nn.Linear(300, 200, std=0.05, rng=np.random.default_rng(0))
    assert linear.weight.data.std() == pytest.approx(0.05, rel=0.02)
    assert abs(linear.weight.data.mean()) < 0.001 and not linear.bias.data.any()


# --- the key/value cache --------------------------------------------------------------------------------------------


def test_the_cache_returns_everything_so_far():
    rng = np.random.default_rng(0)
    cache = nn.KVCache(2, capacity=6)
    parts = [rng.standard_normal((2, 3, n, 4)) for n in (2, 1, 3)]
    for i, part in enumerate(parts):
        so_far = np.concatenate(parts[: i + 1], axis=2)
        for layer in range(2):
            k, v = cache.update(layer, Tensor(part), Tensor(-part))
            np.testing.assert_array_equal(k.data, so_far)
            np.testing.assert_array_equal(v.data, -so_far)
        assert cache.length == so_far.shape[2]


def test_a_cache_whose_length_is_set_back_forgets_the_last_positions():
    rng = np.random.default_rng(0)
    cache = nn.KVCache(1, capacity=4)
    first, wrong, right = (rng.standard_normal((1, 1, n, 2)) for n in (2, 2, 1))
    cache.update(0, Tensor(first), Tensor(first))
    cache.update(0, Tensor(wrong), Tensor(wrong))
    cache.length = 2
    k, v = cache.update(0, Tensor(right), Tensor(-right))
    np.testing.assert_array_equal(k.data, np.concatenate([first, right], axis=2))
    np.testing.assert_array_equal(v.data, np.concatenate([first, -right], axis=2))


def test_a_full_cache_says_so():
    cache = nn.KVCache(1, capacity=3)
    cache.update(0, Tensor(np.zeros((1, 1, 2, 4))), Tensor(np.zeros((1, 1, 2, 4))))
    with pytest.raises(ValueError, match="4 positions do not fit into a cache of 3"):
        cache.update(0, Tensor(np.zeros((1, 1, 2, 4))), Tensor(np.zeros((1, 1, 2, 4))))


def test_the_default_eps_of_the_norms_is_torchs_and_llamas():
    """With features so small that eps decides: 1e-5 for layer norm, 1e-6 for RMS norm, in ops and in layers."""
    x = np.array([1e-4, -1e-4, 3e-4, -3e-4])
    ones, zeros = Tensor(np.ones(4)), Tensor(np.zeros(4))
    mean_square = np.mean(x * x)
    for found, eps in (
        (ops.layer_norm(Tensor(x), ones, zeros), 1e-5),
        (ops.rms_norm(Tensor(x), ones), 1e-6),
        (nn.LayerNorm(4).to(np.float64)(Tensor(x)), 1e-5),
        (nn.RMSNorm(4).to(np.float64)(Tensor(x)), 1e-6),
    ):
        np.testing.assert_allclose(found.data, x / np.sqrt(mean_square + eps), rtol=1e-12)
