"""Muon: what it makes of a matrix, a step by its formula, which parameters it moves, and what stays AdamW's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.engines.muon import Muon, orthogonalize, split_hidden, step_size
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.models import GPT, LSTM, GPTConfig, Llama, LlamaConfig, LSTMConfig
from minillm.optim import AdamW, param_groups
from minillm.settings import TrainConfig
from minillm.tensor import Parameter

SMALL = {"vocab_size": 31, "context": 8, "n_layers": 2, "n_heads": 2, "d_model": 16}


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.floats(0, 2.5), st.floats(-6, 6))
def test_singular_values_become_about_1_and_singular_vectors_stay(rows, columns, seed, spread, size):
    """Of a matrix whose singular values lie up to 10^spread apart."""
    rng = np.random.default_rng(seed)
    n = min(rows, columns)
    u, _ = np.linalg.qr(rng.standard_normal((rows, n)))
    v, _ = np.linalg.qr(rng.standard_normal((columns, n)))
    values = 10 ** rng.uniform(-spread, 0, n) * 10**size
    made = orthogonalize((u * values) @ v.T)
    inside = u.T @ made @ v  # (n, n), diagonal: u and v are still its singular vectors
    assert np.allclose(made, u @ inside @ v.T)
    assert np.allclose(inside, np.diag(np.diag(inside)))
    assert np.all((np.diag(inside) > 0.3) & (np.diag(inside) < 1.25))
    if n <= 10 and spread < 1.5:  # one below a hundredth of their norm may need a sixth step
        assert np.all(np.diag(inside) > 0.65)


def test_a_zero_matrix_stays_zero():
    assert not orthogonalize(np.zeros((3, 5))).any()


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_steps_by_the_formula(shape):
    rng = np.random.default_rng(0)
    start = rng.standard_normal(shape)
    p, w, mean = Parameter(start.copy()), start.copy(), np.zeros(shape)
    optimizer = Muon([{"params": [p], "use_muon": True}], lr=0.02, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        p.grad = grad = rng.standard_normal(shape)
        kept = grad.copy()
        optimizer.step()
        mean = 0.9 * mean + 0.1 * grad
        w = w - 0.02 * 0.1 * w - 0.02 * max(1, shape[0] / shape[1]) ** 0.5 * orthogonalize(0.1 * grad + 0.9 * mean)
        np.testing.assert_allclose(p.data, w, atol=1e-12)
        assert np.array_equal(grad, kept)


def test_near_torchs_own_which_rounds_to_bfloat16():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = rng.standard_normal((6, 4))
    ours, theirs = Parameter(start.copy()), torch.nn.Parameter(torch.tensor(start))
    a = Muon([{"params": [ours], "use_muon": True}], lr=0.02, weight_decay=0.1)
    b = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95)
    for _ in range(20):
        ours.grad = rng.standard_normal(start.shape)
        theirs.grad = torch.tensor(ours.grad)
        a.step()
        b.step()
    moved = np.abs(ours.data - start).max()
    assert np.abs(ours.data - theirs.detach().numpy()).max() < 0.03 * moved


def hidden_names(model):
    names = {id(p): name for name, p in model.named_parameters()}
    groups = split_hidden(model, param_groups(model, 0.1), 4.0)
    assert sorted(names[id(p)] for group in groups for p in group["params"]) == sorted(names.values())
    assert all(group["lr_scale"] == 4.0 for group in groups if group.get("use_muon"))
    return {names[id(p)] for group in groups if group.get("use_muon") for p in group["params"]}


def test_hidden_matrices_are_those_inside_the_layers():
    gpt = hidden_names(GPT(GPTConfig(**SMALL)))
    assert gpt == {
        f"blocks.{i}.{name}.weight" for i in (0, 1) for name in ("attn.qkv", "attn.proj", "mlp.fc", "mlp.proj")
    }
    llama = Llama(LlamaConfig(**SMALL, d_ff=32))
    assert len(hidden_names(llama)) == 2 * 7 and not {"head.weight", "token_embedding.weight"} & hidden_names(llama)
    lstm = LSTM(LSTMConfig(vocab_size=31, context=8, n_layers=2, d_model=16))
    assert hidden_names(lstm) and all("embedding" not in name for name in hidden_names(lstm))


def test_groups_keep_their_own_rates_beside_muons():
    model = GPT(GPTConfig(**SMALL))
    groups = [{**group, "lr_scale": 0.5} for group in param_groups(model, 0.1)]
    split = split_hidden(model, groups, 4.0)
    assert {(group.get("use_muon", False), group["lr_scale"]) for group in split} == {(True, 2.0), (False, 0.5)}


def test_the_rest_moves_as_with_adamw():
    rng = np.random.default_rng(0)
    a, b = Parameter(np.ones((3, 4))), Parameter(np.ones((3, 4)))
    muon, adamw = Muon([a], lr=0.01), AdamW([b], lr=0.01)
    for _ in range(3):
        a.grad = b.grad = rng.standard_normal(a.shape)
        muon.step()
        adamw.step()
    assert np.array_equal(a.data, b.data)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"Muon moves matrices, not a parameter of shape \(3,\)"):
        Muon([{"params": [Parameter(np.ones(3))], "use_muon": True}])
    with pytest.raises(ValueError, match="momentum must be at least 0 and below 1, not 1"):
        Muon([Parameter(np.ones((2, 2)))], momentum=1.0)
    with pytest.raises(ValueError, match="lr must be above 0 with muon"):
        TrainConfig(optimizer="muon", lr=0.0)


def test_step_size_grows_with_more_outputs_than_inputs():
    assert step_size(0.1, (4, 1)) == pytest.approx(0.2) and step_size(0.1, (1, 4)) == 0.1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_threads_move_what_one_moves(optimizer):
    """Parameters are shared out among threads: every one is moved, once."""
    ids = np.random.default_rng(1).integers(31, size=(4, 9))
    batch = (ids[:, :-1], ids[:, 1:])
    moved = []
    for engine in (NumpyEngine, ThreadedNumpyEngine):
        model = GPT(GPTConfig(**SMALL), np.random.default_rng(0)).to(np.float64)
        trained = engine(model, TrainConfig(optimizer=optimizer, batch_size=4))
        for _ in range(3):
            trained.forward_backward([batch])
            trained.clip_gradients(1.0)
            trained.step(0.01)
        assert set(trained.optimizer.steps.values()) == {3}
        moved.append(trained.model_arrays())
    for name in moved[0]:
        np.testing.assert_allclose(moved[0][name], moved[1][name], rtol=1e-9, atol=1e-12, err_msg=name)
