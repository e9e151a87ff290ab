"""Metrics: equal to scikit-learn, sacreBLEU and rouge-score on drawn inputs, right on examples computed by hand, and
clear about what can't be scored. `-m long` draws more; what it drew is counted in tests/README.md."""

import doctest
import importlib
import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm import metrics
from minillm.metrics import classification, generation, translation

# --- what is drawn ----------------------------------------------------------------------------------------------------

LATIN = "the cat sat on a mat , . ! ? - ' \" ( ) $ % & / : ; 3 14 3.14 1,000 10-20 don't U.S. e-mail (hi) x. ,y"
SPACES = "&quot; &amp;lt; &lt; <skipped> -\n \n \t \r \x1c \x85 \u00a0 \u2003 \u3000 "  # and what 13a replaces
CHINESE = "我 爱 北京 天安门 ， 。 ！ 一百二十三 ２０ ㄅ 𠀀 豈 〇 ⼀ か カ 한국"
OTHERS = "Ärger naïve ß Straße İ ﬁ “ ” — … € → ½ Ⅳ 😀 👩\u200d👧 🇨🇳 é e\u0301 \u200d \ufeff مرحبا שלום नमस्ते ไทย"
PIECES = [*LATIN.split(), *SPACES.split(" "), *CHINESE.split(), *OTHERS.split()]


def texts(rng, n):
    """n texts of up to 25 pieces, with and without spaces between them, some empty, some of any characters at all."""
    for _ in range(n):
        pieces = [PIECES[i] for i in rng.integers(len(PIECES), size=rng.integers(0, 25))]
        if rng.random() < 0.1:
            pieces += [chr(c) for c in rng.integers(1, 0xD7FF, size=5)]
        yield "".join(piece + (" " if rng.random() < 0.6 else "") for piece in pieces)


def near(rng, text):
    """A text that has much in common with `text`: parts of it in another order, something added."""
    cuts = sorted(rng.integers(0, len(text) + 1, size=3).tolist())
    parts = [text[i:j] for i, j in itertools.pairwise([0, *cuts, len(text)])]
    kept = [parts[i] for i in rng.permutation(4)[: rng.integers(1, 5)]] if rng.random() < 0.7 else [text]
    return "".join([*kept, *texts(rng, 1)] if rng.random() < 0.4 else kept)


def corpus(rng, n, most=3):
    """n hypotheses, each with as many references, 1 to `most`."""
    references = [[text] for text in texts(rng, n)]
    for _ in range(int(rng.integers(0, most))):
        references = [[*many, near(rng, many[0])] for many in references]
    return [near(rng, many[0]) for many in references], references


def turned(references):
    """As sacreBLEU takes them."""
    return [list(stream) for stream in zip(*references)]


def cases(short, long):
    return pytest.mark.parametrize("n", [short, pytest.param(long, marks=pytest.mark.long)])


def agree(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


# --- BLEU and chrF: sacreBLEU -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sacrebleu():
    return pytest.importorskip("sacrebleu")


@pytest.mark.parametrize("tokenize", list(translation.TOKENIZERS))
@cases(250, 20_000)
def test_bleu_is_sacrebleus(sacrebleu, tokenize, n):
    rng = np.random.default_rng(1)
    whole = sacrebleu.BLEU(tokenize=tokenize, force=True)
    single = sacrebleu.BLEU(tokenize=tokenize, effective_order=True)
    for _ in range(n // 10):
        hypotheses, references = corpus(rng, 10)
        ours, theirs = (
            metrics.bleu(hypotheses, references, tokenize),
            whole.corpus_score(hypotheses, turned(references)),
        )
        agree(ours.score, theirs.score)
        agree(ours.precisions, theirs.precisions)
        agree(ours.brevity_penalty, theirs.bp)
        assert (ours.hypothesis_length, ours.reference_length) == (theirs.sys_len, theirs.ref_len)
        assert ours.signature.rpartition("|")[0] == str(whole.get_signature()).rpartition("|")[0]
        for hypothesis, texts in zip(hypotheses, references):
            expected = single.sentence_score(hypothesis, texts).score
            agree(metrics.sentence_bleu(hypothesis, texts, tokenize), expected)


@pytest.mark.parametrize("tokenize", list(translation.TOKENIZERS))
@cases(2_000, 200_000)
def test_tokens_are_sacrebleus(sacrebleu, tokenize, n):
    rng = np.random.default_rng(2)
    theirs = sacrebleu.BLEU(tokenize=tokenize).tokenizer
    for text in texts(rng, n):
        assert translation.TOKENIZERS[tokenize](text) == theirs(text).split(), repr(text)


@pytest.mark.parametrize("tokenize", list(translation.TOKENIZERS))
@cases(0x3400, 0x110000)
def test_tokens_are_sacrebleus_for_every_character(sacrebleu, tokenize, n):
    theirs = sacrebleu.BLEU(tokenize=tokenize).tokenizer
    for start in range(0, n, 0x400):
        text = "".join(f"a{chr(c)}1{chr(c)} " for c in range(start, start + 0x400) if not 0xD800 <= c < 0xE000)
        assert translation.TOKENIZERS[tokenize](text) == theirs(text).split(), hex(start)


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4))
def test_bleu_and_chrf_of_any_text(pairs):
    sacrebleu = pytest.importorskip("sacrebleu")
    hypotheses, references = map(list, zip(*pairs))
    agree(metrics.bleu(hypotheses, references).score, sacrebleu.BLEU().corpus_score(hypotheses, [references]).score)
    expected = sacrebleu.CHRF(word_order=2).corpus_score(hypotheses, [references]).score
    agree(metrics.chrf(hypotheses, references, 2), expected)


