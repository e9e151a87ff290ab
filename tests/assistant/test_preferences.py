"""Preference losses: the formulas are the papers', written out once more in float64; both engines give the same."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.assistant.preferences import (
    LOSSES,
    PreferenceConfig,
    PreferenceLoss,
    answer_log_probs,
    dpo,
    ipo,
    kto,
    log_odds,
    orpo,
    simpo,
)
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.models import GPTConfig, LlamaConfig, model_from_config
from minillm.settings import IGNORE, TrainConfig
from minillm.tensor import Tensor

torch = pytest.importorskip("torch")

# The papers' formulas as they are printed, from probabilities where these are printed: no care for overflow.


def plain_dpo(c, r, rc, rr, beta, eps):
    wins = torch.sigmoid(beta * (c - rc) - beta * (r - rr))  # Bradley-Terry's probability that y⁺ does
    loses = torch.sigmoid(beta * (r - rr) - beta * (c - rc))
    return -(1 - eps) * torch.log(wins) - eps * torch.log(loses)


def plain_ipo(c, r, rc, rr, tau):
    return ((c - r) - (rc - rr) - 1 / (2 * tau)) ** 2


def plain_kto(c, r, rc, rr, z, beta, good, bad):
    value_good = good * torch.sigmoid(beta * (c - rc - z))
    value_bad = bad * torch.sigmoid(beta * (z - (r - rr)))
    return ((good - value_good) + (bad - value_bad)) / 2


def plain_simpo(c, r, beta, gamma):
    return -torch.log(torch.sigmoid(beta * c - beta * r - gamma))


def plain_orpo(c, r, weight):
    odds_c, odds_r = torch.exp(c) / (1 - torch.exp(c)), torch.exp(r) / (1 - torch.exp(r))
    return -c - weight * torch.log(torch.sigmoid(torch.log(odds_c / odds_r)))


FORMULAS = {  # ours, the paper's, how many log-probabilities, the largest of them, the constants to draw
    "dpo": (dpo, plain_dpo, 4, ((0.01, 1), (0, 0.49))),
    "ipo": (ipo, plain_ipo, 4, ((0.01, 1),)),
    "kto": (kto, plain_kto, 5, ((0.01, 1), (0, 2), (0, 2))),
    "simpo": (simpo, plain_simpo, 2, ((0.1, 5), (0, 2))),
    "orpo": (orpo, plain_orpo, 2, ((0, 1),)),
}


def drawn(name, seed, n=50):
    """Log-probabilities (n,) and constants for a formula, moderate enough for the printed ones."""
    _, _, n_tensors, ranges = FORMULAS[name]
    rng = np.random.default_rng([seed, *name.encode()])
    low = -6 if name in ("orpo", "simpo", "ipo") else -60
    values = [-rng.uniform(0.01, -low, n) for _ in range(n_tensors)]
    if name == "kto":
        values[4] = rng.uniform(0, 5, n)
    return values, [float(rng.uniform(*limits)) for limits in ranges]


def ours(function, values, constants, kind):
    """The losses and the gradient of each log-probability, computed by our engine or on torch's tensors."""
    if kind == "numpy":
        tensors = [Tensor(v, requires_grad=True) for v in values]
    else:
        tensors = [torch.tensor(v, requires_grad=True) for v in values]
    losses = function(*tensors, *constants)
    assert tuple(losses.shape) == values[0].shape
    losses.sum().backward()
    read = (lambda t: t.data) if kind == "numpy" else (lambda t: t.detach().numpy())
    return read(losses), [None if t.grad is None else np.asarray(t.grad) for t in tensors]


