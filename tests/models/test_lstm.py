"""The LSTM language model against torch.nn.LSTM with the same weights; its state, truncated backpropagation."""

from dataclasses import asdict

import numpy as np
import pytest

from minillm import ops
from minillm.generate import Sampling, generate
from minillm.models import LSTM, LSTMConfig, config_from_dict, config_to_dict, model_from_config
from minillm.tensor import Tensor, no_grad

TINY = LSTMConfig(vocab_size=30, context=12, n_layers=3, d_model=10, d_hidden=14)


def tiny(**changes):
    return LSTMConfig(**{**asdict(TINY), **changes})


def random_model(config, seed=0):
    """A float64 model in which every parameter is random, the biases too."""
    model = LSTM(config, np.random.default_rng(seed)).to(np.float64)
    draw = np.random.default_rng(seed + 1)
    for parameter in model.parameters():
        parameter.data[...] = 0.5 * draw.standard_normal(parameter.shape)
    return model


def random_batch(config, seed=5):
    ids, targets = np.random.default_rng(seed).integers(0, config.vocab_size, (2, 3, 12))
    targets[0, :2] = -100
    return ids, targets


@pytest.mark.parametrize("tied", [False, True])
def test_logits_and_gradients_are_those_of_torch(tied):
    torch = pytest.importorskip("torch")
    config = tiny(d_hidden=10, tie_embeddings=True) if tied else TINY
    model = random_model(config)
    theirs = torch.nn.LSTM(
        config.d_model, config.hidden_features, config.n_layers, batch_first=True, dtype=torch.float64
    )
    state = {}
    for i, layer in enumerate(model.layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            state[f"{name}_l{i}"] = torch.tensor(getattr(layer, name).data)
    theirs.load_state_dict(state)
    table = torch.tensor(model.token_embedding.weight.data, requires_grad=True)
    head = table if tied else torch.tensor(model.head.weight.data, requires_grad=True)
    ids, targets = random_batch(config)

    logits = theirs(table[torch.tensor(ids)])[0] @ head.T
    assert np.abs(model(ids).data - logits.detach().numpy()).max() < 1e-9
    loss = model(ids, targets)
    t_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())
    assert abs(loss.item() - t_loss.item()) < 1e-9
    loss.backward()
    t_loss.backward()
    gradients = {"token_embedding.weight": table.grad, "head.weight": head.grad}
    for name, parameter in theirs.named_parameters():
        tensor, layer = name.rsplit("_l", 1)
        gradients[f"layers.{layer}.{tensor}"] = parameter.grad
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.grad - gradients[name].numpy()).max() < 1e-8, name


def test_carried_state_equals_one_sequence():
    model = random_model(TINY)
    ids, _ = random_batch(TINY)
    state = model.new_cache()
    with no_grad():
        parts = [model(ids[:, a:b], cache=state).data for a, b in ((0, 5), (5, 6), (6, 7), (7, 12))]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), model(ids).data, atol=1e-13)
    assert state.length == 12


def test_truncated_backpropagation():
    """The loss of a later stretch knows the earlier one through the state; its gradient stops there."""
    model = random_model(TINY)
    ids, targets = random_batch(TINY)
    state = model.new_cache()
    with no_grad():
        first = model(ids[:, :6], cache=state)
    before = [tuple(a.data.copy() for a in pair) for pair in state.layers]
    assert first.shape == (3, 6, 30)

    loss = model(ids[:, 6:], targets[:, 6:], cache=state)
    whole = model(ids).data[:, 6:]  # the same predictions as in one piece
    expected = ops.cross_entropy(Tensor(whole), targets[:, 6:]).item()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}

    model.zero_grad()  # the same if the first stretch tracked gradients: the state it leaves is a constant
    tracked = model.new_cache()
    model(ids[:, :6], targets[:, :6], cache=tracked)
    assert all(not a.requires_grad for pair in tracked.layers for a in pair)
    for pair, kept in zip(tracked.layers, before):
        np.testing.assert_array_equal(pair[0].data, kept[0])
        np.testing.assert_array_equal(pair[1].data, kept[1])
    model(ids[:, 6:], targets[:, 6:], cache=tracked).backward()
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.grad, found[name])


