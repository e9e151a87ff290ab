"""Generation: sampling against transformers' processors, cache against no cache, batches against single rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minillm.generate import Sampling, decode_steps, generate, stream, stream_text, window_start
from minillm.models import GPT, GPTConfig


@pytest.fixture(scope="module")
def model():
    """A tiny GPT with large weights, so that its distributions are far from uniform."""
    model = GPT(GPTConfig(vocab_size=61, context=16, n_layers=2, n_heads=2, d_model=32), np.random.default_rng(3))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data *= 6
    return model


PROMPTS = [[1, 2, 3], [4], [5] * 20, [9, 8, 7, 6]]

logits_arrays = hnp.arrays(np.float64, 12, elements=st.floats(-8, 8, width=32), unique=True)


@given(
    logits_arrays,
    st.lists(st.integers(0, 11), min_size=1, max_size=6),
    st.floats(0.3, 3),
    st.one_of(st.none(), st.integers(1, 15)),
    st.one_of(st.none(), st.floats(0.05, 1)),
    st.one_of(st.none(), st.floats(0.01, 1)),
    st.floats(0.5, 2),
)
@settings(max_examples=60)
def test_the_distribution_equals_that_of_transformers(logits, previous, temperature, top_k, top_p, min_p, penalty):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    ids, scores = torch.tensor([previous]), torch.from_numpy(logits)[None]
    scores = transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)
    scores = transformers.TemperatureLogitsWarper(temperature)(ids, scores)
    if top_k is not None:
        scores = transformers.TopKLogitsWarper(top_k)(ids, scores)
    if top_p is not None:
        scores = transformers.TopPLogitsWarper(top_p)(ids, scores)
    if min_p is not None:
        scores = transformers.MinPLogitsWarper(min_p)(ids, scores)
    theirs = torch.softmax(scores, -1)[0].numpy()
    sampling = Sampling(penalty, temperature, top_k, top_p, min_p)
    ours = sampling.probabilities(logits, np.array(previous))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@given(logits_arrays)
def test_filters_mean_what_they_say(logits):
    p = Sampling().probabilities(logits, np.array([0]))
    assert p.sum() == pytest.approx(1)
    assert (Sampling(top_k=3).probabilities(logits, np.array([0])) > 0).sum() == 3
    nucleus = Sampling(top_p=0.7).probabilities(logits, np.array([0])) > 0
    assert p[nucleus].sum() >= 0.7 - 1e-12
    assert p[nucleus].sum() - p[nucleus].min() < 0.7 + 1e-12  # without its least likely token it would fall short
    kept = Sampling(min_p=0.3).probabilities(logits, np.array([0])) > 0
    assert (kept == (p >= 0.3 * p.max())).all()
    greedy = Sampling(temperature=0).probabilities(logits, np.array([0]))
    assert greedy.argmax() == logits.argmax()
    assert greedy.max() == 1


@pytest.mark.parametrize("top_k", [1, 2, 50, 998, 999, 1000])
def test_top_k_of_a_large_vocabulary(top_k):
    """NumPy sorts few numbers whole, whatever is asked of its partition; it does not sort a thousand."""
    logits = np.random.default_rng(0).standard_normal(1000)
    kept = np.flatnonzero(Sampling(top_k=top_k).probabilities(logits, np.array([0])))
    np.testing.assert_array_equal(kept, np.sort(np.argsort(logits)[-top_k:]))


def test_choose_draws_from_the_distribution():
    sampling, logits = Sampling(), np.log([0.5, 0.3, 0.15, 0.05])
    rng = np.random.default_rng(0)
    counts = np.bincount([sampling.choose(logits, np.array([0]), rng) for _ in range(4000)], minlength=4)
    # each count within 4 standard deviations of a binomial
    expected = 4000 * np.exp(logits)
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_choose_gives_a_possible_id_for_the_least_and_the_greatest_random_number():
    """The running sum of ten tenths is a little less than 1, and 1 − 2⁻⁵³ is drawn, once in 2⁵³ times."""

    class Drawn:
        def __init__(self, number):
            self.random = lambda: number

    least, greatest = Drawn(0.0), Drawn(np.nextafter(1.0, 0.0))
    even = np.zeros(10)
    assert Sampling().choose(even, np.array([0]), least) == 0
    assert Sampling().choose(even, np.array([0]), greatest) == 9
    allowed = np.arange(10) % 9 != 0  # neither the first nor the last
    assert Sampling().choose(even, np.array([0]), least, allowed) == 1
    assert Sampling().choose(even, np.array([0]), greatest, allowed) == 8


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0), Sampling(1.3, 0.8, 20, 0.9, 0.02)])
def test_a_cache_changes_nothing_even_beyond_the_context(model, sampling):
    with_cache = generate(model, PROMPTS, max_new_tokens=40, sampling=sampling, seed=1)
    without = generate(model, PROMPTS, max_new_tokens=40, sampling=sampling, seed=1, use_cache=False)
    assert with_cache == without
    assert [len(new) for new in with_cache] == [40] * len(PROMPTS)


def test_a_cache_spares_what_was_seen(model, monkeypatch):
    """One id at a time, until the window moves: then half of the context, and the new id, once."""
    seen, original = [], GPT.hidden
    monkeypatch.setattr(GPT, "hidden", lambda self, ids, cache: seen.append(ids.shape[1]) or original(self, ids, cache))
    generate(model, [[1, 2, 3]], max_new_tokens=17, seed=0, plain=True)
    list(stream(model, [1, 2, 3], max_new_tokens=17, seed=0, plain=True))
    assert seen == 2 * [3, *[1] * 13, 9, 1, 1]
    seen.clear()
    generate(model, [[1, 2, 3]], max_new_tokens=17, seed=0, use_cache=False)
    assert seen == [*range(3, 17), 9, 10, 11]


@pytest.mark.parametrize("context", [1, 2, 3])
def test_a_cache_changes_nothing_where_the_window_moves_by_one(context):
    """From the first step on, since the prompt is one id longer than what the model sees."""
    small = GPT(GPTConfig(vocab_size=61, context=context, n_layers=1, n_heads=1, d_model=8), np.random.default_rng(3))
    for parameter in small.parameters():
        parameter.data *= 6
    with_cache, without = (
        generate(small, [list(range(context + 1))], max_new_tokens=9, seed=1, use_cache=use) for use in (True, False)
    )
    assert with_cache == without


def test_greedy_equals_argmax_of_the_whole_sequence(model):
    new = generate(model, [[1, 2, 3]], max_new_tokens=10, sampling=Sampling(temperature=0))[0]
    ids = [1, 2, 3]
    for token in new:
        assert token == model(np.array([ids])).data[0, -1].argmax()
        ids.append(token)


def test_one_token_may_be_asked_for(model):
    likeliest = [model(np.array([prompt])).data[0, -1].argmax() for prompt in ([1, 2, 3], [4])]
    new = generate(model, [[1, 2, 3], [4]], max_new_tokens=1, sampling=Sampling(temperature=0))
    assert new == [[token] for token in likeliest]


def test_a_row_does_not_depend_on_its_batch(model):
    """Greedily, so that the random generators of the rows, which differ by index, play no part."""
    sampling = Sampling(temperature=0)
    together = generate(model, PROMPTS, max_new_tokens=12, sampling=sampling)
    alone = [generate(model, [prompt], max_new_tokens=12, sampling=sampling)[0] for prompt in PROMPTS]
    # The moving window counts from the position, which is the same for a row alone and in a batch.
    assert together == alone


def test_the_first_row_draws_the_same_numbers_alone_and_in_a_batch(model):
    assert (
        generate(model, PROMPTS[:1], max_new_tokens=8, seed=5)[0]
        == generate(model, PROMPTS, max_new_tokens=8, seed=5)[0]
    )


SEEDS = [(3, 0, 5), 17, (3, 1, 5), (2**70, 1)]


def float64_model(engine):
    """A tiny GPT with large weights in float64, on either engine."""
    model = GPT(GPTConfig(vocab_size=61, context=64, n_layers=2, n_heads=2, d_model=32), np.random.default_rng(3))
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float64) * (6 if parameter.ndim == 2 else 1)
    if engine == "torch":
        pytest.importorskip("torch")
        from minillm.port import to_torch

        return to_torch(model)
    return model


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_a_row_with_a_seed_of_its_own_draws_the_same_in_any_batch(engine):
    model = float64_model(engine)
    alone = [generate(model, [prompt], max_new_tokens=25, seed=[own])[0] for prompt, own in zip(PROMPTS, SEEDS)]
    rng = np.random.default_rng(0)
    for _ in range(8):
        rows = rng.integers(len(PROMPTS), size=rng.integers(1, 9)).tolist()  # in any order, some more than once
        options = {"max_new_tokens": 25, "seed": [SEEDS[i] for i in rows]}
        assert generate(model, [PROMPTS[i] for i in rows], **options) == [alone[i] for i in rows]
    assert len({tuple(row) for row in alone}) == len(PROMPTS)
    assert generate(model, PROMPTS[:1] * 2, max_new_tokens=25, seed=[1, 2])[0] != alone[0]


def test_each_prompt_needs_a_seed_of_its_own_or_all_share_one(model):
    with pytest.raises(ValueError, match="seed has 3 seeds for 4 prompts: give each one, or one for all"):
        generate(model, PROMPTS, max_new_tokens=1, seed=[1, 2, 3])


def test_rows_of_the_same_prompt_differ_and_a_seed_repeats_them(model):
    first = generate(model, [[1]] * 4, max_new_tokens=12, seed=7)
    assert len({tuple(row) for row in first}) > 1
    assert first == generate(model, [[1]] * 4, max_new_tokens=12, seed=7)
    assert first != generate(model, [[1]] * 4, max_new_tokens=12, seed=8)


def test_stop_ids_end_a_row_and_are_not_returned(model):
    free = generate(model, PROMPTS, max_new_tokens=20, seed=2)
    stop = free[0][5]
    stopped = generate(model, PROMPTS, max_new_tokens=20, seed=2, stop_ids=[stop])
    for whole, cut in zip(free, stopped):
        assert cut == (whole[: whole.index(stop)] if stop in whole else whole)


def test_generation_ends_when_every_row_has_stopped(model, monkeypatch):
    steps = []
    original = Sampling.choose
    monkeypatch.setattr(Sampling, "choose", lambda self, *a: steps.append(1) or original(self, *a))
    everything = list(range(61))
    assert generate(model, [[1], [2]], max_new_tokens=30, seed=0, stop_ids=everything) == [[], []]
    assert len(steps) == 2


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_model_is_not_asked_again_when_every_row_has_stopped(model, monkeypatch, use_cache):
    """Rows of different length that stop at different steps: the last to stop decides."""
    calls = []
    hidden = GPT.hidden
    monkeypatch.setattr(GPT, "hidden", lambda self, ids, cache=None: calls.append(1) or hidden(self, ids, cache))
    options = {"max_new_tokens": 30, "seed": 0, "use_cache": use_cache, "plain": True}
    free = generate(model, PROMPTS, **options)
    stops = {row[3 + i] for i, row in enumerate(free)}
    last = max(
        len(prompt) + next(i for i, token in enumerate(row) if token in stops) for prompt, row in zip(PROMPTS, free)
    )
    calls.clear()
    generate(model, PROMPTS, **options, stop_ids=stops)
    assert len(calls) == last - min(len(prompt) for prompt in PROMPTS) + 1


def test_stream_yields_what_generate_returns(model):
    for stop_ids in ((), (generate(model, [[1, 2]], max_new_tokens=15, seed=4)[0][7],)):
        whole = generate(model, [[1, 2]], max_new_tokens=15, seed=4, stop_ids=stop_ids)[0]
        assert list(stream(model, [1, 2], max_new_tokens=15, seed=4, stop_ids=stop_ids)) == whole


def test_evaluation_mode_is_used_and_restored():
    model = GPT(GPTConfig(vocab_size=11, context=8, n_layers=1, n_heads=1, d_model=8, dropout=0.5))
    model.train()
    state = model.rng.bit_generator.state
    generate(model, [[1]], max_new_tokens=5, seed=0)
    assert model.training
    assert model.blocks[0].attn.resid_dropout.training
    assert model.rng.bit_generator.state == state  # dropout drew nothing


class Bytes:
    """A tokenizer of single bytes; id 256 ends a text."""

    eos_id = 256
    tokens = (*(bytes([b]) for b in range(255)), None, b"")  # there is no byte 255 in UTF-8

    def encode_pair(self, text):
        return list(text.encode()), [0] * len(text)

    def decode_bytes(self, ids):
        return bytes(ids)


def test_streamed_text_waits_for_whole_characters(monkeypatch):
    tokens = [*"héllo 世界 🙂".encode(), 0xE4, 256, 65]
    seen = {}

    def fake_stream(model, ids, *, max_new_tokens, stop_ids, allowed):
        seen["ids"], seen["hidden"] = ids, np.flatnonzero(~allowed).tolist()
        for token in tokens[:max_new_tokens]:
            if token in stop_ids:
                return
            yield token

    monkeypatch.setattr("minillm.generate.stream", fake_stream)
    pieces = list(stream_text(None, Bytes(), "", max_new_tokens=99))
    assert seen["hidden"] == [255]
    assert seen["ids"] == [256]  # an empty prompt begins with the end-of-text id
    assert "".join(pieces) == "héllo 世界 🙂\N{REPLACEMENT CHARACTER}"  # 0xE4 begins a character that never ends
    assert "世" in pieces
    assert "🙂" in pieces


@given(st.integers(1, 300), st.integers(1, 64))
def test_the_window_never_exceeds_the_context_and_never_moves_back(length, context):
    start = window_start(length, context)
    assert 0 < length - start <= context
    assert start <= window_start(length + 1, context)
    assert length - start >= min(length, context - max(context // 2, 1) + 1)


def test_the_window_jumps_by_half_of_the_context():
    assert [window_start(length, 16) for length in (1, 16, 17, 24, 25, 32, 33)] == [0, 0, 8, 8, 16, 16, 24]
    assert [window_start(length, 1) for length in (1, 2, 3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature = -1"),
        ({"top_k": 0}, "top_k = 0"),
        ({"top_p": 1.5}, "top_p = 1.5"),
        ({"top_p": 0.0}, "top_p = 0.0"),
        ({"min_p": -0.1}, "min_p = -0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty = 0"),
    ],
)
def test_impossible_sampling_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


def test_bad_prompts_are_refused(model):
    with pytest.raises(ValueError, match="at least one id"):
        generate(model, [[1], []], max_new_tokens=3)
    with pytest.raises(ValueError, match="max_new_tokens = 0"):
        generate(model, [[1]], max_new_tokens=0)
    with pytest.raises(IndexError, match="id 61 is outside"):
        generate(model, [[61]], max_new_tokens=3)


def test_nan_logits_are_reported(model):
    with pytest.raises(FloatingPointError, match="NaN"):
        Sampling().probabilities(np.array([0.0, np.nan]), np.array([0]))


def test_steps_are_lazy(model):
    steps = decode_steps(model, [[1]], 5, Sampling(), 0, True)
    assert list(next(steps)) == [0]


TINY = float(np.finfo(np.float64).tiny)


@pytest.mark.parametrize("name", ["temperature", "repetition_penalty", "top_p", "min_p", "top_k"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e-320, TINY / 2, "0.9", 1j], ids=str)
def test_settings_that_are_no_usable_numbers_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} = "):
        Sampling(**{name: value})


def test_top_k_is_a_whole_number():
    with pytest.raises(ValueError, match=r"top_k = 2\.5 must be a whole number"):
        Sampling(top_k=2.5)
    assert Sampling(top_k=np.int64(2)).top_k == 2


@pytest.mark.parametrize("temperature", [TINY, 1e-300, 1e-5])
def test_hardly_any_temperature_takes_the_likeliest(temperature):
    logits = np.array([9.0, 10.0, -20.0, 0.0])
    sampling = Sampling(temperature=temperature)
    np.testing.assert_array_equal(sampling.probabilities(logits, np.array([0])), [0, 1, 0, 0])
    for penalty in (TINY, 1e308):
        p = Sampling(repetition_penalty=penalty, temperature=temperature).probabilities(logits, np.array([0, 2]))
        assert p.sum() == 1 and np.isfinite(p).all()


def test_the_hottest_temperature_makes_all_alike():
    np.testing.assert_allclose(Sampling(temperature=1e308).probabilities(np.array([9.0, 1.0]), np.array([0])), 0.5)


FILTERS = [Sampling(), Sampling(temperature=0), Sampling(top_k=5), Sampling(top_p=0.9), Sampling(min_p=0.01),
           Sampling(top_p=1.0, min_p=1.0), Sampling(1.2, 1e-300, 30, 0.99, 0.001)]  # fmt: skip


@pytest.mark.parametrize("sampling", FILTERS, ids=str)
def test_ids_that_the_tokenizer_lacks_are_never_chosen(model, sampling):
    """The model has 61 ids and likes the last ones best; the tokenizer knows 40, but for id 3."""
    allowed = np.arange(40) != 3
    logits = np.arange(61.0) / 4
    p = sampling.probabilities(logits, np.array([1, 50]), allowed)
    assert p.sum() == pytest.approx(1) and not p[40:].any() and p[3] == 0
    only = np.delete(logits[:40], 3)  # as if the others were not there
    np.testing.assert_allclose(np.delete(p[:40], 3), sampling.probabilities(only, np.array([1])), rtol=1e-12)
    rows = generate(model, [[1], [2, 60]], max_new_tokens=60, sampling=sampling, seed=0, allowed=allowed)
    assert not {token for row in rows for token in row} - set(np.flatnonzero(allowed))
    steps = stream(model, [1], max_new_tokens=60, sampling=sampling, seed=0, allowed=allowed)
    assert list(steps) == rows[0]


def test_allowed_may_be_longer_than_the_vocabulary_but_must_allow_something(model):
    logits = np.array([1.0, 3.0, 2.0])
    rng = np.random.default_rng(0)
    assert Sampling(temperature=0).choose(logits, np.array([0]), rng, np.ones(9, bool)) == 1
    with pytest.raises(ValueError, match="allowed lets none of the model's 3 ids be chosen"):
        Sampling().probabilities(logits, np.array([0]), np.array([False]))


def test_streamed_text_never_dies_on_an_id_that_only_the_model_has(model):
    """A vocabulary padded from 40 to 61."""

    class Letters(Bytes):
        eos_id = None
        tokens = [bytes([65 + i]) for i in range(40)]  # noqa: RUF012

        def encode_pair(self, text):
            return [ord(c) - 65 for c in text], [0] * len(text)

        def decode_bytes(self, ids):
            return b"".join(self.tokens[i] for i in ids)

    for seed in range(5):
        text = "".join(stream_text(model, Letters(), "A", max_new_tokens=50, seed=seed))
        assert len(text) == 50


def test_the_limits_themselves_belong_to_what_is_kept():
    """Exact halves: a token whose probability is min_p times the likeliest's stays; what reaches top_p is enough."""
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125]))
    assert np.count_nonzero(Sampling(min_p=0.5).probabilities(logits, np.array([0]))) == 2
    assert np.count_nonzero(Sampling(min_p=1.0).probabilities(logits, np.array([0]))) == 1
    assert np.count_nonzero(Sampling(min_p=1.0).probabilities(np.zeros(4), np.array([0]))) == 4
    assert np.count_nonzero(Sampling(top_p=0.75).probabilities(np.log([0.5, 0.25, 0.25]), np.array([0]))) == 2
    assert np.count_nonzero(Sampling(top_p=0.5).probabilities(np.zeros(4), np.array([0]))) == 2
    assert np.count_nonzero(Sampling(top_p=1.0).probabilities(np.zeros(4), np.array([0]))) == 4
    assert np.count_nonzero(Sampling(top_k=2).probabilities(np.zeros(4), np.array([0]))) == 4  # all share the 2nd place


def test_the_least_that_may_be_kept_is_the_likeliest():
    logits = np.array([1.0, 3.0, 2.0])
    for sampling in (Sampling(top_k=1), Sampling(min_p=1.0), Sampling(top_p=TINY)):
        assert sampling.probabilities(logits, np.array([0])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("penalty", [2.0, 0.5])
def test_the_penalty_divides_what_is_positive_and_multiplies_what_is_not(penalty):
    logits = np.array([1.0, -1.0, 0.0, 2.0])
    changed = np.array([1.0 / penalty, -1.0 * penalty, 0.0, 2.0])
    found = Sampling(repetition_penalty=penalty).probabilities(logits, np.array([0, 1, 2]))
    np.testing.assert_allclose(found, np.exp(changed) / np.exp(changed).sum(), rtol=1e-12)