@pytest.mark.parametrize("word_order", [0, 2])
@pytest.mark.parametrize("eps", [False, True])
@cases(300, 20_000)
def test_chrf_is_sacrebleus(sacrebleu, word_order, eps, n):
    rng = np.random.default_rng(3)
    theirs = sacrebleu.CHRF(word_order=word_order, eps_smoothing=eps)
    for size in (10, 1) * (n // 11):
        hypotheses, references = corpus(rng, size, most=1 if eps else 3)
        expected = theirs.corpus_score(hypotheses, turned(references)).score
        agree(metrics.chrf(hypotheses, references, word_order, eps), expected)


def test_one_bleu_for_each_of_many_sums():
    rng = np.random.default_rng(4)
    counts = translation.bleu_counts(*corpus(rng, 30))
    sums = np.stack([counts[rng.integers(30, size=5)].sum(axis=0) for _ in range(50)])
    for effective in (False, True):
        alone = [translation.bleu_from_counts(row, effective) for row in sums]
        np.testing.assert_array_equal(translation.bleu_from_counts(sums, effective), alone)


@pytest.mark.parametrize(
    ("hypotheses", "references", "said"),
    [
        ([], [], "not be empty"),
        ("a text", "a text", "must be lists"),
        (["a", "b"], ["a"], "one entry for each"),
        (["a", "b"], [["a"], []], "text 1 .* no reference"),
    ],
)
def test_texts_that_cant_be_compared(hypotheses, references, said):
    for score in (metrics.bleu, metrics.chrf, metrics.rouge, metrics.exact_match):
        with pytest.raises(ValueError, match=said):
            score(hypotheses, references)


def test_unknown_tokenizers_are_named():
    with pytest.raises(ValueError, match="'mecab' must be one of 13a, zh, intl, char, none"):
        metrics.bleu(["a"], ["a"], "mecab")
    with pytest.raises(ValueError, match=r"'13a'.*'rouge', 'cjk'"):
        metrics.rouge(["a"], ["a"], tokenize="13a")
    with pytest.raises(ValueError, match="rouge0"):
        metrics.rouge(["a"], ["a"], ["rouge0"])


# --- ROUGE: rouge-score -----------------------------------------------------------------------------------------------

KINDS = ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"]


class Split:
    """Our words for Chinese, as rouge-score takes a tokenizer."""

    def tokenize(self, text):
        return generation.WORDS["cjk"].findall(text.lower())


@pytest.mark.parametrize("tokenize", ["rouge", "cjk"])
@cases(300, 20_000)
def test_rouge_is_rouge_scores(tokenize, n):
    scorer_module = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = scorer_module.RougeScorer(KINDS, tokenizer=Split() if tokenize == "cjk" else None)
    rng = np.random.default_rng(5)
    hypotheses, references = corpus(rng, n, most=2)
    if tokenize == "rouge":
        with pytest.warns(UserWarning, match=r"Chinese or Japanese of \d+ of \d+ texts: use 'cjk'"):
            ours = metrics.rouge(hypotheses, references, KINDS)
    else:
        ours = metrics.rouge(hypotheses, references, KINDS, tokenize)
    for i, (text, others) in enumerate(zip(hypotheses, references)):
        theirs = scorer.score_multi(others, text)
        for kind in KINDS:
            agree(ours[kind][i], theirs[kind])


@cases(300, 20_000)
def test_rouge_of_texts_of_few_words(n):
    """Where many subsequences are equally long, it matters which is taken."""
    scorer_module = pytest.importorskip("rouge_score.rouge_scorer")
    scorer, rng = scorer_module.RougeScorer(KINDS), np.random.default_rng(6)
    for _ in range(n):
        ours, theirs = ("".join(rng.choice(["a ", "b ", "c ", "\n"], size=rng.integers(1, 30))) for _ in range(2))
        scores, expected = metrics.rouge([ours], [theirs], KINDS), scorer.score(theirs, ours)
        for kind in KINDS:
            agree(scores[kind][0], expected[kind])


def test_rouge_of_chinese():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = metrics.rouge(["我爱北京。"], ["我爱 北京"], tokenize="cjk")
    assert same["rouge2"].tolist() == [[1, 1, 1]]
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        assert metrics.rouge(["我爱北京"], ["我爱北京"])["rouge1"].tolist() == [[0, 0, 0]]
    assert generation.WORDS["cjk"].findall("naïve e\u0301 Ünï 北京2号") == [
        "naïve",
        "e\u0301",
        "Ünï",
        "北",
        "京",
        "2",
        "号",
    ]


# --- labels, numbers, probabilities: scikit-learn ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def sklearn():
    pytest.importorskip("sklearn")
    return importlib.import_module("sklearn.metrics")


@pytest.mark.filterwarnings("ignore:A single label was found")
@cases(150, 10_000)
def test_labels_are_scored_as_by_scikit_learn(sklearn, n):
    rng = np.random.default_rng(7)
    for _ in range(n):
        size, n_classes = int(rng.integers(1, 40)), int(rng.integers(1, 6))
        y = rng.integers(n_classes, size=size)
        z = np.where(rng.random(size) < 0.5, y, rng.integers(n_classes, size=size))
        labels = None
        if rng.random() < 0.3:  # in an order of their own, and some that never occur
            labels = rng.permutation(n_classes + 2).tolist()
        if rng.random() < 0.3:
            names = np.array(["neg", "pos", "中", "", "x" * 9, "é", "end"])
            y, z, labels = names[y], names[z], labels and names[labels]
        agree(metrics.accuracy(y, z), sklearn.accuracy_score(y, z))
        expected = sklearn.confusion_matrix(y, z, labels=labels)
        np.testing.assert_array_equal(metrics.confusion_matrix(y, z, labels), expected)
        agree(metrics.matthews(y, z), sklearn.matthews_corrcoef(y, z))
        for average in ("macro", "micro", "weighted", None):
            check_scores(sklearn, y, z, average, labels)


def check_scores(sklearn, y, z, average, labels=None):
    theirs = sklearn.precision_recall_fscore_support(y, z, average=average, labels=labels, zero_division=0)
    ours = metrics.precision_recall_f1(y, z, average, labels)
    for a, b in zip(ours[:3] if average else ours, theirs):
        agree(a, b)


@cases(100, 10_000)
def test_several_labels_are_scored_as_by_scikit_learn(sklearn, n):
    rng = np.random.default_rng(8)
    for _ in range(n):
        shape = rng.integers(1, 12), rng.integers(2, 6)
        y, z = (rng.random(shape) < rng.random()).astype(int), (rng.random(shape) < rng.random()).astype(int)
        agree(metrics.accuracy(y, z), sklearn.accuracy_score(y, z))
        for average in ("macro", "micro", "weighted", None):
            check_scores(sklearn, y, z, average)


@cases(100, 10_000)
def test_areas_are_those_of_scikit_learn(sklearn, n):
    rng = np.random.default_rng(9)
    for _ in range(n):
        size, n_classes = int(rng.integers(6, 40)), int(rng.integers(3, 6))
        logits = np.round(rng.normal(size=(size, n_classes)), int(rng.integers(0, 3)))  # ties
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        y = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=size - n_classes)])
        agree(metrics.roc_auc(y == 0, logits[:, 0]), sklearn.roc_auc_score(y == 0, logits[:, 0]))
        agree(metrics.roc_auc_macro(y, p), sklearn.roc_auc_score(y, p, multi_class="ovr", average="macro"))
        several = y[:, None] == np.arange(n_classes)
        agree(metrics.roc_auc_macro(several, p), sklearn.roc_auc_score(several, p))


