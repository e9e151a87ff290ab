"""GRPO and its variants: every number and gradient against the papers' formulas, written out plainly in PyTorch."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from minillm.assistant.grpo import (
    GRPOConfig,
    GRPOLoss,
    advantages,
    clipped_objective,
    count_rows,
    kl_estimate,
    over_rows,
    token_log_probs,
)
from minillm.models import GPT, GPTConfig
from minillm.settings import IGNORE
from minillm.tensor import Tensor

torch = pytest.importorskip("torch")

LENGTHS = ("sequence", "token", "constant")
VARIANTS = [
    GRPOConfig(length=length, kl=kl, clip_high=high, max_new_tokens=9)
    for length, kl, high in product(LENGTHS, (0.0, 0.04), (0.2, 0.28))
]


def as_written(new, old, reference, advantage, lengths, c):
    """The papers' loss of answers o_i, row i's first |o_i| tokens: GRPO's equation 3, DAPO's 8, Dr. GRPO's."""
    answers = []
    for i, n in enumerate(lengths):
        ratio = torch.exp(new[i, :n] - old[i, :n])
        clipped = torch.clamp(ratio, 1 - c.clip_low, 1 + c.clip_high)
        objective = torch.minimum(ratio * advantage[i], clipped * advantage[i])
        if c.kl:
            other = torch.exp(reference[i, :n]) / torch.exp(new[i, :n])
            objective = objective - c.kl * (other - torch.log(other) - 1)
        answers.append(-objective)
    if c.length == "token":
        return torch.cat(answers).sum() / sum(lengths)
    each = [a.sum() / (len(a) if c.length == "sequence" else c.max_new_tokens) for a in answers]
    return torch.stack(each).mean()


class Told:
    """A model whose log-probabilities are given: `hidden` hands them through, `loss` is minus them where they count."""

    def __init__(self, log_probs):
        self.log_probs = log_probs

    def hidden(self, ids):
        return self.log_probs

    def loss(self, h, targets, *, reduction):
        assert reduction == "none"
        return -h * (targets != IGNORE)


def draw_case(rng):
    """(lengths, targets, new, old, reference, advantage): log-probabilities so far apart that both clips bind."""
    B, T = rng.integers(1, 5), 9
    lengths = rng.integers(1, T + 1, size=B)
    targets = np.where(np.arange(T) < lengths[:, None], 7, IGNORE)
    new = -rng.exponential(1.0, (B, T))
    old, reference = new + rng.normal(0, 0.4, (B, T)), new + rng.normal(0, 0.4, (B, T))
    return lengths, targets, new, old, reference, rng.normal(0, 1, B) * rng.integers(0, 2, B)


