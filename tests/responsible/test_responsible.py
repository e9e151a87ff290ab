"""Responsible use, on models whose truth is known: what is planted is measured, and nothing where there is nothing."""

from __future__ import annotations

import doctest
import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import responsible
from minillm.engines.sgd import SGD
from minillm.generate import Sampling, generate
from minillm.models import GPTConfig, LlamaConfig, model_from_config
from minillm.nn import Linear
from minillm.optim import AdamW
from minillm.responsible import PrivateOptimizer, Watermark
from minillm.responsible.bias import counterfactual
from minillm.responsible.canaries import log_normal_cdf
from minillm.responsible.watermark import binomial_tail
from minillm.tensor import Parameter
from minillm.tokenizers import CharTokenizer

MODULES = ("bias", "canaries", "dp", "watermark")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(f"minillm.responsible.{name}")).failed == 0


def bigram_model(table, engine="numpy", context=64):
    """A Llama that is a table (V, V): the logits of the next id, given the one before. Its block adds nothing, its
    embeddings are one-hot, its head is the table."""
    V = len(table)
    config = LlamaConfig(V, context, n_layers=1, n_heads=1, d_model=V, head_dim=2, d_ff=4, norm_eps=1e-12)
    model = model_from_config(config).to(np.float64)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data[...] = 0
    model.token_embedding.weight.data[...] = np.eye(V)
    model.head.weight.data[...] = np.asarray(table).T / math.sqrt(V)  # what the norm multiplies a one-hot vector by
    if engine == "torch":
        pytest.importorskip("torch")
        from minillm.port import to_torch

        return to_torch(model)
    return model


def counted(texts, tokenizer):
    """The model whose probabilities are the shares of the pairs in the texts, each text behind an end of text; what
    never occurs has next to none."""
    V = tokenizer.vocab_size
    counts = np.full((V, V), 1e-9)
    for text in texts:
        ids = [tokenizer.eos_id, *tokenizer.encode(text)]
        np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return bigram_model(np.log(counts / counts.sum(1, keepdims=True)))


# --- likelihoods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_likelihoods_of_a_table(engine):
    table = np.random.default_rng(0).standard_normal((9, 9)) * 2
    log_p = table - np.log(np.exp(table).sum(1, keepdims=True))
    rows = [([0], [1, 2, 3]), ([5, 4], [8]), ([1, 2, 3, 4], [5, 6, 7, 8, 0, 1])]
    expected = [sum(log_p[a, b] for a, b in zip([before[-1], *ids], ids)) for before, ids in rows]
    model = bigram_model(table, engine)
    np.testing.assert_allclose(responsible.log_likelihoods(model, rows), expected, atol=1e-10)
    np.testing.assert_allclose(responsible.log_likelihoods(model, rows, batch_size=1), expected, atol=1e-10)


def test_likelihoods_need_something_before_and_room():
    model = bigram_model(np.zeros((3, 3)), context=4)
    assert responsible.log_likelihoods(model, [([0], [1, 1, 1, 1])]) == pytest.approx(-4 * math.log(3))
    for row in (([], [1]), ([1], []), ([0], [1] * 5)):
        with pytest.raises(ValueError, match="at most the context and one, 5"):
            responsible.log_likelihoods(model, [row])


# --- canaries ---------------------------------------------------------------------------------------------------------


def test_exposure_of_a_uniform_model_is_a_bit():
    """Where all are equal: 1 bit. Where ranks are random: 1 in the median, log₂ e on average."""
    texts = responsible.canaries(digits=2)
    assert len(texts) == 100 and texts[7] == "the code is 07"
    tokenizer = CharTokenizer.train(texts)
    model = bigram_model(np.zeros((tokenizer.vocab_size, tokenizer.vocab_size)))
    scores = responsible.log_likelihoods(model, [([tokenizer.eos_id], tokenizer.encode(text)) for text in texts])
    assert responsible.exposure(scores, 7) == pytest.approx(1, abs=0.02)
    scores = np.random.default_rng(0).standard_normal(4096)
    all_of_them = [responsible.exposure(scores, i) for i in range(4096)]
    assert np.median(all_of_them) == pytest.approx(1, abs=0.01)
    assert np.mean(all_of_them) == pytest.approx(math.log2(math.e), abs=0.01)
    assert max(all_of_them) == 12 and responsible.exposure(scores, int(scores.argmax())) == 12


