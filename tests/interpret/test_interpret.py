"""Looking inside, on both engines: nothing is left behind, and planted truths are found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import interpret
from minillm.generate import generate
from minillm.interpret import replacing
from minillm.models import (
    BertConfig,
    ClassifierConfig,
    EncoderDecoderConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    model_from_config,
)

SHAPE = {"vocab_size": 20, "context": 12, "n_layers": 2, "n_heads": 4, "d_model": 16}
CONFIGS = {
    "gpt": GPTConfig(**SHAPE, dropout=0.3),
    "llama": LlamaConfig(**SHAPE, d_ff=24, n_kv_heads=2, qk_norm=True),
    "bert": BertConfig(**SHAPE, d_ff=24),
}
IDS = np.random.default_rng(3).integers(1, 20, (3, 10))


def random_model(name, engine="numpy"):
    model = model_from_config(CONFIGS[name], np.random.default_rng(0)).to(np.float64)
    for parameter in model.parameters():
        parameter.data *= 3  # from nearly even answers to uneven ones
    if engine == "torch":
        pytest.importorskip("torch")
        from minillm.port import to_torch

        return to_torch(model)
    return model


def forwards(model):
    """What stands in the modules' own dictionaries in place of their class's forward."""
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


each_model = pytest.mark.parametrize("name", CONFIGS)
each_engine = pytest.mark.parametrize("engine", ["numpy", "torch"])


# --- record and replace -----------------------------------------------------------------------------------------------


@each_engine
@each_model
def test_what_is_recorded_can_be_put_back(name, engine):
    """A block's output in place of itself changes nothing, on either engine; another one changes the answer to what it
    would be after that other one; afterwards the model is what it was."""
    model = random_model(name, engine)
    answer = interpret.run(model, IDS)
    with interpret.recording(model, ["blocks.0", "blocks.1.attn"]) as calls:
        interpret.run(model, IDS)
    assert list(calls) == ["blocks.0", "blocks.1.attn"]
    first = calls["blocks.0"].out
    assert not first.requires_grad  # no graph hangs on it
    with replacing(model, {"blocks.0": lambda x: first}):
        np.testing.assert_array_equal(interpret.run(model, IDS), answer)
        other = interpret.run(model, IDS[::-1].copy())
    if name == "bert":  # the stream alone decides
        np.testing.assert_array_equal(other, answer)
    with replacing(model, {"blocks.0": lambda x: x * 0}):
        assert np.abs(interpret.run(model, IDS) - answer).max() > 0.1
    np.testing.assert_array_equal(interpret.run(model, IDS), answer)
    assert forwards(model) == [] and model.training


@each_model
def test_both_engines_say_the_same_inside(name):
    ours, theirs = (interpret.look_inside(random_model(name, engine), IDS) for engine in ("numpy", "torch"))
    np.testing.assert_allclose(theirs.attention, ours.attention, atol=1e-12)
    np.testing.assert_allclose(theirs.residual, ours.residual, atol=1e-12)
    lenses = [interpret.logit_lens(random_model(name, engine), IDS) for engine in ("numpy", "torch")]
    np.testing.assert_allclose(lenses[1].log_probs, lenses[0].log_probs, atol=1e-10)


@each_engine
def test_nothing_is_left_after_an_exception(engine):
    model = random_model("gpt", engine)
    with pytest.raises(ZeroDivisionError), interpret.recording(model, ["blocks.0"]), replacing(model, {"norm": abs}):
        raise ZeroDivisionError
    assert forwards(model) == []
    with (
        pytest.raises(ValueError, match=r"blocks.1 has \(3, 10, 16\), its change gave \(3, 9, 16\)"),
        replacing(model, {"blocks.1": lambda x: x[:, 1:]}),
    ):
        interpret.run(model, IDS)
    assert forwards(model) == [] and model.training


def test_one_inside_the_other_and_one_module_under_two_names():
    model = random_model("gpt")
    block = model.blocks[0]
    with interpret.watching({"a": block, "b": block}) as outer:
        with replacing(model, {"blocks.0": lambda x: x * 2}), interpret.recording(model, ["blocks.0"]) as inner:
            interpret.run(model, IDS)
        assert forwards(model) == ["blocks.0"]  # the outer one still looks
        doubled, seen = inner["blocks.0"].out.data, outer["b"].out.data
        interpret.run(model, IDS)
    np.testing.assert_array_equal(doubled, 2 * seen)
    np.testing.assert_array_equal(outer["a"].out.data, seen)  # of the second run, undisturbed
    assert forwards(model) == []


def test_inputs_are_replaced_before_the_module_sees_them():
    """Half of a layer's heads taken away before the projection: what remains is what the others say."""
    model = random_model("gpt")
    keep = np.arange(16) < 8
    with interpret.recording(model, ["blocks.0.attn.proj"]) as calls:
        interpret.run(model, IDS)
    proj = model.blocks[0].attn.proj
    expected = (calls["blocks.0.attn.proj"].x.data * keep) @ proj.weight.data.T + proj.bias.data
    with (
        replacing(model, inputs={"blocks.0.attn.proj": lambda x: x * keep}),
        interpret.recording(model, ["blocks.0.attn"]) as calls,
    ):
        interpret.run(model, IDS)
    np.testing.assert_allclose(calls["blocks.0.attn"].out.data, expected, atol=1e-12)


