"""A mixture of experts: what the router learns from, the loss that balances, sinks, and what is refused."""

import itertools

import numpy as np
import pytest

from minillm import ops
from minillm.finetune.lora import LoraConfig, add_lora, remove_lora
from minillm.models import LlamaConfig, MoeConfig, model_from_config
from minillm.models.moe import Mixture, load_balance
from minillm.optim import AdamW
from minillm.tensor import Tensor, no_grad

SMALL = {"vocab_size": 13, "context": 8, "n_layers": 2, "n_heads": 2, "d_model": 8, "d_ff": 12}
CONFIG = MoeConfig(**SMALL, n_experts=4, d_expert=5)


def mixture(**changes):
    layer = Mixture(MoeConfig(**SMALL, n_experts=4, d_expert=5, **changes), 0.02, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for p in layer.to(np.float64).parameters():
        p.data += 0.5 * rng.standard_normal(p.shape)
    return layer, Tensor(rng.standard_normal((2, 3, 8)), requires_grad=True)


SHAPES = [
    {"norm_weights": norm, "swiglu_limit": limit, "top_k": k, "router_bias": bool(limit)}
    for norm, limit, k in itertools.product((True, False), (0.0, 0.5), (1, 3, 4))
]


@pytest.mark.parametrize("changes", SHAPES)
def test_both_ways_are_the_formula(changes):
    """Each token on its own: its experts, its weights, their sum."""
    layer, x = mixture(**changes)
    y, _ = layer(x)
    for place in np.ndindex(2, 3):
        token = Tensor(x.data[place][None])
        p = ops.softmax(layer.router(token)).data[0]
        chosen = np.argsort(-p)[: changes["top_k"]]
        weights = p[chosen] / p[chosen].sum() if changes["norm_weights"] else p[chosen]
        expected = sum(w * layer.experts[e](token).data[0] for w, e in zip(weights, chosen))
        np.testing.assert_allclose(y.data[place], expected, rtol=0, atol=1e-13)
    tokens, numbers = x.reshape(6, 8), np.arange(4)
    top, chosen = layer.router(tokens).topk(changes["top_k"])
    dense = layer.all_take_all(tokens, ops.softmax(top), chosen).data
    counts = (chosen[..., None] == numbers).sum((0, 1)).tolist()
    assert np.abs(dense - layer.each_takes_its_own(tokens, ops.softmax(top), chosen, counts).data).max() < 1e-13


def test_the_gradient_of_the_router_is_the_one_derived():
    """dL/dlⱼ = wⱼ (g · fⱼ(x) − g · y) for the chosen, 0 for the others."""
    layer, x = mixture()
    tokens = x.data.reshape(6, 8)
    y, (p, hits) = layer(x)
    g = np.random.default_rng(2).standard_normal(y.shape)
    y.backward(g)
    weights = p.data * hits / (p.data * hits).sum(1, keepdims=True)
    answers = np.stack([expert(Tensor(tokens)).data for expert in layer.experts], axis=1)  # (N, E, D)
    served = np.einsum("nd,ned->ne", g.reshape(6, 8), answers)
    dscores = weights * (served - (weights * served).sum(1, keepdims=True))
    np.testing.assert_allclose(layer.router.weight.grad, dscores.T @ tokens, atol=1e-13)
    assert hits.sum() == 12 and not dscores[~hits].any()


def test_balance_is_least_where_all_are_used_alike_and_pushes_there():
    even = np.tile(np.eye(4, dtype=bool), (2, 1))  # 8 tokens, each expert twice
    p = Tensor(np.full((8, 4), 0.25), requires_grad=True)
    assert load_balance([(p, even), (p, even)]).item() == pytest.approx(1.0)
    one = np.zeros((8, 4), bool)
    one[:, 2] = True
    p = Tensor(one.astype(float), requires_grad=True)
    loss = load_balance([(p, one)])
    loss.backward()
    assert loss.item() == 4.0
    np.testing.assert_allclose(p.grad, np.tile([0, 0, 4 / 8, 0], (8, 1)))  # E fₑ / tokens
    counted = np.arange(8)[:, None] < 4
    assert load_balance([(p, one)], counted).item() == 4.0
    assert load_balance([(p, np.where(counted, one, True))], counted).item() == 4.0  # what is not counted may be any


def test_the_loss_has_balance_in_training_only_and_for_each_token_that_counts():
    model = model_from_config(MoeConfig(**SMALL, n_experts=4, balance=0.5)).to(np.float64)
    ids, targets = np.random.default_rng(0).integers(0, 13, (2, 3, 7))
    targets[0, 2:] = -100
    extra = 0.5 * load_balance(model.routed(ids)[1]).item()
    plain = {how: model.eval()(ids, targets, reduction=how).data for how in ("mean", "sum", "none")}
    trained = {how: model.train()(ids, targets, reduction=how).data for how in plain}
    assert trained["mean"] - plain["mean"] == pytest.approx(extra)
    assert trained["sum"] - plain["sum"] == pytest.approx(extra * 16)
    assert np.array_equal(trained["none"], plain["none"])
    assert model_from_config(MoeConfig(**SMALL, dense_layers=(0, 1)))(ids, targets).item() > 0  # no experts at all


def test_training_learns_and_balance_spreads_the_tokens():
    """From a router that sends all to two experts."""
    ids = np.random.default_rng(0).integers(0, 13, (8, 9))
    shares = []
    for balance in (0.0, 0.5):
        model = model_from_config(
            MoeConfig(**SMALL, n_experts=4, d_expert=5, balance=balance), np.random.default_rng(1)
        )
        for block in model.blocks:
            block.mlp.router.weight.data[2:] = -block.mlp.router.weight.data[:2] * 0.01
            block.mlp.router.weight.data[:2] *= 0
        optimizer = AdamW(list(model.parameters()), lr=0.01)
        losses = []
        for _ in range(60):
            model.zero_grad()
            loss = model(ids[:, :-1], ids[:, 1:])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.5
        with no_grad():
            shares.append(load_balance(model.routed(ids[:, :-1])[1]).item())
    assert shares[1] < 2.05 and shares[1] < shares[0]


def test_adapters_leave_the_router_and_the_experts_alone_unless_named():
    model = model_from_config(CONFIG)
    assert set(add_lora(model, LoraConfig(), np.random.default_rng(0))) == {
        f"blocks.{i}.attn.{name}" for i in (0, 1) for name in ("q_proj", "v_proj")
    }
    remove_lora(model)
    assert not any(
        "mlp" in name for name in add_lora(model, LoraConfig(targets="all-linear"), np.random.default_rng(0))
    )
    remove_lora(model)
    named = add_lora(model, LoraConfig(targets=("experts.3.up",)), np.random.default_rng(0))
    assert named == ["blocks.0.mlp.experts.3.up", "blocks.1.mlp.experts.3.up"]
    assert np.isfinite(model(np.arange(8)[None]).data).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 9}, "top_k = 9 must be at most n_experts = 8"),
        ({"top_k": 0}, "top_k = 0 must be a whole number"),
        ({"n_experts": 1.5}, "n_experts = 1.5 must be a whole number"),
        ({"balance": -1.0}, "balance = -1.0 must be a number of at least 0"),
        ({"swiglu_limit": float("inf")}, "swiglu_limit = inf must be a number"),
        ({"swiglu_alpha": 0.0}, "swiglu_alpha = 0.0 must be above 0"),
        ({"dense_layers": (2,)}, r"dense_layers = \(2,\) must be numbers of layers below 2, in order"),
        ({"dense_layers": (1, 0)}, "in order"),
        ({"d_model": 9}, "MoeConfig: d_model = 9 must be divisible by n_heads"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(ValueError, match=message):
        MoeConfig(**{**SMALL, **changes})


# --- sinks ------------------------------------------------------------------------------------------------------------


def test_a_large_sink_takes_all_attention_and_a_small_one_none():
    rng = np.random.default_rng(0)
    q, k, v = (Tensor(rng.standard_normal((1, 2, 5, 4))) for _ in range(3))
    plain = ops.attention(q, k, v, causal=True).data
    out = ops.attention(q, k, v, causal=True, sinks=Tensor(np.array([1e4, -1e4]))).data
    assert not out[:, 0].any() and np.allclose(out[:, 1], plain[:, 1], rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match=r"attention: sinks \(3,\) must be \(H,\), one for each head"):
        ops.attention(q, k, v, sinks=Tensor(np.zeros(3)))


def test_sinks_of_a_dense_llama_are_learned():
    model = model_from_config(LlamaConfig(**SMALL, attention_sinks=True, window=3))
    ids = np.random.default_rng(0).integers(0, 13, (4, 8))
    model(ids[:, :-1], ids[:, 1:]).backward()
    assert all(block.attn.sinks.grad.all() and block.attn.sinks.shape == (2,) for block in model.blocks)


def test_k_largest():
    x = Tensor([[3.0, 1.0, 2.0]])
    assert x.topk(2).values.data.tolist() == [[3.0, 2.0]] and x.topk(2).indices.tolist() == [[0, 2]]
    with pytest.raises(ValueError, match="topk: k = 4 must be at most 3"):
        x.topk(4)
