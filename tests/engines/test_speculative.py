"""Speculative decoding: distributed as the model alone, greedily the same text, and with fewer calls."""

import itertools

import numpy as np
import pytest

from minillm.engines.speculative import NGrams, Reader, speculate
from minillm.generate import Sampling, generate
from minillm.hub.rules import Rules
from minillm.models import GPT, LSTM, Gemma, GemmaConfig, GPTConfig, Llama, LlamaConfig, LSTMConfig
from minillm.tensor import no_grad

GREEDY = Sampling(temperature=0)


def gpt(vocab_size=61, seed=0, context=24, sharp=5.0):
    model = GPT(
        GPTConfig(vocab_size=vocab_size, context=context, n_layers=2, n_heads=2, d_model=16),
        np.random.default_rng(seed),
    ).to(np.float64)
    for parameter in model.parameters():
        parameter.data *= sharp if parameter.ndim == 2 else 1
    return model.eval()


def others():
    rng = np.random.default_rng(1)
    yield Llama(LlamaConfig(61, 24, 2, 4, 2, 32, d_ff=40), rng).to(np.float64)
    yield Gemma(GemmaConfig(61, 24, 2, d_model=32, head_dim=8, d_ff=16, full_layers=(1,)), rng).to(np.float64)


def on(engine, model):
    if engine == "numpy":
        return model
    pytest.importorskip("torch")
    from minillm.port import to_torch

    return to_torch(model)


each_engine = pytest.mark.parametrize("engine", ["numpy", "torch"])


@each_engine
def test_greedily_it_is_the_text_of_the_model_alone_beyond_the_context_too(engine):
    for model in (gpt(), *others()):
        alone = generate(model, [[1, 2, 3]], max_new_tokens=60, sampling=GREEDY)[0]
        for draft in (None, gpt(seed=9), gpt(seed=9, context=7), model):
            written = on(engine, model)
            helper = None if draft is None else on(engine, draft)
            for ahead in (1, 5):
                options = {"max_new_tokens": 60, "ahead": ahead, "sampling": GREEDY}
                assert list(speculate(written, [1, 2, 3], helper, **options)) == alone


def chi_squared(counts, expected):
    """The statistic, and what it exceeds in one of 10,000 cases (Wilson & Hilferty 1931)."""
    k = len(expected) - 1
    return ((counts - expected) ** 2 / expected).sum(), k * (1 - 2 / (9 * k) + 3.72 * np.sqrt(2 / (9 * k))) ** 3


def probabilities_of_texts(model, prompt, sampling, n):
    """Each text of n ids -> its probability, computed from the model alone."""
    found = {}
    for text in itertools.product(range(model.config.vocab_size), repeat=n):
        with no_grad():
            logits = model(np.array([[*prompt, *text]])).data[0]
        places = range(len(prompt) - 1, len(prompt) + n - 1)
        found[text] = np.prod([
            sampling.probabilities(logits[at], np.array([*prompt, *text][: at + 1]))[token]
            for at, token in zip(places, text)
        ])  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("engine", "drafted", "sampling"),
    [
        ("numpy", True, Sampling()),
        ("numpy", False, Sampling()),
        ("numpy", True, Sampling(1.3, 0.7, top_k=3)),
        ("numpy", False, Sampling(1.3, 0.7, top_k=3)),
        ("torch", True, Sampling()),
        ("torch", False, Sampling()),
    ],
)
def test_texts_are_distributed_as_those_of_the_model_alone(engine, drafted, sampling):
    """Every text of three ids out of four, in 600 drawings; the draft is another model."""
    model, draft = gpt(4, seed=3, sharp=9.0), gpt(4, seed=5, sharp=9.0)
    prompt, n = [0, 1, 2, 0, 1], 600
    expected = {text: p * n for text, p in probabilities_of_texts(model, prompt, sampling, 3).items()}
    written, helper = on(engine, model), on(engine, draft) if drafted else None
    options = {"max_new_tokens": 3, "ahead": 3, "sampling": sampling}
    counts = dict.fromkeys(expected, 0)
    for seed in range(n):
        counts[tuple(speculate(written, prompt, helper, seed=seed, **options))] += 1
    assert not any(counts[text] for text, often in expected.items() if often == 0)
    rare = [text for text, often in expected.items() if often < 5]
    often = [text for text in expected if text not in rare]
    both = [
        np.array([*(where[text] for text in often), sum(where[text] for text in rare)])
        for where in (counts, expected)
    ]  # fmt: skip
    both = [array[both[1] > 0] for array in both]
    statistic, limit = chi_squared(*both)
    assert statistic < limit


def test_a_draft_that_agrees_spares_calls(monkeypatch):
    """With itself as the draft every guess is kept: five tokens a call."""
    read, model = [], gpt()
    original = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, text, n: read.append(n) or original(self, text, n))
    assert len(list(speculate(model, [1], model, max_new_tokens=20, ahead=4, seed=0))) == 20
    assert [n for n in read if n > 1] == [5, 5, 5, 5]


def test_what_stood_behind_the_last_ids_is_guessed():
    ngrams = NGrams(3)
    assert ngrams([1, 2, 3, 4], 2) == []
    assert [token for token, _ in ngrams([1, 2, 3, 4, 2, 3], 3)] == [4, 2, 3]
    assert [token for token, _ in ngrams([1, 2, 3, 4, 2, 3, 5, 3], 1)] == [5]  # the last place
    assert [token for token, _ in ngrams([1, 2, 3, 4, 2, 3, 5, 3, 1, 2, 3], 2)] == [4, 2]  # the longest match


def test_limits_rules_and_stops_hold():
    model, draft = gpt(), gpt(seed=9)
    allowed = np.arange(61) < 20
    options = {"max_new_tokens": 40, "seed": 0, "allowed": allowed, "rules": Rules(no_repeat_ngram_size=1)}
    for helper in (draft, None):
        text = list(speculate(model, [30], helper, **{**options, "max_new_tokens": 15}))
        assert len(set(text)) == 15 and max(text) < 20
        stopped = list(speculate(model, [30], helper, **{**options, "max_new_tokens": 15}, stop_ids=[text[6]]))
        assert stopped == text[:7]


def test_what_cannot_be_done_is_said():
    model = gpt()
    with pytest.raises(ValueError, match="the draft has 7 ids, the model 61"):
        next(speculate(model, [1], gpt(7), max_new_tokens=3))
    with pytest.raises(ValueError, match="what a LSTM remembers cannot be set back"):
        next(speculate(model, [1], LSTM(LSTMConfig(61, 16, 1, 8)), max_new_tokens=3))
    with pytest.raises(ValueError, match="needs at least one id"):
        next(speculate(model, [], max_new_tokens=3))