def test_a_name_that_is_not_there_and_a_module_that_is_never_called():
    model = random_model("gpt")
    with (
        pytest.raises(ValueError, match=r"no module 'block.0'. Did you mean blocks.0"),
        replacing(model, {"block.0": abs}),
    ):
        pass
    with (
        pytest.raises(ValueError, match="position_embedding: never called"),
        interpret.recording(model, ["position_embedding"]),
    ):
        interpret.run(model, IDS)
    prompts = [[1, 2, 3]]
    with pytest.raises(ValueError, match="plain=True"), replacing(model, {"blocks.0": lambda x: x}):
        generate(model, prompts, max_new_tokens=2, seed=0)
    with replacing(model, {"blocks.0": lambda x: x}):
        generate(model, prompts, max_new_tokens=2, seed=0, plain=True)


# --- the logit lens ---------------------------------------------------------------------------------------------------


@each_model
def test_the_lens_ends_with_the_models_own_answer(name):
    model = random_model(name)
    lens = interpret.logit_lens(model, IDS)
    assert (
        lens.log_probs.shape == (3, 3, 10, 20) and lens.kl().shape == (3, 3, 10) and lens.top(4).shape == (3, 3, 10, 4)
    )
    logits = interpret.run(model, IDS)
    shifted = logits - logits.max(-1, keepdims=True)
    np.testing.assert_allclose(lens.log_probs[-1], shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)), atol=1e-12)
    np.testing.assert_array_equal(lens.top()[-1, ..., 0], logits.argmax(-1))
    assert lens.kl()[-1].max() == 0 and lens.kl()[:-1].min() > 0
    model.blocks.pop()  # a model that ends after its first block
    np.testing.assert_array_equal(lens.top()[1, ..., 0], interpret.run(model, IDS).argmax(-1))


def test_the_lens_needs_logits_at_each_position():
    for config in (
        ClassifierConfig(CONFIGS["gpt"]),
        EncoderDecoderConfig(**SHAPE, d_ff=24),
        BertConfig(**SHAPE, head="none"),
    ):
        with pytest.raises(ValueError, match="predicts no tokens in place"):
            interpret.logit_lens(model_from_config(config), IDS)
    with pytest.raises(TypeError, match="no attention to look at"):
        interpret.logit_lens(model_from_config(LSTMConfig(20, 12, 1, 8)), IDS)


# --- rollout and heads ------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(0, 99))
def test_rollout_keeps_shares_and_causality(layers, heads, T, seed):
    weights = np.tril(np.random.default_rng(seed).random((layers, 2, heads, T, T)) + 0.01)
    weights /= weights.sum(-1, keepdims=True)
    rolled = interpret.attention_rollout(weights)
    assert rolled.shape == (layers, 2, T, T)
    np.testing.assert_allclose(rolled.sum(-1), 1)
    assert not np.triu(rolled, 1).any()
    np.testing.assert_allclose(interpret.attention_rollout(weights * 0.5).sum(-1), 1)  # as a sink leaves them


def test_rollout_by_hand():
    """Everybody looks at the first position: half of the rest goes there in each layer."""
    first = np.zeros((3, 1, 4, 4))
    first[..., 0] = 1
    own = np.array([0.5, 0.25, 0.125])
    rolled = interpret.attention_rollout(first)
    np.testing.assert_allclose(rolled[:, 2, 2], own)
    np.testing.assert_allclose(rolled[:, 2, 0], 1 - own)