def test_what_a_model_has_counted_is_exposed_and_deduplicating_hides_it():
    """More repetitions, more bits; each text once, and the secret is one of many."""
    rng = np.random.default_rng(1)
    texts = responsible.canaries("code {}", digits=3)
    tokenizer = CharTokenizer.train(texts)
    others = [texts[i] for i in rng.integers(0, 1000, 60)]
    bits = []
    for times in (0, 2, 30):
        mixed = responsible.planted(others, {texts[271]: times})
        assert len(mixed) == 60 + times and mixed.count(texts[271]) >= times
        assert [text for text in mixed if text != texts[271]] == [text for text in others if text != texts[271]]
        model = counted(mixed, tokenizer)
        scores = responsible.log_likelihoods(model, [([tokenizer.eos_id], tokenizer.encode(text)) for text in texts])
        bits.append(responsible.exposure(scores, 271))
    assert bits[0] < 4 and bits[0] < bits[1] and bits[2] == pytest.approx(math.log2(1000))


def test_planting_is_at_random_places_and_the_same_for_a_seed():
    first = responsible.planted(["a"] * 50, {"x": 5, "y": 3}, seed=3)
    assert first == responsible.planted(["a"] * 50, {"x": 5, "y": 3}, seed=3)
    assert first != responsible.planted(["a"] * 50, {"x": 5, "y": 3}, seed=4)
    assert (first.count("x"), first.count("y"), first.count("a")) == (5, 3, 50)
    assert responsible.planted([], {"x": 2}) == ["x", "x"]


@pytest.mark.parametrize("alpha", [-4.0, 0.0, 2.0])
def test_extrapolation_is_that_of_the_skew_normal(alpha):
    stats = pytest.importorskip("scipy.stats")
    truth = stats.skewnorm(alpha, loc=-80, scale=6)
    scores = truth.rvs(50_000, random_state=0)
    for place in (-82.0, -70.0, -62.0):
        bits = responsible.extrapolated_exposure(scores, place)
        expected = -truth.logsf(place) / math.log(2)
        if np.isfinite(expected) and expected < 60:
            assert bits == pytest.approx(expected, rel=0.12, abs=0.1)
    assert responsible.extrapolated_exposure(scores, 100.0) > 200  # beyond every float
    x = np.array([-30.0, -11.0, -10.0, -3.0, 0.0, 4.0])
    np.testing.assert_allclose(log_normal_cdf(x), stats.norm.logcdf(x), rtol=1e-3, atol=1e-4)


def test_extrapolated_and_ranked_agree_where_both_can_be_had():
    scores = np.random.default_rng(0).normal(-20, 3, 10_000)
    for i in np.argsort(-scores)[[10, 100, 1000, 5000]]:
        assert responsible.extrapolated_exposure(scores[:2000], scores[i]) == pytest.approx(
            responsible.exposure(scores, i), abs=0.4
        )
    with pytest.raises(ValueError, match="20 or more that differ"):
        responsible.extrapolated_exposure(np.zeros(100), 0.0)


# --- the watermark ----------------------------------------------------------------------------------------------------


def uniform_text(watermark, n, V=500, engine="numpy", **options):
    model = bigram_model(np.zeros((V, V)), engine, context=n + 8)
    return [1, *generate(model, [[1]], max_new_tokens=n, rules=watermark, seed=0, **options)[0]]


def test_z_on_drawn_text_is_what_delta_makes_it():
    """On uniform text a share γeᵟ/(γeᵟ + 1 − γ) is green: z = (share − γ) √T / √(γ(1 − γ)), growing with √T."""
    mark = Watermark(key=7, gamma=0.25, delta=2.0)
    ids = uniform_text(mark, 300)
    share = 0.25 * math.exp(2) / (0.25 * math.exp(2) + 0.75)
    for T in (75, 300):
        found = mark.detect(ids[: T + 1])
        expected = (share - 0.25) * math.sqrt(found.scored / (0.25 * 0.75))
        assert found.z == pytest.approx(expected, abs=3.5) and found.p < 1e-8
    assert mark.detect(ids).z > mark.detect(ids[:76]).z + 5
    wrong = [Watermark(key).detect(ids) for key in range(300)]
    z = np.array([one.z for one in wrong])
    assert abs(z[[k for k in range(300) if k != 7]].mean()) < 0.2 and 0.85 < np.delete(z, 7).std() < 1.15
    p = np.delete(np.array([one.p for one in wrong]), 7)
    assert 0.01 < (p < 0.05).mean() < 0.09 and p.min() > 1e-5