def check_formula(name, seed):
    function, plain, _, _ = FORMULAS[name]
    values, constants = drawn(name, seed)
    expected, gradients = ours(plain, values, constants, "torch")
    for kind in ("numpy", "torch"):
        losses, found = ours(function, values, constants, kind)
        np.testing.assert_allclose(losses, expected, rtol=1e-9, atol=1e-12)
        for ours_, theirs in zip(found, gradients):
            np.testing.assert_allclose(ours_, theirs, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_are_the_papers(name):
    for seed in range(40):  # of 50 pairs each
        check_formula(name, seed)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_are_the_papers_on_many_inputs(name):
    for seed in range(40, 4_040):  # 200,000 pairs
        check_formula(name, seed)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_values_stay_finite(name, dtype):
    function, _, n_tensors, _ = FORMULAS[name]
    extremes = np.array([-1e4, -1e3, -1.0, -1e-3, -1e-9, 0.0], dtype=dtype)
    values = [grid.reshape(-1) for grid in np.meshgrid(*[extremes] * n_tensors)]
    constants = {"dpo": (1.0, 0.1), "ipo": (0.1,), "kto": (1.0, 1.0, 1.0), "simpo": (2.0, 1.0), "orpo": (0.1,)}[name]
    for kind in ("numpy", "torch"):
        losses, gradients = ours(function, values, constants, kind)
        assert losses.dtype == dtype and np.isfinite(losses).all()
        assert all(g.dtype == dtype and np.isfinite(g).all() for g in gradients)


def test_odds_near_certainty_lose_nothing():
    x = np.array([-1e-7, -1e-6, -1e-4, -0.1, -3.0, -40.0, -1e4])
    exact = [float(v) - math.log(-math.expm1(v)) if v > -700 else float(v) for v in x]
    np.testing.assert_allclose(log_odds(Tensor(x)).data, exact, rtol=1e-12)
    assert abs(log_odds(Tensor(np.array([-math.log(2)]))).data[0]) < 1e-15  # even odds


def test_directions():
    """With everything else equal, a likelier chosen answer costs less, a likelier rejected one more."""
    for name, (function, _, _, _) in FORMULAS.items():
        values, constants = drawn(name, 1)
        if name == "dpo":
            constants[1] = 0.0  # with smoothed labels it has a goal, too
        _, gradients = ours(function, values, constants, "numpy")
        if name != "ipo":  # whose loss rises again behind its goal
            assert (gradients[0] <= 0).all() and (gradients[1] >= 0).all(), name
            assert (gradients[0] < 0).mean() > 0.9 and (gradients[1] > 0).mean() > 0.9, name  # σ rounds to 1 in KTO


# --- the loss of a model ----------------------------------------------------------------------------------------------

SHAPE = {"vocab_size": 23, "context": 12, "n_layers": 2, "n_heads": 2, "d_model": 16}
CONFIGS = {
    "gpt": GPTConfig(**SHAPE),
    "llama": LlamaConfig(**SHAPE, n_kv_heads=1, d_ff=24, dropout=0.0),
}


def make_model(kind="gpt", dtype=np.float64, seed=0):
    model = model_from_config(CONFIGS[kind], np.random.default_rng(seed)).to(dtype)
    rng = np.random.default_rng(seed + 1)
    for p in model.parameters():  # larger than at the start of training, where all tokens are nearly as likely
        p.data += rng.normal(0, 0.1, p.shape).astype(dtype)
    return model


def make_batch(config, B=5, T=9, seed=0):
    """Pairs of all lengths, with a reference that is not the model, and -100 in front of answers and behind them."""
    rng = np.random.default_rng(seed)
    ids, targets = rng.integers(0, SHAPE["vocab_size"], (2, B, 2, T))
    for pair in targets:
        for row in pair:
            start, end = sorted(rng.choice(T + 1, 2, replace=False))
            row[:start], row[end:] = IGNORE, IGNORE
    batch = (ids, targets)
    if config.has_reference:
        batch += (-rng.uniform(1, 30, (B, 2)),)
    return batch + (np.full(B, 1.3),) if config.loss == "kto" else batch


def every_config():
    return [
        PreferenceConfig("dpo"),
        PreferenceConfig("dpo", beta=0.5, label_smoothing=0.2),
        PreferenceConfig("ipo", beta=0.3),
        PreferenceConfig("kto", desirable_weight=1.5, undesirable_weight=0.5),
        PreferenceConfig("orpo", odds_weight=0.7),
        PreferenceConfig("simpo", gamma=0.3),
    ]


def by_hand(config, model, batch):
    """(mean loss, figures) from log_softmax and gather over all logits, by a ported model."""
    ids, targets = (torch.from_numpy(a) for a in batch[:2])
    B, _, T = ids.shape
    logits = model(ids.reshape(2 * B, T))
    every = torch.log_softmax(logits, -1).gather(-1, targets.reshape(2 * B, T, 1).clamp(min=0))[..., 0]
    kept = (targets.reshape(2 * B, T) != IGNORE).double()
    sums, lengths = (every * kept).sum(1).reshape(B, 2), kept.sum(1).reshape(B, 2)
    means = sums / lengths
    beta = config.beta or {"simpo": 2.0}.get(config.loss, 0.1)
    if config.has_reference:
        reference = torch.from_numpy(batch[2])
        now, before = (means, reference / lengths) if config.loss == "ipo" else (sums, reference)
        four = (now[:, 0], now[:, 1], before[:, 0], before[:, 1])
        rewards = beta * (now - before)
    if config.loss == "dpo":
        losses = plain_dpo(*four, beta, config.label_smoothing)
    elif config.loss == "ipo":
        losses = plain_ipo(*four, beta)
    elif config.loss == "kto":
        losses = plain_kto(*four, batch[3][0], beta, config.desirable_weight, config.undesirable_weight)
    elif config.loss == "simpo":
        losses, rewards = plain_simpo(means[:, 0], means[:, 1], beta, config.gamma), beta * means
    else:
        losses, rewards = plain_orpo(means[:, 0], means[:, 1], config.odds_weight), means
    margin = rewards[:, 0] - rewards[:, 1]
    figures = {
        "margin": margin.mean(),
        "accuracy": (margin > 0).double().mean(),
        "chosen_reward": rewards[:, 0].mean(),
        "rejected_reward": rewards[:, 1].mean(),
        "chosen_log_prob": sums[:, 0].mean(),
        "rejected_log_prob": sums[:, 1].mean(),
    }
    return losses.mean(), {name: value.item() for name, value in figures.items()}


@pytest.mark.parametrize("config", every_config(), ids=lambda config: config.loss)
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_step_is_the_same_by_hand_and_on_every_engine(config, kind):
    from minillm.engines.torch_engine import TorchEngine
    from minillm.port import to_torch

    batches = [make_batch(config, seed=1), make_batch(config, B=2, T=4, seed=2)]  # accumulated: all pairs count alike
    ported = to_torch(make_model(kind))
    parts = [by_hand(config, ported, batch) for batch in batches]
    n = [len(batch[0]) for batch in batches]
    expected = sum(loss * k for (loss, _), k in zip(parts, n)) / sum(n)
    expected.backward()
    figures = {name: sum(f[name] * k for (_, f), k in zip(parts, n)) / sum(n) for name in parts[0][1]}
    gradients = {name: p.grad.numpy() for name, p in ported.named_parameters()}
    assert max(abs(g).max() for g in gradients.values()) > 1e-3

    train, loss = TrainConfig(batch_size=5), PreferenceLoss(config)
    engines = [
        NumpyEngine(make_model(kind), train, loss=loss),
        ThreadedNumpyEngine(make_model(kind), train, threads=3, loss=loss),
        TorchEngine(make_model(kind), train, loss=loss),
    ]
    for engine in engines:
        found = float(engine.forward_backward(batches))
        assert found == pytest.approx(expected.item(), rel=1e-11), engine.name
        for name, p in engine.model.named_parameters():
            grad = p.grad if engine.name == "numpy" else p.grad.numpy()
            np.testing.assert_allclose(grad, gradients[name], rtol=1e-10, atol=1e-12)
        shown = {name: engine.gauges(1.0)[name] for name in figures}
        assert shown.pop("accuracy") == pytest.approx(figures["accuracy"], rel=1e-7)  # a count of float32 on torch
        assert shown == pytest.approx({name: value for name, value in figures.items() if name != "accuracy"}, rel=1e-10)
        sums = engine.batch_sums(*batches[0])
        assert sums.pop("loss") == pytest.approx(parts[0][0].item() * n[0], rel=1e-11)
        assert sums == pytest.approx({name: value * n[0] for name, value in parts[0][1].items()}, rel=1e-10)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), T=st.integers(2, 12))