@cases(150, 10_000)
def test_numbers_are_scored_as_by_scikit_learn(sklearn, n):
    rng = np.random.default_rng(10)
    for _ in range(n):
        y = np.round(rng.normal(size=rng.integers(2, 30)) * 10.0 ** rng.integers(-3, 4), int(rng.integers(0, 5)))
        z = y if rng.random() < 0.1 else y + rng.normal(size=len(y))
        y, z = (np.full_like(y, 2.0), z) if rng.random() < 0.1 else (y, z)
        agree(metrics.mse(y, z), sklearn.mean_squared_error(y, z))
        agree(metrics.mae(y, z), sklearn.mean_absolute_error(y, z))
        agree(metrics.r2(y, z), sklearn.r2_score(y, z))


def test_whole_numbers_dont_wrap_around():
    small = np.array([0, 200, 3], dtype=np.uint8)
    assert metrics.mse(small, small[::-1]) == pytest.approx(6.0)
    assert metrics.mae(small, small[::-1]) == pytest.approx(2.0)
    assert metrics.r2(small, small[::-1]) < 1


def test_labels_that_cant_be_scored():
    with pytest.raises(ValueError, match="at least one item"):
        metrics.accuracy([], [])
    with pytest.raises(ValueError, match=r"\(2,\) and predicted \(3,\)"):
        metrics.confusion_matrix([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="7 is not among them"):
        metrics.confusion_matrix([0, 1], [0, 7], labels=[0, 1])
    with pytest.raises(ValueError, match="stands there twice"):
        metrics.precision_recall_f1([0, 1], [0, 1], labels=[0, 1, 1])
    with pytest.raises(ValueError, match="both must be strings, or both numbers"):
        metrics.accuracy([0, 1], ["0", "1"])
    with pytest.raises(ValueError, match="must be 0 or 1"):
        metrics.precision_recall_f1([[0, 2]], [[0, 1]])
    with pytest.raises(ValueError, match="average = 'mean'"):
        metrics.precision_recall_f1([0], [0], "mean")
    for one_kind, scores in (([1, 1], [0, 1]), ([0, 0], [0, 1]), ([0, 1], [0, math.nan])):
        with pytest.raises(ValueError, match="each kind"):
            metrics.roc_auc(one_kind, scores)
    with pytest.raises(ValueError, match="two items"):
        metrics.r2([1.0], [1.0])


def test_classes_that_never_occur_score_0_by_convention():
    assert metrics.matthews([1, 1], [1, 1]) == 0.0
    scores = metrics.precision_recall_f1(["a", "b"], ["a", "b"], None, labels=["a", "b", "c"])
    assert scores.f1.tolist() == [1, 1, 0] and scores.support.tolist() == [1, 1, 0]


def test_calibration_by_hand():
    confidence, correct = [0.0, 0.5, 0.5, 0.75, 1.0], [0, 1, 0, 1, 1]
    bins = metrics.calibration_bins(confidence, correct, 4)  # (0, .25] with 0, (.25, .5], (.5, .75], (.75, 1]
    assert bins.counts.tolist() == [1, 2, 1, 1]
    assert bins.confidence.tolist() == [0, 0.5, 0.75, 1.0] and bins.accuracy.tolist() == [0, 0.5, 1, 1]
    assert metrics.calibration_error(confidence, correct, 4) == pytest.approx(0.25 / 5)
    with pytest.raises(ValueError, match="probabilities"):
        metrics.calibration_bins([1.5], [1])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.integers(1, 20))