def test_the_mark_is_written_by_every_way_to_generate():
    mark = Watermark(3, gamma=0.5, delta=4.0)
    texts = [uniform_text(mark, 60, V=100, **options) for options in ({}, {"plain": True}, {"use_cache": False})]
    assert texts[0] == texts[1] == texts[2] and mark.detect(texts[0]).z > 6
    greedy = uniform_text(mark, 60, V=100, sampling=Sampling(temperature=0))
    assert mark.is_green(np.array(greedy[:-1]), np.array(greedy[1:])).all()
    cold, hot = (uniform_text(mark, 60, V=100, sampling=Sampling(temperature=t)) for t in (0.5, 4.0))
    assert mark.detect(cold).greens > mark.detect(hot).greens
    assert Watermark(3, delta=0.0)(0, np.zeros(5), np.array([1])).tolist() == [0.0] * 5


def test_the_mark_on_torch():
    mark = Watermark(3, gamma=0.5, delta=4.0)
    assert uniform_text(mark, 40, V=60, engine="torch") == uniform_text(mark, 40, V=60)


def test_repeated_pairs_count_once_and_edits_cost_pairs():
    mark = Watermark(5)
    ids = uniform_text(mark, 200)
    once = mark.detect(ids)
    assert mark.detect(ids * 5).scored <= once.scored + 1 and mark.detect(ids * 5).z == pytest.approx(once.z, abs=0.5)
    rng = np.random.default_rng(0)
    edited = np.where(rng.random(201) < 0.3, rng.integers(0, 500, 201), ids)
    assert 2 < mark.detect(edited).z < once.z - 2
    with pytest.raises(ValueError, match="no pair"):
        mark.detect([3])


def test_certain_text_carries_no_mark():
    table = np.full((50, 50), -40.0)
    table[np.arange(50), (np.arange(50) + 1) % 50] = 0.0  # each id has one follower
    ids = generate(bigram_model(table), [[0]], max_new_tokens=40, rules=Watermark(1, delta=2.0), seed=0)[0]
    assert ids == [(i + 1) % 50 for i in range(40)] and Watermark(1).detect([0, *ids]).z < 3


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.99))
def test_the_binomial_tail(k, more, p):
    n = k + more
    expected = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
    assert binomial_tail(k, n, p) == pytest.approx(min(1.0, expected), rel=1e-9)


def test_colours_stay_what_they_are():
    """A text that is marked today must be found in ten years: the numbers may never change."""
    mark = Watermark(key=42, gamma=0.5)
    greens = [np.flatnonzero(mark.is_green(before, np.arange(16))).tolist() for before in (0, 1, 50256)]
    assert greens == COLOURS
    assert abs(Watermark(1, 0.25).is_green(3, np.arange(100_000)).mean() - 0.25) < 0.005
    mask = 2**64 - 1

    def mix(x):  # splitmix64 as its authors write it
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    for before in (2, 77):
        spelled = [mix((mix((mix(42) + before) & mask) + i) & mask) < 2**63 for i in range(50)]
        assert mark.is_green(before, np.arange(50)).tolist() == spelled
    for wrong in ({"gamma": 0.0}, {"gamma": 1.0}, {"delta": -1.0}, {"delta": math.inf}):
        with pytest.raises(ValueError, match="gamma"):
            Watermark(1, **wrong)


COLOURS = [[0, 3, 4, 6, 8, 13, 14, 15], [0, 1, 8, 13, 14, 15], [1, 2, 11, 14]]


# --- bias -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("He saw himself.", "She saw herself."),
        ("SHE and her son", "HE and his daughter"),
        ("I saw her. Give her that", "I saw him. Give his that"),  # what the rule gets wrong, too
        ("the theory of Hermann", "the theory of Hermann"),
        ("他的父亲是先生", "她的母亲是女士"),
        ("Mr King", "Ms Queen"),
        ("", ""),
    ],
)
def test_counterfactuals(text, other):
    assert counterfactual(text) == other


@given(st.lists(st.sampled_from(["he", "she", "the", "He", "man", "Woman", "他", "x", "sister", "kings"]), max_size=8))
def test_exchanging_twice_gives_the_text_back(words):
    text = " ".join(words)
    assert counterfactual(counterfactual(text)) == text
    assert responsible.augment([text]) == ([text] if counterfactual(text) == text else [text, counterfactual(text)])


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_an_injected_bias_is_measured_to_its_size_and_taken_away(share):
    """Of 200 texts a share says one word, the rest the other: the gap is ln(p/(1 − p)), and 0 after augmentation."""
    n = round(200 * share)
    texts = ["a"] * n + ["b"] * (200 - n)
    pairs = {"a": "b"}
    tokenizer = CharTokenizer.train(["ab c"])
    model = counted(texts, tokenizer)
    gaps = responsible.likelihood_gaps(model, tokenizer, ["", "c"][:1], "a", "b")
    assert gaps == pytest.approx([math.log(share / (1 - share))], abs=1e-6)
    both = responsible.pair_gaps(model, tokenizer, ["a", "b"], pairs)
    assert both == pytest.approx([gaps[0], -gaps[0]], abs=1e-6)
    cured = counted(responsible.augment(texts, pairs), tokenizer)
    assert responsible.likelihood_gaps(cured, tokenizer, [""], "a", "b") == pytest.approx([0], abs=1e-6)