@pytest.mark.parametrize("c", VARIANTS, ids=lambda c: f"{c.length} {c.kl} {c.clip_high}")
def test_each_variant_is_its_papers_formula_on_both_engines(c):
    rng = np.random.default_rng(VARIANTS.index(c))
    loss = GRPOLoss(c)
    bound = 0
    for _ in range(200):
        lengths, targets, new, old, reference, advantage = draw_case(rng)
        plain = torch.tensor(new, requires_grad=True)
        expected = as_written(plain, *map(torch.tensor, (old, reference, advantage)), lengths, c)
        expected.backward()
        arrays = (targets, targets, advantage, old, reference)[: 5 if c.kl else 4]
        n = loss.count(*arrays)

        ours = Tensor(new, requires_grad=True)
        total, figures = loss(Told(ours), *arrays)
        (total * (1 / n)).backward()
        np.testing.assert_allclose(total.item() / n, expected.item(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(ours.grad, plain.grad.numpy(), rtol=1e-11, atol=1e-14)

        theirs = torch.tensor(new, requires_grad=True)
        torch_total, torch_figures = loss(Told(theirs), *map(torch.tensor, arrays))
        (torch_total / n).backward()
        np.testing.assert_allclose(torch_total.item(), total.item(), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(theirs.grad.numpy(), ours.grad, rtol=1e-11, atol=1e-14)
        assert figures.keys() == torch_figures.keys()
        for name, value in figures.items():
            mine = float(value.data if isinstance(value, Tensor) else value)
            np.testing.assert_allclose(mine, float(torch_figures[name]), rtol=1e-12, atol=1e-14)
        bound += float(torch_figures["clip_share"]) > 0
    assert bound > 100  # the clip was there to be seen


def test_figures_are_means_over_the_tokens_that_count():
    rng = np.random.default_rng(3)
    for length in LENGTHS:
        c = GRPOConfig(length=length, kl=0.1, max_new_tokens=9)
        lengths, targets, new, old, reference, advantage = draw_case(rng)
        _, figures = GRPOLoss(c)(Told(Tensor(new)), targets, targets, advantage, old, reference)
        ratio = np.exp(new - old)
        a = advantage[:, None]
        binds = ((a > 0) & (ratio > 1.2)) | ((a < 0) & (ratio < 0.8))
        divergence = np.exp(reference - new) - (reference - new) - 1
        n = GRPOLoss(c).count(targets, targets)
        for name, values in {"ratio": ratio, "clip_share": binds, "kl": divergence}.items():
            each = [values[i, :k] for i, k in enumerate(lengths)]
            mean = np.concatenate(each).mean() if length == "token" else np.mean([part.mean() for part in each])
            found = figures[name].data if isinstance(figures[name], Tensor) else figures[name]
            np.testing.assert_allclose(found / n, mean, rtol=1e-12)


@pytest.mark.parametrize("divide", [True, False])
def test_advantages_are_the_papers(divide):
    rng = np.random.default_rng(1)
    for _ in range(300):
        rewards = rng.normal(size=(rng.integers(1, 5), rng.integers(2, 9))).round(1)
        expected = rewards - rewards.mean(axis=1, keepdims=True)
        if divide:
            expected = expected / (np.sqrt((expected**2).mean(axis=1, keepdims=True)) + 1e-4)
        found = advantages(rewards, divide)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-9)


def test_a_group_of_equal_rewards_teaches_nothing():
    assert (advantages(np.full((2, 3), 0.1)) == 0).all()
    nearly = np.array([[0.3, 0.1 + 0.2, 0.3]])  # which differ in the last bit
    assert np.abs(advantages(nearly)).max() < 1e-9


def test_what_the_clip_holds():
    """A good token is pushed up no further than 1 + high, a bad one down no further than 1 − low; back, always."""
    ratio = np.array([[0.5, 0.9, 1.1, 1.5]])
    for sign, expected in ((1.0, [1, 1, 1, 0]), (-1.0, [0, 1, 1, 1])):
        new = Tensor(np.log(ratio), requires_grad=True)
        objective, _, binds = clipped_objective(new, np.zeros((1, 4)), np.array([[sign]]), 0.2, 0.2)
        objective.sum().backward()
        assert (new.grad[0] != 0).tolist() == [bool(x) for x in expected]
        assert (~binds[0]).tolist() == [bool(x) for x in expected]


def test_the_divergence_is_never_negative_and_0_for_equals():
    rng = np.random.default_rng(0)
    new = rng.normal(size=(50, 20))
    assert (kl_estimate(Tensor(new), new).data == 0).all()
    assert (kl_estimate(Tensor(new), rng.normal(size=(50, 20))).data >= 0).all()


def test_the_divergence_estimates_the_true_one():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    each = kl_estimate(Tensor(np.log(p)[None]), np.log(q)[None]).data[0]
    np.testing.assert_allclose((p * each).sum(), (p * np.log(p / q)).sum())


def tiny(engine, seed=0):
    model = GPT(GPTConfig(vocab_size=13, context=16, n_layers=1, n_heads=2, d_model=8), np.random.default_rng(seed))
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float64) * 5
    if engine == "torch":
        from minillm.port import to_torch

        return to_torch(model)
    return model


def model_case():
    rng = np.random.default_rng(5)
    whole = rng.integers(0, 13, (6, 12))
    targets = np.where((np.arange(11) >= 4) & (np.arange(11) < 4 + rng.integers(1, 8, (6, 1))), whole[:, 1:], IGNORE)
    advantage = advantages(rng.normal(size=(2, 3))).reshape(-1)
    return whole[:, :-1], targets, advantage


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_the_logits_at_the_temperature(temperature):
    ids, targets, _ = model_case()
    logits = torch.tensor(tiny("numpy")(ids).data) / temperature
    chosen = torch.log_softmax(logits, -1).gather(2, torch.tensor(np.maximum(targets, 0))[..., None])[..., 0]
    expected = np.where(targets == IGNORE, 0, chosen.numpy())
    np.testing.assert_allclose(token_log_probs(tiny("numpy"), ids, targets, temperature).data, expected, rtol=1e-10)
    ported = token_log_probs(tiny("torch"), torch.tensor(ids), torch.tensor(targets), temperature)
    np.testing.assert_allclose(ported.detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_loss_begins_at_0_with_the_policy_gradient(engine, length):
    """Where the model is the one that drew: each answer counting alike, the loss is 0; its gradient is that of
    −A ln π, which is not."""
    ids, targets, advantage = model_case()
    if length != "sequence":
        targets[:, 4:7], targets[:, 7:] = ids[:, 5:8], IGNORE  # answers of one length
    model, other = tiny(engine), tiny(engine)
    arrays = [ids, targets, advantage, token_log_probs(tiny("numpy"), ids, targets).data]
    if engine == "torch":
        arrays = list(map(torch.tensor, arrays))
    c = GRPOConfig(length=length, max_new_tokens=7)
    total, figures = GRPOLoss(c)(model, *arrays)
    n = count_rows(targets, length)
    total.backward()
    log_probs = token_log_probs(other, *arrays[:2])
    over_rows(-log_probs * arrays[2][:, None], arrays[1] != IGNORE, length, c.max_new_tokens).backward()
    assert abs(total.item()) < 1e-12 * n
    assert abs(float(figures["ratio"].data if engine == "numpy" else figures["ratio"]) / n - 1) < 1e-12
    largest = 0
    for mine, theirs in zip(model.parameters(), other.parameters()):
        np.testing.assert_allclose(np.asarray(mine.grad), np.asarray(theirs.grad), rtol=1e-9, atol=1e-12)
        largest = max(largest, float(abs(mine.grad).max()))
    assert largest > 0.01


def test_answers_that_are_all_left_out_give_no_loss_and_no_gradient():
    ids, targets, advantage = model_case()
    targets[:] = IGNORE
    model = tiny("numpy")
    for length in LENGTHS:
        loss = GRPOLoss(GRPOConfig(length=length))
        total, _ = loss(model, ids, targets, advantage, np.zeros(targets.shape))
        (total * (1 / loss.count(ids, targets))).backward()
        assert total.item() == 0
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_counts_add_up_over_micro_batches():
    """Two halves, each divided by the count of both, are the whole: engines rely on it."""
    ids, targets, advantage = model_case()
    old = token_log_probs(tiny("numpy"), ids, targets).data + 0.1
    for length in LENGTHS:
        loss = GRPOLoss(GRPOConfig(length=length))
        batch = (ids, targets, advantage, old)
        whole = loss(tiny("numpy"), *batch)[0].item() / loss.count(*batch)
        halves = [tuple(a[part] for a in batch) for part in (slice(0, 2), slice(2, 6))]
        count = sum(loss.count(*half) for half in halves)
        np.testing.assert_allclose(sum(loss(tiny("numpy"), *h)[0].item() for h in halves) / count, whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"group": 1}, "group must be at least 2, not 1: answers are compared with their group"),
        ({"inner_epochs": 0}, "inner_epochs must be at least 1, not 0"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0: greedy answers are all the same"),
        ({"clip_low": 1.0}, "clip_low must be at least 0 and below 1, not 1.0"),
        ({"kl": -1.0}, "kl must be 0 or more, not -1.0"),
        ({"length": "all"}, "length must be one of 'sequence', 'token', 'constant', not 'all'"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        replace(GRPOConfig(), **setting)
