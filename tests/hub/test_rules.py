"""What may come next: each rule against transformers' processor of its name, and texts that end an answer."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minillm.generate import Sampling, generate, stream
from minillm.hub.rules import Rules, StopTexts, cut, until
from minillm.models import GPT, LSTM, GPTConfig, LSTMConfig
from minillm.tokenizers import BPETokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

V = 12
scores_arrays = hnp.arrays(np.float64, V, elements=st.floats(-8, 8, width=32), unique=True)
tokens = st.integers(0, V - 1)
texts = st.lists(st.integers(0, 3), min_size=1, max_size=9)  # of few ids: what repeats is common


def applied(processor, ids, scores):
    return processor(torch.tensor([ids]), torch.from_numpy(scores)[None])[0].numpy()


def rule(ids, scores, n_new=0, **how):
    return Rules(**how)(n_new, scores, np.array(ids))


def check_equal(ours, theirs):
    np.testing.assert_array_equal(np.isneginf(ours), np.isneginf(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@given(scores_arrays, texts, st.integers(1, 4))
@example(np.arange(12.0), [1, 2, 3, 1, 2], 3)
def test_no_repeat_ngram_size(scores, ids, n):
    theirs = applied(transformers.NoRepeatNGramLogitsProcessor(n), ids, scores)
    check_equal(rule(ids, scores, no_repeat_ngram_size=n), theirs)


@given(scores_arrays, texts, st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=6),
       st.lists(tokens, max_size=2))  # fmt: skip
@example(np.arange(12.0), [0, 1], [[0, 1, 2], [1, 5], [1, 0, 1, 7], [3]], [3])
def test_bad_words_ids(scores, ids, words, stops):
    if all(len(word) == 1 and word[0] in stops for word in words):
        return  # none is left: an error in transformers, no rule here
    theirs = transformers.NoBadWordsLogitsProcessor(words, stops or None)
    check_equal(rule(ids, scores, bad_words_ids=words, stop_ids=stops), applied(theirs, ids, scores))


@given(scores_arrays, texts, st.integers(0, 5), st.integers(0, 5), st.lists(tokens, min_size=1, max_size=3))
def test_min_new_tokens(scores, ids, n_new, least, stops):
    n_new = min(n_new, len(ids))
    theirs = transformers.MinNewTokensLengthLogitsProcessor(len(ids) - n_new, least, stops)
    check_equal(rule(ids, scores, n_new, min_new_tokens=least, stop_ids=stops), applied(theirs, ids, scores))


@given(scores_arrays, texts, tokens)
def test_forced_bos_token_id(scores, ids, forced):
    theirs = applied(transformers.ForcedBOSTokenLogitsProcessor(forced), ids, scores)
    check_equal(rule(ids, scores, len(ids) - 1, forced_bos_token_id=forced), theirs)


@given(scores_arrays, texts, st.integers(0, 2), st.one_of(tokens, st.lists(tokens, min_size=1, max_size=3)))
def test_forced_eos_token_id(scores, ids, more, forced):
    """One id is in the prompt; `more` ids have room after the next."""
    n_new = len(ids) - 1
    theirs = applied(transformers.ForcedEOSTokenLogitsProcessor(len(ids) + 1 + more, forced), ids, scores)
    check_equal(rule(ids, scores, n_new, forced_eos_token_id=forced, max_new_tokens=n_new + 1 + more), theirs)


@given(scores_arrays, texts, st.lists(st.integers(0, V + 3), min_size=1, max_size=5), st.integers(0, 2), st.booleans())
def test_suppressed_tokens(scores, ids, those, n_new, forced):
    n_new = min(n_new, len(ids) - 1)
    theirs = applied(transformers.generation.SuppressTokensLogitsProcessor(those), ids, scores)
    check_equal(rule(ids, scores, suppress_tokens=those), theirs)
    n_prompt = len(ids) - n_new  # what is forced is the first new id after a prompt of one: then the second is meant
    begin = n_prompt + int(forced and n_prompt <= 1)
    theirs = applied(transformers.generation.SuppressTokensAtBeginLogitsProcessor(those, begin), ids, scores)
    how = {"begin_suppress_tokens": those, "forced_bos_token_id": 5 if forced and len(ids) > 1 else None}
    if not (forced and len(ids) == 1):
        check_equal(rule(ids, scores, n_new, **how), theirs)


@given(scores_arrays, texts, st.floats(0.5, 2))
def test_repetition_penalty_of_log_probabilities_too(scores, ids, penalty):
    logs = scores - np.logaddexp.reduce(scores)
    for x in (scores, logs):
        theirs = applied(transformers.RepetitionPenaltyLogitsProcessor(penalty), ids, x)
        check_equal(rule(ids, x, repetition_penalty=penalty), theirs)


@given(scores_arrays, texts, st.floats(0.5, 2), st.integers(2, 3), st.lists(tokens, min_size=1, max_size=2), st.data())
@settings(max_examples=50)
def test_all_together_in_their_order(scores, ids, penalty, n, stops, data):
    word = data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=3))
    never = data.draw(st.lists(tokens, min_size=1, max_size=2))
    processors = [
        transformers.RepetitionPenaltyLogitsProcessor(penalty), transformers.NoRepeatNGramLogitsProcessor(n),
        transformers.NoBadWordsLogitsProcessor([word], stops), transformers.MinLengthLogitsProcessor(8, stops),
        transformers.generation.SuppressTokensLogitsProcessor(never),
    ]  # fmt: skip
    theirs = torch.from_numpy(scores)[None]
    for processor in processors:
        theirs = processor(torch.tensor([ids]), theirs)
    how = {"repetition_penalty": penalty, "no_repeat_ngram_size": n, "bad_words_ids": [word], "stop_ids": stops,
           "suppress_tokens": never, "min_new_tokens": 8 - 1}  # fmt: skip
    before = scores.copy()
    check_equal(rule(ids, scores, len(ids) - 1, **how), theirs[0].numpy())
    np.testing.assert_array_equal(scores, before)  # the caller's are left alone


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size = -1 must be at least 0"),
        ({"min_new_tokens": -1}, "min_new_tokens = -1 must be at least 0"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty = 0\.0 must be above 0"),
        ({"bad_words_ids": [[1], []]}, "must be lists of at least one id each"),
        ({"bad_words_ids": [[1, 99]]}, "bad_words_ids has id 99, and the model's are 0 to 11"),
        ({"forced_bos_token_id": 12}, r"forced_bos_token_id = \[12\]: the model's ids are 0 to 11"),
        ({"forced_eos_token_id": [3, -1], "max_new_tokens": 1}, r"forced_eos_token_id = \[3, -1\]: the model's"),
        ({"suppress_tokens": list(range(V))}, r"no id may come after \[7\]: see the rules"),
    ],
)
def test_what_is_no_rule_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        rule([7], np.arange(12.0), **how)


def test_no_rule_at_all_is_false():
    assert not Rules(stop_ids=[3], max_new_tokens=9)
    assert Rules(min_new_tokens=1) and Rules(forced_bos_token_id=0) and Rules(repetition_penalty=1.1)


@pytest.mark.parametrize("cls", [GPT, LSTM])
def test_generation_keeps_to_the_rules(cls):
    """Rows of different lengths, drawn and greedy, streamed and in a batch, with and without a cache."""
    shape = {"vocab_size": V, "context": 16, "n_layers": 1, "d_model": 8}
    model = cls(GPTConfig(**shape, n_heads=2) if cls is GPT else LSTMConfig(**shape), np.random.default_rng(0))
    rules = Rules(stop_ids=[3], min_new_tokens=4, no_repeat_ngram_size=2, bad_words_ids=[[5], [1, 2]],
                  begin_suppress_tokens=[7], forced_eos_token_id=3, max_new_tokens=10)  # fmt: skip
    prompts = [[1], [2, 4, 6], [1, 2, 1]]
    for temperature in (0.0, 1.5):
        how = {
            "max_new_tokens": 10,
            "stop_ids": [3],
            "keep_stop_id": True,
            "sampling": Sampling(temperature=temperature),
        }
        rows = generate(model, prompts, **how, seed=1, rules=rules)
        assert rows == generate(model, prompts, **how, seed=1, rules=rules, use_cache=False)
        del how["keep_stop_id"]
        assert list(stream(model, prompts[0], **how, seed=1, rules=rules)) == [i for i in rows[0] if i != 3]
        for prompt, new in zip(prompts, rows):
            whole = prompt + new
            pairs = list(itertools.pairwise(whole))
            assert all(pairs.count(pair) == 1 for pair in pairs[len(prompt) - 1 :])
            assert 5 not in new and (1, 2) not in pairs[len(prompt) - 1 :] and new[0] != 7
            assert len(new) > 4 and new[-1] == 3 and 3 not in new[:-1]


# --- texts that end an answer ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(["the cat sat on the mat. stop it, stop!\n\nUser: stop 世界 "] * 5, 300)


PARTS = ["the", " cat", "s", "st", "op", " stop", "!\n", "\nUs", "er:", "世", "界", "e\n\n"]
STOPS = ["stop", "\n\nUser:", "世界", "s", "p!", "tt"]


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=8), st.sets(st.sampled_from(STOPS), min_size=1))
def test_an_answer_ends_with_the_id_that_completes_a_text(tokenizer, parts, stops):
    ids = [i for part in parts for i in tokenizer.encode(part)]
    ends = StopTexts(tokenizer, sorted(stops))
    for n in range(1, len(ids) + 1):
        before, text = (tokenizer.decode_bytes(ids[:k]) for k in (n - 1, n))
        new = any(text.count(stop.encode()) > before.count(stop.encode()) for stop in stops)
        assert ends(ids[:n]) == new
    assert not StopTexts(tokenizer, sorted(stops), after=len(ids))(ids)


def test_only_what_comes_after_the_prompt_can_be_looked_at(tokenizer):
    ids = tokenizer.encode("st") + tokenizer.encode("op")
    assert StopTexts(tokenizer, ["stop"])(ids)
    assert not StopTexts(tokenizer, ["stop"], after=len(tokenizer.encode("st")))(ids)
    assert not StopTexts(tokenizer, ["stop"])([*ids, 10**6])  # an id that only the model has says nothing


@given(st.text("abc", max_size=30), st.sets(st.text("abc", min_size=1, max_size=4)), st.integers(1, 5))
@example("aca", {"aca", "c"}, 1)  # over with "ac", before the longer one is there
def test_pieces_end_where_the_text_read_so_far_does(text, stops, n):
    """A text is over with the piece that completes one of the stops, as generation is (`StopTexts`)."""
    stops = sorted(stops)
    pieces = [text[i : i + n] for i in range(0, len(text), n)]
    so_far = ("".join(pieces[: k + 1]) for k in range(len(pieces)))
    read = next((part for part in so_far if any(stop in part for stop in stops)), text)
    found = list(until(iter(pieces), stops))
    assert "".join(found) == cut(read, stops) and all(found)
    assert cut(text, stops) == min((text.split(stop)[0] for stop in stops), key=len, default=text)


def test_a_text_of_nothing_ends_nothing(tokenizer):
    for make in (lambda: StopTexts(tokenizer, ["a", ""]), lambda: list(until(iter(["a"]), [""]))):
        with pytest.raises(ValueError, match="at least one character"):
            make()