def test_weat_on_vectors_made_for_it():
    """Targets along their attributes: the largest effect there is, and p one of all divisions."""
    a, b = np.tile([1.0, 0.0], (3, 1)), np.tile([0.0, 1.0], (3, 1))
    x, y = a * [[2.0], [1.0], [5.0]], b * 3.0  # lengths don't matter
    result = responsible.weat(x, y, a, b)
    assert result.effect == pytest.approx(2 / math.sqrt(6 / 5)) and result.p == pytest.approx(1 / math.comb(6, 3))
    turned = responsible.weat(y, x, a, b)
    assert turned.effect == pytest.approx(-result.effect) and turned.p == 1
    same = responsible.weat(x, x, a, b)
    assert same.effect == 0 and same.p == 1
    with pytest.raises(ValueError, match="both must have as many"):
        responsible.weat(x, y[:2], a, b)


def test_weat_of_targets_that_are_associated_alike_is_0_not_rounding():
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((2, 5, 30))
    one = rng.standard_normal(30)
    scaled = np.outer([1.0, 3.0, 0.1, 7.0, 1 / 3, 11.0], one)  # one direction: cosines differ by rounding only
    result = responsible.weat(scaled[:3], scaled[3:], a, b)
    assert result.effect == 0 and result.p == 1


def test_weat_finds_nothing_in_noise_and_samples_like_all_divisions():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        p.append(responsible.weat(*(rng.standard_normal((4, 10)) for _ in range(4))).p)
    assert 0.01 < np.mean(np.array(p) <= 0.05) < 0.09 and 0.42 < np.mean(p) < 0.62
    vectors = [rng.standard_normal((5, 4)) for _ in range(4)]
    whole = responsible.weat(*vectors)
    drawn = responsible.weat(*vectors, permutations=200)  # fewer than the 252 divisions
    assert drawn.effect == whole.effect and drawn.p == pytest.approx(whole.p, abs=0.1)


# --- learning in private ----------------------------------------------------------------------------------------------

# rate, noise, steps, delta: the ε of opacus 1.6.0 with its own orders and with the orders 2 … 256
# (opacus.accountants.analysis.rdp.compute_rdp and get_privacy_spent).
OPACUS = [
    (0.01, 0.6, 1000, 1e-5, 8.665908110192095, 9.102632475357975),
    (0.01, 1.0, 1000, 1e-5, 2.1013652716430564, 2.107753075451561),
    (0.01, 2.0, 1000, 1e-5, 0.6861853363943466, 0.6861853363943466),
    (256 / 60000, 1.1, 14063, 1e-5, 2.5966555286883684, 2.59707951965708),
    (256 / 60000, 0.7, 10547, 1e-5, 6.3183839653375635, 6.3731529732427665),
    (0.001, 0.8, 50000, 1e-6, 2.4074682890738974, 2.42841484787009),
    (1.0, 5.0, 10, 1e-5, 2.8136532471298397, 2.814109167845533),
    (0.2, 4.0, 200, 1e-4, 2.9147096852615624, 2.9150543214468536),
    (0.05, 10.0, 100, 1e-6, 0.22155420795494984, 0.21098862795314716),
]


@pytest.mark.parametrize(("rate", "noise", "steps", "delta", "own", "whole"), OPACUS)
def test_the_accountant_is_that_of_opacus(rate, noise, steps, delta, own, whole):
    assert responsible.epsilon(rate, noise, steps, delta) == pytest.approx(whole, rel=1e-9)
    assert responsible.epsilon(rate, noise, steps, delta) == pytest.approx(own, rel=0.06)
    assert responsible.noise_for(whole, rate, steps, delta) == pytest.approx(noise, rel=2e-3)