def test_log_probs_are_sums_over_the_answer_alone(seed, T):
    """Neither the prompt's targets nor anything behind the answer counts: it may be any padding."""
    rng = np.random.default_rng(seed)
    model, (ids, targets) = make_model(), make_batch(PreferenceConfig("simpo"), B=3, T=T, seed=seed)
    found = answer_log_probs(model, ids, targets).data
    assert found.shape == (3, 2)
    logits = model(ids.reshape(6, T)).data.reshape(3, 2, T, -1)
    for i, j in np.ndindex(3, 2):
        kept = np.flatnonzero(targets[i, j] != IGNORE)
        x = logits[i, j, kept]
        each = x[np.arange(len(kept)), targets[i, j, kept]] - np.log(np.exp(x).sum(-1))
        assert found[i, j] == pytest.approx(each.sum(), rel=1e-12)
        ids[i, j, kept[-1] + 1 :] = rng.integers(0, 23, T - kept[-1] - 1)
    np.testing.assert_allclose(answer_log_probs(model, ids, targets).data, found, rtol=1e-12)


def test_without_a_reference_model_dpo_starts_at_ln_2():
    """Where the model is its own reference: no margin, a loss of ln 2, and a gradient that is not 0."""
    model, config = make_model(), PreferenceConfig("dpo")
    ids, targets = make_batch(PreferenceConfig("simpo"))
    batch = (ids, targets, answer_log_probs(model, ids, targets).data)
    engine = NumpyEngine(model, TrainConfig(), loss=PreferenceLoss(config))
    assert engine.forward_backward([batch]) == pytest.approx(math.log(2), abs=1e-15)
    shown = engine.gauges(1.0)
    assert shown["margin"] == 0 and shown["accuracy"] == 0
    assert engine.clip_gradients(0.0) > 0.01