def induction_model(vocab_size=8, context=24, sharpness=200.0):
    """Two layers of one head, made by hand. The stream holds four fields: the token here (V), the token before (V), the
    position (T), and the answer (V). Layer 0 finds the position before and writes its token into the second field;
    layer 1 finds the token here in the second field of the past, and writes that position's token into the answer."""
    V, T = vocab_size, context
    D = 3 * V + T
    model = model_from_config(GPTConfig(vocab_size=V, context=T, n_layers=2, n_heads=1, d_model=D)).to(np.float64)
    for parameter in model.parameters():
        parameter.data[...] = 0
    token, before, answer, place = slice(V), slice(V, 2 * V), slice(2 * V, 3 * V), slice(3 * V, D)
    for norm in (model.norm, *(n for block in model.blocks for n in (block.norm_1, block.norm_2))):
        norm.weight.data[...] = 1
    model.token_embedding.weight.data[:, token] = np.eye(V)
    model.token_embedding.weight.data[:, answer] = 0.1 * np.eye(V)  # tied: what the answer field is read by
    model.position_embedding.weight.data[:, place] = np.eye(T)
    q, k, v = (slice(i * D, (i + 1) * D) for i in range(3))
    one, two = (block.attn for block in model.blocks)
    one.qkv.weight.data[q, place][:T] = sharpness * np.eye(T, k=-1).T  # a query at t asks for t − 1
    one.qkv.weight.data[k, place][:T] = np.eye(T)
    one.qkv.weight.data[v, token][:V] = np.eye(V)
    one.proj.weight.data[before, :V] = np.eye(V)
    two.qkv.weight.data[q, token][:V] = sharpness * np.eye(V)
    two.qkv.weight.data[k, before][:V] = np.eye(V)
    two.qkv.weight.data[k, place][:V, 0] = -2  # the first position, which had nobody else to copy from
    two.qkv.weight.data[v, token][:V] = np.eye(V)
    two.proj.weight.data[answer, :V] = 20 * np.eye(V)
    return model


def test_an_induction_head_made_by_hand_scores_1():
    model = induction_model()
    scores = interpret.induction_scores(model)
    assert scores.shape == (2, 1) and scores[1, 0] == pytest.approx(1, abs=1e-6) and scores[0, 0] < 0.2
    ids, periods = interpret.repeated_rows(np.random.default_rng(1), 8, 24, 8)
    back = np.broadcast_to(np.eye(24, k=-1) > 0, (8, 24, 24))
    previous = interpret.attended_share(interpret.look_inside(model, ids).attention, back)
    assert previous[0, 0] == pytest.approx(1, abs=1e-6) and previous[1, 0] < 0.5
    answers = interpret.run(model, ids).argmax(-1)
    for row, answer, period in zip(ids, answers, periods):  # and it continues what it has seen
        if period <= 8:  # no id twice in a period, so that there is one answer
            np.testing.assert_array_equal(answer[period:-1], row[period + 1 :])


def test_a_head_that_always_looks_equally_far_back_is_no_induction_head():
    """It would score 1 if all rows had its period."""
    ids, periods = interpret.repeated_rows(np.random.default_rng(0), 64, 40, 100)
    assert len(set(periods)) > 10 and periods.min() == 3 and periods.max() == 20
    fixed = np.zeros((1, 64, 1, 40, 40))
    fixed[..., range(9, 40), range(0, 31)] = 1
    share = interpret.attended_share(fixed, interpret.what_followed(ids))[0, 0]
    assert 0 < share < 0.2
    same = np.resize(np.arange(10), (64, 40))
    assert interpret.attended_share(fixed, interpret.what_followed(same))[0, 0] == 1


def test_shares_by_hand():
    ids = np.array([[5, 6, 5, 7, 5, 5]])
    found = [(t, j) for t, j in np.argwhere(interpret.what_followed(ids)[0])]
    assert found == [(2, 1), (4, 1), (4, 3), (5, 1), (5, 3), (5, 5)]
    uniform = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    scores = interpret.attended_share(np.broadcast_to(uniform, (2, 1, 3, 6, 6)), interpret.what_followed(ids))
    np.testing.assert_allclose(scores, np.full((2, 3), np.mean([1 / 3, 2 / 5, 3 / 6])))