def test_a_sequence_is_its_steps():
    """ops.lstm is ops.lstm_cell at every step, value and gradient."""
    draw = np.random.default_rng(0)
    shapes = [(3, 5, 4), (3, 6), (3, 6), (24, 4), (24, 6), (24,), (24,)]
    arrays = [draw.standard_normal(shape) for shape in shapes]
    results = []
    for fused in (True, False):
        x, h, c, *weights = tensors = [Tensor(a, requires_grad=True) for a in arrays]
        if fused:
            out, h, c = ops.lstm(x, h, c, *weights)
        else:
            steps = []
            for t in range(5):
                h, c = ops.lstm_cell(x[:, t], h, c, *weights)
                steps.append(h)
            out = ops.stack(steps, dim=1)
        ((out * out).sum() + (h * c).sum() + c.sum()).backward()
        results.append([out.data, h.data, c.data, *(t.grad for t in tensors)])
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_lstm_refuses_what_it_cannot_use():
    x, h = Tensor(np.zeros((2, 0, 3))), Tensor(np.zeros((2, 4)))
    w_ih, w_hh, b = Tensor(np.zeros((16, 3))), Tensor(np.zeros((16, 4))), Tensor(np.zeros(16))
    with pytest.raises(ValueError, match="at least one time step"):
        ops.lstm(x, h, h, w_ih, w_hh)
    with pytest.raises(ValueError, match="both biases must be given"):
        ops.lstm(Tensor(np.zeros((2, 1, 3))), h, h, w_ih, w_hh, b)


def test_generation_with_and_without_state():
    model = random_model(TINY)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    cached, uncached = (
        generate(model, prompts, max_new_tokens=15, sampling=Sampling(temperature=0.8), seed=3, use_cache=use)
        for use in (True, False)
    )
    assert cached == uncached


def test_a_long_chain_trains():
    """Over two thousand steps gradients stay finite and alive: the forget gates are open at first."""
    model = LSTM(tiny(n_layers=1, context=2000))
    ids = np.random.default_rng(0).integers(0, 30, (1, 2000))
    model(ids, ids).backward()
    assert all(np.isfinite(p.grad).all() and p.grad.any() for p in model.parameters())


def test_dropout_between_layers_only_while_training():
    model = LSTM(tiny(dropout=0.4))
    ids, _ = random_batch(TINY)
    assert not np.array_equal(model(ids).data, model(ids).data)
    model.eval()
    assert np.array_equal(model(ids).data, model(ids).data)


def test_initial_weights():
    model = LSTM(tiny(d_hidden=100))
    layer = model.layers[1]
    assert layer.weight_hh.data.std() == pytest.approx(1 / np.sqrt(300), rel=0.05)
    assert (layer.bias_ih.data[100:200] == 1).all()
    assert layer.bias_ih.data.sum() == 100


def test_config_survives_a_dictionary():
    config = tiny(dropout=0.2)
    assert config_from_dict(config_to_dict(config)) == config
    assert isinstance(model_from_config(config), LSTM)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size = 0 must be a whole number"),
        ({"d_hidden": 1.5}, "d_hidden = 1.5 must be a whole number"),
        ({"tie_embeddings": True}, "tie_embeddings needs d_hidden = d_model, not 14 and 10"),
        ({"dropout": 1.0}, "dropout = 1.0"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_config_of_no_model():
    with pytest.raises(ValueError, match=r"model_type = 'rnn' is not a model of this library. Known: 'gpt', 'llama'"):
        config_from_dict({"model_type": "rnn"})
    with pytest.raises(ValueError, match=r"LSTMConfig has no setting 'd_hiden'. Did you mean 'd_hidden'"):
        config_from_dict({"model_type": "lstm", "d_hiden": 3})
    with pytest.raises(TypeError, match="dict is not a config"):
        model_from_config({})
