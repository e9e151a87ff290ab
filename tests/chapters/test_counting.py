"""Chapter 01's helpers: what was seen before, and the estimate of what is new, against plain Python."""

from collections import Counter, defaultdict

import numpy as np
from minillm.workshop import counting

from minillm.training.baselines import NGramModel


def test_first_seen_is_where_plain_python_finds_it():
    rng = np.random.default_rng(0)
    train, held_out = (bytes(rng.integers(97, 101, size).tolist()) for size in (200, 40))
    found = counting.first_seen(train, held_out, longest=6)
    assert found.shape == (6, len(held_out))
    for n in range(1, 7):
        for i in range(len(held_out)):
            gram = held_out[i - n + 1 : i + 1] if i >= n - 1 else b"?"
            start = train.find(gram)
            assert found[n - 1, i] == (np.inf if start < 0 else start + n)
    words = ["a", "b", "c", "d"]
    assert counting.first_seen(words, ["d", "a", "b"], 2).tolist() == [[4, 1, 2], [np.inf, np.inf, 2]]


def test_never_seen_by_size():
    shares = counting.never_seen_by_size(b"abcab", b"abcc", 2, [2, 5])
    assert np.allclose(shares, [[2 / 4, 0], [2 / 3, 1 / 3]])


def test_novelty_is_the_formula_and_what_came():
    train, text = "abracadabra, abba", "abracab?"
    model = NGramModel.fit(train, order=4)
    for order in (1, 2, 3, 4):
        rows = defaultdict(Counter)
        for i in range(order - 1, len(train)):
            rows[train[i - order + 1 : i]][train[i]] += 1
        expected = []
        for i in range(order - 1, len(text)):
            row = rows.get(text[i - order + 1 : i])
            if row:
                expected.append((len(row) / (row.total() + len(row)), float(row[text[i]] == 0)))
        estimate, new = counting.novelty(model, text, order)
        assert np.allclose(estimate, [e for e, _ in expected])
        assert new.tolist() == [came for _, came in expected]


def test_splits_share_no_document_and_hold_out_a_share(tmp_path, monkeypatch):
    from minillm.workshop.deliverables import corpus

    monkeypatch.setenv("MINILLM_MADE", str(tmp_path))
    folder = corpus("smoke")
    train, held_out = counting.another_split(folder, seed=0)
    again, other = counting.another_split(folder, seed=0), counting.another_split(folder, seed=1)
    assert again == (train, held_out) and other != again
    assert 0.1 <= len(held_out) / (len(train) + len(held_out)) < 0.2
    assert len(counting.kind_of_text(folder, "topics")) == len(counting.kind_of_text(folder, "topics", seed=3))


def test_copied_share_and_first_bytes():
    assert counting.copied_share("abcd", "xabcx", 3) == 0.5
    assert counting.first_bytes("a模b", 0, 3) == "a" and counting.first_bytes("a模b", 1, 5) == "模b"