def test_training_raises_the_margin():
    for config in every_config():
        model = make_model(dtype=np.float32)
        ids, targets = make_batch(PreferenceConfig("simpo"))
        batch = (ids, targets, answer_log_probs(model, ids, targets).data, np.zeros(5))
        batch = batch[: {"kto": 4, "orpo": 2, "simpo": 2}.get(config.loss, 3)]
        engine = NumpyEngine(model, TrainConfig(weight_decay=0.0), loss=PreferenceLoss(config))
        before = engine.batch_sums(*batch)
        for _ in range(15):
            engine.forward_backward([batch])
            engine.clip_gradients(1.0)
            engine.step(3e-3)
        after = engine.batch_sums(*batch)
        assert after["loss"] < before["loss"] and after["margin"] > before["margin"], config
        assert after["accuracy"] == 5, config


def test_float32_stays_float32():
    for config in every_config():
        model, batch = make_model(dtype=np.float32), make_batch(config)
        loss, figures = PreferenceLoss(config)(model, *batch)
        assert loss.dtype == np.float32 and loss.shape == ()
        loss.backward()
        assert all(p.grad is None or p.grad.dtype == np.float32 for p in model.parameters())
        assert all(np.ndim(getattr(value, "data", value)) == 0 for value in figures.values())


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"loss": "ppo"}, "must be one of dpo, ipo, kto, orpo, simpo"),
        ({"beta": -0.1}, "beta = -0.1 must be 0 or more"),
        ({"beta": math.nan}, "beta = nan must be 0 or more"),
        ({"label_smoothing": 0.5}, "below 0.5"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "no meaning for ipo"),
        ({"loss": "orpo", "beta": 0.1}, "no meaning for orpo"),
        ({"loss": "simpo", "gamma": math.inf}, "gamma = inf"),
    ],
)
def test_settings_without_meaning_are_refused(settings_, words):
    with pytest.raises(ValueError, match=words):
        PreferenceConfig(**settings_)


def test_strength_is_beta_or_what_the_papers_take():
    assert [PreferenceConfig(name).strength for name in LOSSES] == [0.1, 0.1, 0.1, 1.0, 2.0]
    assert PreferenceConfig("simpo", beta=0.4).strength == 0.4