@given(st.integers(6, 40), st.integers(2, 30), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_rows_repeat_with_their_periods(length, vocab_size, seed):
    ids, periods = interpret.repeated_rows(np.random.default_rng(seed), 5, length, vocab_size)
    assert ids.shape == (5, length) and ids.min() >= 0 and ids.max() < vocab_size
    for row, period in zip(ids, periods):
        assert 3 <= period <= length // 2
        np.testing.assert_array_equal(row[period:], row[:-period])
        assert period > vocab_size or len(set(row[:period])) == period
    with pytest.raises(ValueError, match="length = 5"):
        interpret.repeated_rows(np.random.default_rng(0), 1, 5, 9)


# --- patching ---------------------------------------------------------------------------------------------------------


def test_patching_finds_where_the_hand_made_model_keeps_what_it_knows():
    """3 5 … 3 → 5. With 6 in place of 5, the answer is won back at the position of the 5 before it was copied, and at
    the last position after that."""
    model = induction_model()
    clean = np.array([[3, 5, 1, 2, 7, 3]])
    corrupted = np.array([[3, 6, 1, 2, 7, 3]])
    names = ["token_embedding", "blocks.0", "blocks.1"]
    shares = interpret.activation_patching(model, clean, corrupted, lambda y: float(y[0, -1, 5] - y[0, -1, 6]), names)
    expected = np.zeros((3, 6))
    expected[[0, 1], 1] = expected[2, 5] = 1
    np.testing.assert_allclose(shares, expected, atol=1e-6)


@each_engine
@each_model
def test_patching_all_models(name, engine):
    """The last block at the position that is measured wins everything back; in a decoder, nothing after it does."""
    model, clean, corrupted = random_model(name, engine), IDS[:1], IDS[1:2]
    shares = interpret.activation_patching(model, clean, corrupted, lambda y: float(y[0, 4, 7] - y[0, 4, 2]))
    assert shares.shape == (2, 10)
    expected = np.zeros(10)
    expected[4] = 1
    np.testing.assert_allclose(shares[1], expected, atol=1e-8)
    assert name == "bert" or not shares[0, 5:].any()
    assert np.abs(shares[0, :5]).max() > 0.05 and forwards(model) == []


def test_patching_refuses_what_measures_nothing():
    model = random_model("gpt")
    with pytest.raises(ValueError, match="nothing to win back"):
        interpret.activation_patching(model, IDS, IDS, lambda y: float(y[0, -1, 0]))
    with pytest.raises(ValueError, match="differ"):
        interpret.activation_patching(model, IDS, IDS[:, :9], lambda y: float(y[0, -1, 0]))


# --- probing ----------------------------------------------------------------------------------------------------------


def test_a_probe_reads_what_is_planted_and_its_control_says_what_it_could_memorize():
    """Features that hold the property: accuracy near 1, control near chance. Features that are the id itself: a
    property of the id is read as well, and the control with it: selectivity near 0."""
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(0, 40, 1200), rng.integers(0, 3, 1200)
    noise = rng.standard_normal((1200, 12))
    planted = noise.copy()
    planted[:, :3] += 6 * np.eye(3)[labels]
    good = interpret.probe(planted, labels, ids)
    assert good.accuracy > 0.98 and good.control < 0.5 and good.selectivity == good.accuracy - good.control
    assert interpret.probe(noise, labels, ids).accuracy < 0.45
    by_id = interpret.probe(np.eye(40)[ids], ids % 3, ids)
    assert by_id.accuracy == 1 and by_id.control == 1 and by_id.selectivity == 0


def test_a_probe_is_the_regression_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    from minillm.interpret.probing import control_labels, linear_accuracy

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 900)
    features = rng.standard_normal((900, 6)) + 1.2 * np.eye(4, 6)[labels]
    train = np.arange(900) < 600
    theirs = (
        linear_model.LogisticRegression(C=np.inf)
        .fit(features[train], labels[train])
        .score(features[~train], labels[~train])
    )
    assert abs(linear_accuracy(features, labels, train) - theirs) < 0.01
    ids = rng.integers(0, 50, 900)
    control = control_labels(ids, labels, rng)
    assert all(len(set(control[ids == i])) == 1 for i in range(50)) and set(control) <= set(labels)


def test_a_probe_says_what_does_not_fit():
    x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="must be as many"):
        interpret.probe(x, y[:3], y)
    with pytest.raises(ValueError, match="whole numbers from 0"):
        interpret.probe(x, y - 1, y)
    with pytest.raises(ValueError, match="both sides need some"):
        interpret.probe(x, y, y, train=np.ones(4))