def test_calibration_bin_by_bin(items, n_bins):
    p, right = np.array([a for a, _ in items]), np.array([b for _, b in items])
    edges, expected = np.linspace(0, 1, n_bins + 1), 0.0
    for i in range(n_bins):
        inside = (p <= edges[i + 1]) & ((p > edges[i]) | (i == 0))
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - p[inside].mean())
    assert metrics.calibration_error(p, right, n_bins) == pytest.approx(expected, abs=1e-12)


# --- generated text ---------------------------------------------------------------------------------------------------


def test_exact_match():
    assert metrics.exact_match(["a", "b "], ["a", ["c", "b"]]).tolist() == [1, 0]
    assert metrics.exact_match(["ＡＢ， 3.5!", "35"], ["ab, 3.5", "3.5"], normalize=True).tolist() == [1, 0]
    assert metrics.normalized("。！") == ""


def test_distinct_n():
    assert metrics.distinct_n(["ab", "ab"], 1) == 0.5
    assert metrics.distinct_n([[1, 2, 3], [1, 2]], 2) == 2 / 3
    assert metrics.distinct_n([[1]], 2) == 0.0
    with pytest.raises(ValueError, match="n = 0"):
        metrics.distinct_n(["a"], 0)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_samples_with_a_pass(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    samples = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert metrics.pass_at_k(n, c, k)[0] == pytest.approx(np.mean([max(sample) for sample in samples]), abs=1e-12)


def test_pass_at_k_of_many_and_of_nonsense():
    assert metrics.pass_at_k(100_000, [0, 1], 1000).tolist() == pytest.approx([0, 0.01])
    for n, c, k in ((5, 6, 1), (5, -1, 1), (5, 1, 6), (5, 1, 0)):
        with pytest.raises(ValueError, match="0 ≤ c ≤ n and 1 ≤ k ≤ n"):
            metrics.pass_at_k(n, c, k)


def test_perplexity_and_bits_per_byte():
    assert metrics.perplexity(math.log(50)) == pytest.approx(50) and metrics.perplexity(1e4) == math.inf
    assert metrics.bits_per_byte(3 * math.log(2), 2) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="n_bytes = 0"):
        metrics.bits_per_byte(1.0, 0)


