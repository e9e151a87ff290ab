"""Beam search against transformers, against all continuations there are, and against a plain search without a cache."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import nn
from minillm.beam import Hypothesis, Search, beam_search, best
from minillm.generate import Sampling, generate, next_logits, window_start
from minillm.hub.rules import Rules
from minillm.models import (
    GPT,
    LSTM,
    EncoderDecoder,
    EncoderDecoderConfig,
    GPTConfig,
    Llama,
    LlamaConfig,
    LSTMConfig,
    encoder_decoder,
)

VOCAB = 13
SHAPE = {"vocab_size": VOCAB, "context": 16, "n_layers": 2, "d_model": 12}
CONFIGS = {
    "gpt": (GPT, GPTConfig(**SHAPE, n_heads=2)),
    "llama": (Llama, LlamaConfig(**SHAPE, n_heads=2, n_kv_heads=1, d_ff=20)),
    "lstm": (LSTM, LSTMConfig(**SHAPE)),
    "encoder-decoder": (EncoderDecoder, EncoderDecoderConfig(**SHAPE, n_heads=2, d_ff=20, dropout=0.0, pad_id=0)),
}
PROMPTS = [[1, 2, 3], [4], [5] * 7, [9, 8, 7, 6]]
SOURCE = np.array([[5, 6, 7, 0], [8, 9, 10, 11], [3, 0, 0, 0], [12, 2, 2, 0]])


def make(kind, seed=0, engine="numpy"):
    """A model in float64 whose distributions are far from uniform, an encoder-decoder with its source."""
    cls, config = CONFIGS[kind]
    model = cls(config, np.random.default_rng(seed)).to(np.float64)
    draw = np.random.default_rng(seed + 1)
    for name, parameter in model.named_parameters():
        parameter.data[...] = 0.5 * draw.standard_normal(parameter.shape) + ("norm" in name and "weight" in name)
    source = SOURCE
    if engine == "torch":
        torch = pytest.importorskip("torch")
        from minillm.port import to_torch

        model, source = to_torch(model), torch.tensor(SOURCE)
    return model.given(source) if kind == "encoder-decoder" else model


def alone(model, row):
    """The model for one row of its source alone, if it has one."""
    return model.model.given(model.source[row : row + 1]) if hasattr(model, "source") else model


def log_probabilities(model, ids, allowed=None):
    """Of each next id after one text, computed from scratch."""
    start = window_start(len(ids), model.config.context)
    x = next_logits(model, np.array([ids[start:]]), None)[0].astype(np.float64)
    if allowed is not None:
        x[~allowed] = -np.inf
    return x - np.logaddexp.reduce(x)


def plain(model, prompt, n_new, n_beams, penalty, early, stops, allowed=None):
    """Beam search as one would write it down: lists, no cache, no batch."""
    beams, done = [((), 0.0)], []
    for length in range(1, n_new + 1):
        candidates = []
        for ids, total in beams:
            after = log_probabilities(model, [*prompt, *ids], allowed)
            candidates += [((*ids, token), total + after[token]) for token in range(len(after))]
        candidates = sorted((c for c in candidates if c[1] > -np.inf), key=lambda c: -c[1])
        ends = [c[0][-1] in stops or length == n_new for c in candidates]
        done += [(ids, total / length**penalty) for (ids, total), end in zip(candidates[:n_beams], ends) if end]
        done = sorted(done, key=lambda d: -d[1])[:n_beams]
        beams = [c for c, end in zip(candidates, ends) if not end][:n_beams]
        if not beams:
            break
        if len(done) == n_beams:
            reach = n_new if early == "never" and penalty > 0 else length
            if early is True or not beams[0][1] / reach**penalty > done[-1][1]:
                break
    return done


def check_equal(found, expected):
    assert [tuple(ids) for ids, _ in found] == [tuple(ids) for ids, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], rtol=1e-9)


# --- against a plain search ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("stops", [(), (4, 7)])
def test_a_batch_with_a_cache_is_each_prompt_alone_without(kind, engine, stops):
    """Prompts of different lengths, beyond the context of 16, where the window moves on."""
    model = make(kind, engine=engine)
    options = {"max_new_tokens": 12, "n_beams": 3, "n_return": 3, "stop_ids": stops, "keep_stop_id": True}
    for penalty, early in ((1.0, False), (2.0, "never")):
        options.update(length_penalty=penalty, early_stopping=early)
        cached = beam_search(model, PROMPTS, **options)
        uncached = beam_search(model, PROMPTS, **options, use_cache=False)
        for row, prompt in enumerate(PROMPTS):
            expected = plain(alone(model, row), prompt, 12, 3, penalty, early, stops)
            check_equal(cached[row], expected)
            check_equal(uncached[row], expected)


@given(
    st.sampled_from(["gpt", "lstm"]),
    st.integers(0, 3),
    st.integers(1, 6),
    st.integers(1, 20),
    st.floats(-2, 3),
    st.sampled_from([True, False, "never"]),
    st.sets(st.integers(0, VOCAB - 1), max_size=4),
    st.one_of(st.none(), st.sets(st.integers(0, VOCAB - 1), min_size=1)),
)
@settings(max_examples=25, deadline=None)
def test_any_setting_gives_what_a_plain_search_gives(kind, seed, n_new, n_beams, penalty, early, stops, known):
    model = make(kind, seed)
    allowed = None if known is None else np.isin(np.arange(VOCAB), list(known))
    options = {"length_penalty": penalty, "early_stopping": early, "n_return": n_beams, "allowed": allowed}
    rows = beam_search(model, PROMPTS[:2], max_new_tokens=n_new, n_beams=n_beams, stop_ids=stops, keep_stop_id=True,
                       **options)  # fmt: skip
    for found, prompt in zip(rows, PROMPTS):
        check_equal(found, plain(model, prompt, n_new, n_beams, penalty, early, stops, allowed))
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True)
        assert known is None or not {i for ids, _ in found for i in ids} - known


# --- against all there are -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt", "encoder-decoder"])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_with_enough_beams_the_search_is_exact(kind, penalty):
    """5 ids, 4 new ones, id 2 ends: all texts are tried out."""
    model, stop, n_new = make(kind), 2, 4
    allowed = np.arange(VOCAB) < 5
    texts = [t for n in range(1, n_new + 1) for t in itertools.product(range(5), repeat=n)]
    texts = [t for t in texts if stop not in t[:-1] and (t[-1] == stop or len(t) == n_new)]
    prompts = [[1], [3, 0], [4], [0]]
    rows = beam_search(
        model, prompts, max_new_tokens=n_new, n_beams=5**n_new, n_return=len(texts), length_penalty=penalty,
        early_stopping="never", stop_ids=[stop], keep_stop_id=True, allowed=allowed,
    )  # fmt: skip
    for row, prompt in enumerate(prompts):
        one, scores = alone(model, row), {}
        after = {}
        for text in texts:
            total = 0.0
            for n, token in enumerate(text):
                if text[:n] not in after:
                    after[text[:n]] = log_probabilities(one, [*prompt, *text[:n]], allowed)
                total += after[text[:n]][token]
            scores[text] = total / len(text) ** penalty
        check_equal(rows[row], sorted(scores.items(), key=lambda item: -item[1]))
        if penalty == 0:
            assert math.fsum(math.exp(score) for _, score in rows[row]) == pytest.approx(1)


# --- one beam is greedy decoding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("early", [True, False])
def test_one_beam_is_greedy(kind, engine, early):
    model = make(kind, engine=engine)
    allowed = np.arange(VOCAB) != 3
    for stops in ((), (4, 7)):
        greedy = {"max_new_tokens": 20, "stop_ids": stops, "allowed": allowed}
        expected = generate(model, PROMPTS, **greedy, sampling=Sampling(temperature=0))
        for keep in (True, False):
            found = beam_search(model, PROMPTS, **greedy, n_beams=1, early_stopping=early, keep_stop_id=keep)
            if keep:
                expected_ids = generate(model, PROMPTS, **greedy, sampling=Sampling(temperature=0), keep_stop_id=True)
            assert [row[0].ids for row in found] == (expected_ids if keep else expected)


# --- transformers ----------------------------------------------------------------------------------------------------

SETTINGS = [
    {"num_beams": 2},
    {"num_beams": 4, "length_penalty": 0.0},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": "never"},
    {"num_beams": 5, "length_penalty": -1.0, "early_stopping": True},
    {"num_beams": 3, "early_stopping": True},
    {"num_beams": 6, "length_penalty": 0.6, "early_stopping": False},
]


def their_search(torch, theirs, inputs, n_new, stops, pad, **options):
    """Ids with the stop id, and scores, of all beams of each row."""
    k = options["num_beams"]
    with torch.no_grad():
        made = theirs.generate(
            torch.tensor(inputs), max_new_tokens=n_new, do_sample=False, eos_token_id=list(stops) or None,
            pad_token_id=pad, num_return_sequences=k, return_dict_in_generate=True, output_scores=True, **options,
        )  # fmt: skip
    ids, scores = made.sequences.tolist(), made.sequences_scores.double().tolist()
    return [[(ids[i], scores[i]) for i in range(row * k, row * k + k)] for row in range(len(inputs))]


def compare_with_theirs(model, prompts, rows, n_new, stops, options, rules=None):
    ours = beam_search(
        model, prompts, max_new_tokens=n_new, stop_ids=stops, keep_stop_id=True, n_beams=options["num_beams"],
        n_return=options["num_beams"], length_penalty=options.get("length_penalty", 1.0),
        early_stopping=options.get("early_stopping", False), rules=rules,
    )  # fmt: skip
    stopped = 0
    for prompt, found, theirs in zip(prompts, ours, rows):
        assert len(found) == len(theirs)
        for (new, score), (their_ids, their_score) in zip(found, theirs):
            their_new = their_ids[len(prompt) :]
            assert new == their_new[: len(new)] and len(set(their_new[len(new) :])) <= 1  # then padding
            assert len(new) == n_new or new[-1] in stops
            assert score == pytest.approx(their_score, rel=1e-6, abs=2e-5)  # theirs add up in float32
            stopped += new[-1] in stops
    return stopped


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_beams_and_scores_are_those_of_transformers(family, options, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from hf_models import build

    from minillm import AutoModelForCausalLM

    stopped = 0
    for seed in range(2):
        theirs = build(family, seed=seed).double()
        theirs.save_pretrained(tmp_path)
        ours = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float64").model
        prompts = [[3, 4, 5], [9, 8, 7], [1, 1, 60], [33, 2, 4]]
        for stops in ((), (7,), range(7, 27)):
            rows = their_search(torch, theirs, prompts, 9, stops, 0, **options)
            stopped += compare_with_theirs(ours, prompts, rows, 9, stops, options)
    assert stopped > 5


def marian(torch, transformers, model):
    """transformers' encoder-decoder of the same layout, with our weights."""
    c = model.config
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder")
             for name, n in (("layers", c.n_layers), ("attention_heads", c.n_heads), ("ffn_dim", c.d_ff))}  # fmt: skip
    config = transformers.MarianConfig(
        vocab_size=c.vocab_size, d_model=c.d_model, max_position_embeddings=c.context, activation_function="relu",
        scale_embedding=True, dropout=0.0, pad_token_id=0, eos_token_id=2, decoder_start_token_id=1,
        forced_eos_token_id=None, **sizes,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(config).double().eval()
    state = {name: torch.tensor(array) for name, array in model.state_dict().items()}
    names = {"self_attn_layer_norm": "add_attn.norm", "encoder_attn_layer_norm": "add_cross.norm",
             "final_layer_norm": "add_mlp.norm", "self_attn": "attn", "encoder_attn": "cross", "out_proj": "o_proj",
             "fc1": "mlp.fc", "fc2": "mlp.proj"}  # fmt: skip
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "embed_positions" in name:
                parameter.copy_(torch.tensor(model.waves))
            elif "layers" in name:
                _, side, _, *path = name.split(".")
                parameter.copy_(state[".".join([side, *(names.get(part, part) for part in path)])])
            else:
                parameter.copy_(state["target_embedding.weight"])
    return theirs


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_an_encoder_decoders_beams_are_those_of_transformers(options):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    stopped = 0
    for seed in range(2):
        model = make("encoder-decoder", seed)
        theirs = marian(torch, transformers, model.model)
        mask = torch.tensor(SOURCE != 0)
        for stops in ((2,), (2, 4, 6)):
            rows = their_search(torch, theirs, SOURCE, 9, stops, 0, attention_mask=mask, **options)
            stopped += compare_with_theirs(model, [[1]] * len(SOURCE), rows, 9, stops, options)
    assert stopped >= 5


RULES = [
    {"no_repeat_ngram_size": 2, "forced_bos_token_id": 5, "begin_suppress_tokens": [7], "forced_eos_token_id": 2},
    {"repetition_penalty": 1.4, "min_new_tokens": 4, "bad_words_ids": [[3], [9, 9], [5, 6]]},
    {"suppress_tokens": [0, 11, 12], "forced_eos_token_id": 4},
]


@pytest.mark.parametrize("how", RULES, ids=str)
def test_an_encoder_decoder_keeps_to_the_rules_as_in_transformers(how):
    """BART's and Marian's files name several of them. Forced ids add nothing to a sum, and forbidden ones do not make
    the others likelier."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    for seed, options in enumerate(SETTINGS[1::2]):
        model = make("encoder-decoder", seed)
        theirs = marian(torch, transformers, model.model)
        mask = torch.tensor(SOURCE != 0)
        rows = their_search(torch, theirs, SOURCE, 9, (2, 4), 0, attention_mask=mask, **options, **how)
        rules = Rules(stop_ids=(2, 4), max_new_tokens=9, **how)
        compare_with_theirs(model, [[1]] * len(SOURCE), rows, 9, (2, 4), options, rules)


def test_a_text_may_end_by_what_it_says(monkeypatch):
    """The ids 2, 1 in a row end it, though neither does alone; the prompt counts."""

    def ends(ids):
        return ids[-2:] == [2, 1]

    model = fixed(monkeypatch, {0: [0.2, 0.2, 0.6], 1: [0.1, 0.2, 0.7], 2: [0.1, 0.6, 0.3]})
    options = {
        "max_new_tokens": 4,
        "n_beams": 2,
        "n_return": 2,
        "use_cache": False,
        "ends": ends,
        "length_penalty": 0.0,
    }
    first, second = beam_search(model, [[0]], **options)[0]
    assert first == ([2, 1], pytest.approx(math.log(0.6 * 0.6))) and second.ids == [2, 2, 1]
    assert beam_search(model, [[1, 2]], **options)[0][0] == ([1], pytest.approx(math.log(0.6)))
    assert beam_search(model, [[0]], **{**options, "n_beams": 1, "n_return": 1})[0][0] == first


# --- corners ---------------------------------------------------------------------------------------------------------


def fixed(monkeypatch, table):
    """A model whose next probabilities depend on the last id only: {id: probabilities}."""
    model = GPT(GPTConfig(vocab_size=3, context=8, n_layers=1, n_heads=1, d_model=4))

    def logits(model, ids, cache):
        with np.errstate(divide="ignore"):
            return np.log(np.array([table[i] for i in ids[:, -1]]))

    monkeypatch.setattr("minillm.beam.next_logits", logits)
    return model


def test_two_beams_find_what_greedy_decoding_misses(monkeypatch):
    """1 is the likeliest id after 0, but what comes after 2 is nearly certain."""
    model = fixed(monkeypatch, {0: [0.1, 0.5, 0.4], 1: [0.4, 0.3, 0.3], 2: [0.9, 0.05, 0.05]})
    options = {"max_new_tokens": 2, "length_penalty": 0.0, "use_cache": False}
    assert beam_search(model, [[0]], n_beams=1, **options)[0][0] == ([1, 0], pytest.approx(math.log(0.5 * 0.4)))
    assert beam_search(model, [[0]], n_beams=2, **options)[0][0] == ([2, 0], pytest.approx(math.log(0.4 * 0.9)))


def test_a_text_may_end_at_once(monkeypatch):
    """The stop id 0 comes first: no new ids, n = 1; and it counts only if it is among the n_beams best."""
    model = fixed(monkeypatch, {1: [0.6, 0.3, 0.1], 2: [0.2, 0.4, 0.4]})
    options = {"max_new_tokens": 3, "stop_ids": [0], "use_cache": False}
    assert beam_search(model, [[1]], n_beams=1, **options) == [[Hypothesis([], pytest.approx(math.log(0.6)))]]
    rows = beam_search(model, [[1]], n_beams=2, n_return=2, length_penalty=0.0, **options)
    assert rows[0][0] == ([], pytest.approx(math.log(0.6)))
    assert rows[0][1] == ([1], pytest.approx(math.log(0.3 * 0.6)))
    (greedy,) = beam_search(model, [[2]], n_beams=1, **options)[0]
    assert greedy.ids == [1]  # 0 is the third best after 2, then the best after 1
    kept = beam_search(model, [[1]], n_beams=1, keep_stop_id=True, **options)
    assert kept[0][0].ids == [0]


def test_a_length_penalty_lets_a_longer_text_win(monkeypatch):
    """Stopping at once has 0.5; going on twice has 0.5 · 0.9 · 0.9 in sum, but a better mean."""
    model = fixed(monkeypatch, {1: [0.5, 0.01, 0.49], 2: [0.05, 0.05, 0.9]})
    options = {"max_new_tokens": 3, "stop_ids": [0], "n_beams": 2, "use_cache": False}
    assert beam_search(model, [[1]], length_penalty=0.0, **options)[0][0].ids == []
    assert beam_search(model, [[1]], length_penalty=1.0, **options)[0][0].ids == [2, 2, 2]


def test_when_the_search_ends():
    """Two hypotheses are finished; what goes on has the sum −4 after 2 ids and may get as long as 4."""
    done = [Hypothesis([0], -1.5), Hypothesis([1, 0], -1.8)]
    cases = {(1.0, True): True, (1.0, False): True, (1.0, "never"): False, (0.0, "never"): True, (-1.0, "never"): True,
             (2.0, False): False}  # fmt: skip
    for (penalty, early), expected in cases.items():
        search = Search(4, 2, penalty, early, frozenset([0]), list(done))
        assert search.ended(-4.0, 2) == expected, (penalty, early)
        assert not Search(4, 3, penalty, early, frozenset([0]), list(done)).ended(-4.0, 2)
    assert Search(4, 2, 1.0, False, frozenset(), list(done)).ended(-3.6, 2)  # as good is not better


def test_it_stops_asking_the_model(monkeypatch):
    """When all searches have ended; and a prompt whose search has ended costs no row."""
    sizes = []
    original = next_logits
    count = lambda model, ids, cache: sizes.append(len(ids)) or original(model, ids, cache)  # noqa: E731
    monkeypatch.setattr("minillm.beam.next_logits", count)
    model = make("gpt")
    options = {"max_new_tokens": 9, "early_stopping": True, "n_beams": 3}
    for use in (True, False):
        sizes.clear()
        assert beam_search(model, [[1], [2]], **options, stop_ids=range(VOCAB), use_cache=use)[0][0].ids == []
        assert sizes == [2]
        sizes.clear()
        beam_search(model, [[1], [2, 3]], **options, use_cache=use)
        assert sizes == [2, *[4] * 1, *[6] * 7, 3]


def test_more_beams_than_ids():
    model = make("gpt")
    rows = beam_search(model, [[1]], max_new_tokens=1, n_beams=50, n_return=50)
    assert sorted(ids for ids, _ in rows[0]) == [[i] for i in range(VOCAB)]
    assert sum(math.exp(score) for _, score in rows[0]) == pytest.approx(1)
    rows = beam_search(model, [[1]], max_new_tokens=2, n_beams=1000, n_return=1000)
    assert len({tuple(ids) for ids, _ in rows[0]}) == len(rows[0]) == VOCAB**2


def test_a_prompt_at_the_limit_of_the_context_and_beyond():
    """The window jumps as in generate: to the last half of the context, then on."""
    model = make("gpt")
    prompts = [list(np.arange(n) % VOCAB) for n in (15, 16, 17, 40)]
    rows = beam_search(model, prompts, max_new_tokens=6, n_beams=3, n_return=3)
    for prompt, found in zip(prompts, rows):
        check_equal(found, plain(model, prompt, 6, 3, 1.0, False, ()))


@pytest.mark.parametrize("value", [-np.inf, np.nan, np.inf])
def test_logits_that_are_no_numbers_are_reported(monkeypatch, value):
    monkeypatch.setattr("minillm.beam.next_logits", lambda model, ids, cache: np.full((len(ids), VOCAB), value))
    with pytest.raises(FloatingPointError, match="contain NaN or infinity"):
        beam_search(make("gpt"), [[1]], max_new_tokens=3)


def test_probabilities_that_round_to_zero_are_never_chosen(monkeypatch):
    monkeypatch.setattr("minillm.beam.next_logits", lambda model, ids, cache: np.array([[0.0, -5e3, 0.0]] * len(ids)))
    rows = beam_search(make("gpt"), [[1]], max_new_tokens=2, n_beams=20, n_return=20, use_cache=False)
    assert sorted(ids for ids, _ in rows[0]) == [[0, 0], [0, 2], [2, 0], [2, 2]]


def test_evaluation_mode_is_used_and_restored():
    model = GPT(GPTConfig(vocab_size=11, context=8, n_layers=1, n_heads=1, d_model=8, dropout=0.5))
    model.train()
    first, second = (beam_search(model, [[1]], max_new_tokens=5) for _ in range(2))
    assert first == second and model.training


def test_the_source_is_encoded_once(monkeypatch):
    calls = []
    encode = encoder_decoder.EncoderDecoder.encode
    count = lambda self, source, *mask: calls.append(source.shape) or encode(self, source, *mask)  # noqa: E731
    monkeypatch.setattr(encoder_decoder.EncoderDecoder, "encode", count)
    for use in (True, False):
        beam_search(make("encoder-decoder"), [[1]] * 4, max_new_tokens=8, n_beams=3, use_cache=use)
    assert calls == [SOURCE.shape] * 2
    chosen = make("encoder-decoder").select([2, 2, 0])
    assert chosen.source.tolist() == SOURCE[[2, 2, 0]].tolist() and chosen.memory is None


@given(st.lists(st.sampled_from([0.0, -1.0, -2.5, -np.inf]), min_size=1, max_size=60), st.integers(1, 62))
def test_best_is_a_stable_sort_without_what_cannot_be(numbers, n):
    places = sorted((i for i, x in enumerate(numbers) if x > -np.inf), key=lambda i: -numbers[i])
    assert best(np.array([numbers]), n) == places[:n]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens = 0 must be at least 1"),
        ({"n_beams": 0}, "n_beams = 0 must be at least 1"),
        ({"n_return": 0}, "n_return = 0 must be at least 1"),
        ({"n_return": 5}, "n_return = 5 must be at most n_beams = 4"),
        ({"length_penalty": np.nan}, "length_penalty = nan must be"),
        ({"length_penalty": 1e4}, r"length_penalty = 10000\.0 must be"),
        ({"length_penalty": -1e4}, r"length_penalty = -10000\.0 must be"),
        ({"early_stopping": "always"}, "early_stopping = 'always' must be True, False or 'never'"),
        ({"early_stopping": 1}, "early_stopping = 1 must be"),
        ({"allowed": np.zeros(5, bool)}, "allowed lets none of the model's 13 ids be chosen"),
        ({"prompts": []}, "each prompt needs at least one id"),
        ({"prompts": [[1], []]}, "each prompt needs at least one id"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, message):
    options = {"prompts": [[1]], "max_new_tokens": 3, **options}
    with pytest.raises(ValueError, match=message):
        beam_search(make("gpt"), options.pop("prompts"), **options)


def test_a_prompt_for_each_source_and_a_source_for_each_encoder_decoder():
    model = make("encoder-decoder")
    with pytest.raises(ValueError, match="2 prompts for 4 rows of source"):
        beam_search(model, [[1], [1]], max_new_tokens=3)
    with pytest.raises(ValueError, match="give it the source first"):
        beam_search(model.model, [[1]], max_new_tokens=3)


def test_a_reordered_cache_copies_what_is_stored_only():
    cache = nn.KVCache(1, capacity=5)
    k = np.arange(2 * 1 * 3 * 2.0).reshape(2, 1, 3, 2)
    cache.update(0, nn.Tensor(k), nn.Tensor(-k))
    cache.reorder([1, 0, 1])
    assert cache.length == 3 and cache.keys[0].shape == (3, 1, 5, 2)
    np.testing.assert_array_equal(cache.keys[0][:, :, :3], k[[1, 0, 1]])
    np.testing.assert_array_equal(cache.values[0][:, :, :3], -k[[1, 0, 1]])
    empty = nn.KVCache(2, capacity=5)
    empty.reorder([0, 0])
    assert empty.keys == [None, None]