def test_epsilon_grows_with_steps_and_rate_and_falls_with_noise():
    base = responsible.epsilon(0.02, 1.0, 100, 1e-5)
    assert responsible.epsilon(0.02, 1.0, 200, 1e-5) > base > responsible.epsilon(0.02, 1.5, 100, 1e-5)
    assert responsible.epsilon(0.04, 1.0, 100, 1e-5) > base > responsible.epsilon(0.02, 1.0, 100, 1e-4)
    assert responsible.epsilon(0.02, 0.0, 1, 1e-5) == math.inf and responsible.epsilon(0.02, 1.0, 0, 1e-5) == 0
    for wrong in ((0.0, 1.0, 1, 1e-5), (0.1, -1.0, 1, 1e-5), (0.1, 1.0, 1, 1.0), (0.1, 1.0, -1, 1e-5)):
        with pytest.raises(ValueError, match="epsilon: rate"):
            responsible.epsilon(*wrong)
    with pytest.raises(ValueError, match="above 0"):
        responsible.noise_for(0.0, 0.1, 10, 1e-5)


def private(optimizer, noise=0.0, max_norm=1e9, lot_size=4, seed=0):
    rng = np.random.default_rng(seed)
    return PrivateOptimizer(optimizer, max_norm=max_norm, noise_multiplier=noise, lot_size=lot_size, rng=rng)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_without_noise_and_clipping_it_is_the_optimizer_itself(kind):
    """A step on examples one by one is the step on the mean of their losses."""
    config = GPTConfig(vocab_size=11, context=8, n_layers=1, n_heads=2, d_model=8)
    ids = np.random.default_rng(0).integers(0, 11, (4, 8))
    models = [model_from_config(config, np.random.default_rng(0)).to(np.float64) for _ in range(2)]
    plain, dp = kind(models[0].parameters(), lr=0.1), private(kind(models[1].parameters(), lr=0.1))
    for _ in range(3):
        models[0].zero_grad()
        models[0](ids[:, :-1], ids[:, 1:]).backward()
        plain.step()
        for row in ids:
            models[1](row[None, :-1], row[None, 1:]).backward()
            dp.add()
        dp.step()
    for (name, a), (_, b) in zip(models[0].named_parameters(), models[1].named_parameters()):
        np.testing.assert_allclose(b.data, a.data, atol=1e-9, err_msg=name)
    assert dp.steps == 3


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 5), st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_no_example_moves_the_sum_by_more_than_the_norm(max_norm, sizes):
    p, q = Parameter(np.zeros(3)), Parameter(np.zeros((2, 2)))
    dp = private(SGD([p, q], lr=1.0), max_norm=max_norm, lot_size=1)
    rng = np.random.default_rng(0)
    for size in sizes:
        before = [total.copy() for total in dp.sums]
        p.grad, q.grad = rng.standard_normal(3) * size, rng.standard_normal((2, 2)) * size
        true = math.sqrt((p.grad**2).sum() + (q.grad**2).sum())
        assert dp.add() == pytest.approx(true) and p.grad is None
        moved = math.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(dp.sums, before)))
        assert moved == pytest.approx(min(true, max_norm), rel=1e-4)


def test_the_noise_has_its_size_also_without_examples():
    p = Parameter(np.zeros(20_000, dtype=np.float32))
    dp = private(SGD([p], lr=1.0), noise=1.5, max_norm=2.0, lot_size=10)
    dp.step()
    assert p.data.std() == pytest.approx(1.5 * 2.0 / 10, rel=0.02) and abs(p.data.mean()) < 0.01
    assert p.dtype == np.float32 and dp.steps == 1
    before = p.data.copy()
    p.grad = np.full(20_000, np.nan, dtype=np.float32)
    with pytest.raises(FloatingPointError, match="can't be clipped"):
        dp.add()
    np.testing.assert_array_equal(p.data, before)
    for wrong in ({"max_norm": 0.0}, {"noise": -1.0}, {"lot_size": 0}):
        with pytest.raises(ValueError, match="PrivateOptimizer"):
            private(SGD([p], lr=1.0), **wrong)


def test_frozen_parameters_take_no_part():
    layer = Linear(3, 2, rng=np.random.default_rng(0))
    layer.bias.requires_grad = False
    before = layer.bias.data.copy()
    dp = private(SGD(layer.parameters(), lr=1.0), noise=3.0, max_norm=1.0)
    dp.step()
    np.testing.assert_array_equal(layer.bias.data, before)
    assert len(dp.sums) == 1


def test_lots_are_poisson():
    lots = list(responsible.poisson_lots(200, 0.1, 500, np.random.default_rng(0)))
    sizes = np.array([len(lot) for lot in lots])
    assert sizes.mean() == pytest.approx(20, abs=0.7) and sizes.std() == pytest.approx(math.sqrt(18), rel=0.1)
    assert all(len(set(lot)) == len(lot) for lot in lots)