# --- intervals --------------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_means_drawn_one_by_one():
    rng = np.random.default_rng(11)
    items = rng.normal(size=40)
    ours = metrics.bootstrap(items, draws=20_000)
    means = [items[rng.integers(40, size=40)].mean() for _ in range(20_000)]
    assert ours.value == pytest.approx(items.mean())
    assert (ours.low, ours.high) == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist(), abs=0.02)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(12)
    held = [i.low <= 0.7 <= i.high for i in (metrics.bootstrap(rng.random(100) < 0.7, draws=300) for _ in range(400))]
    assert 0.90 < np.mean(held) < 0.98


def test_intervals_of_corpus_scores():
    rng = np.random.default_rng(13)
    hypotheses, references = corpus(rng, 40)
    for counts, score in (
        (metrics.bleu_counts(hypotheses, references), metrics.bleu_from_counts),
        (metrics.chrf_counts(hypotheses, references, 2), metrics.chrf_from_counts),
    ):
        ours = metrics.bootstrap(counts, score, draws=2000)
        drawn = [score(counts[rng.integers(40, size=40)].sum(axis=0)) for _ in range(2000)]
        assert ours.value == pytest.approx(float(score(counts.sum(axis=0))))
        assert (ours.low, ours.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), abs=2.5)
    assert metrics.bleu(hypotheses, references).score == pytest.approx(
        metrics.bootstrap(metrics.bleu_counts(hypotheses, references), metrics.bleu_from_counts).value
    )


def test_a_system_against_itself_and_against_a_better_one():
    rng = np.random.default_rng(14)
    hard = rng.normal(size=200)  # items differ more than systems do: only a paired test sees the difference
    same = metrics.paired_bootstrap(hard, hard)
    assert same == (0, 0, 0, 1)
    better = metrics.paired_bootstrap(hard + 0.05 + 0.1 * rng.normal(size=200), hard)
    assert better.p < 0.01 and 0 < better.low < better.difference < better.high
    assert abs(metrics.bootstrap(hard).high - metrics.bootstrap(hard).low) > 0.2


def test_chance_is_called_chance():
    rng = np.random.default_rng(15)
    p = [metrics.paired_bootstrap(*rng.normal(size=(2, 60)), draws=200).p for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09


def test_draws_depend_on_the_seed_alone(monkeypatch):
    items = np.random.default_rng(16).random(50)
    assert metrics.bootstrap(items, seed=3) == metrics.bootstrap(items, seed=3) != metrics.bootstrap(items, seed=4)
    whole = metrics.bootstrap(items)
    monkeypatch.setattr("minillm.metrics.intervals.BLOCK", 170)  # three draws at a time
    assert metrics.bootstrap(items) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("items", [[], 3.0])
def test_an_interval_of_nothing(items):
    with pytest.raises(ValueError, match="at least one item"):
        metrics.bootstrap(items)


def test_settings_of_an_interval_that_make_no_sense():
    for settings in ({"level": 1.0}, {"level": 0.0}, {"draws": 0}):
        with pytest.raises(ValueError, match="a level between 0 and 1"):
            metrics.bootstrap([1.0], **settings)
    with pytest.raises(ValueError, match="as many for both"):
        metrics.paired_bootstrap([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="give the score of a sum"):
        metrics.bootstrap([[1.0, 2.0]])


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classification", "translation", "generation", "intervals"])
def test_examples_in_docstrings(name):
    results = doctest.testmod(importlib.import_module(f"minillm.metrics.{name}"))
    assert results.attempted and not results.failed


def test_all_that_is_offered_is_there():
    assert all(hasattr(metrics, name) for name in metrics.__all__)
    assert classification.Scores._fields == ("precision", "recall", "f1", "support")
