"""Baselines: the n-gram model against a twin of dictionaries, probabilities that sum to one, and known orderings."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log2

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from minillm.data import stdlib_documents
from minillm.training import baselines
from minillm.training.baselines import N_SYMBOLS, NGramModel, xz_bits_per_byte

TEXTS = st.text(alphabet="abcé世🙂", min_size=6, max_size=60)
UNITS = st.sampled_from(["byte", "char"])


def in_units(text: str, unit: str) -> Sequence[int]:
    return list(text.encode()) if unit == "byte" else [ord(c) for c in text]


def twin(train: Sequence[int], history: Sequence[int], symbol: int, order: int, n_symbols: int) -> float:
    """p(symbol | history) by counting in dictionaries, straight from the formula."""
    p = 1 / n_symbols
    for n in range(1, min(order, len(history) + 1) + 1):
        follow: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for i in range(n - 1, len(train)):
            follow[tuple(train[i - n + 1 : i])][train[i]] += 1
        counts = follow[tuple(history[len(history) - n + 1 :])]
        c, t = sum(counts.values()), len(counts)
        if c > 0:
            p = (counts[symbol] + t * p) / (c + t)
    return p


@given(TEXTS, st.text(alphabet="abcé世🙂新", min_size=1, max_size=12), st.integers(1, 6), UNITS, st.booleans())
def test_bits_are_those_of_the_twin(text: str, held_out: str, order: int, unit: str, dense: bool) -> None:
    train, x = in_units(text, unit), in_units(held_out, unit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "DENSE", 1 << 24 if dense else 1)  # both ways of counting
        patch.setattr(baselines, "CHUNK", 3)  # scored piece by piece
        model = NGramModel.fit(text, order, unit)  # type: ignore[arg-type]
        bits, each = model.total_bits(held_out), model.symbol_bits(held_out)
    expected = [
        -sum(log2(twin(train, x[:i], w, k, N_SYMBOLS[unit])) for i, w in enumerate(x)) for k in range(1, order + 1)
    ]
    assert np.allclose(bits, expected, rtol=1e-12)
    assert each.shape == (order, len(x))
    assert np.allclose(each.sum(axis=1), expected, rtol=1e-12)
    assert model.bits_per_byte(held_out) == pytest.approx(expected[-1] / len(held_out.encode()))
    assert model.bits_per_byte(held_out, 1) == pytest.approx(expected[0] / len(held_out.encode()))


@given(TEXTS, st.text(alphabet="abcé世🙂新", max_size=8), st.integers(1, 6), UNITS)
def test_probabilities_sum_to_one(text: str, history: str, order: int, unit: str) -> None:
    model = NGramModel.fit(text, order, unit)  # type: ignore[arg-type]
    p = model.distribution(history)
    train, h = in_units(text, unit), in_units(history, unit)
    assert np.allclose(p, [twin(train, h, int(w), order, N_SYMBOLS[unit]) for w in model.alphabet], rtol=1e-12)
    never_seen = next(s for s in range(1, 200) if s not in train)
    n_never_seen = N_SYMBOLS[unit] - len(model.alphabet)
    assert p.sum() + n_never_seen * twin(train, h, never_seen, order, N_SYMBOLS[unit]) == pytest.approx(1, abs=1e-12)


def test_orders_and_xz_on_source_code() -> None:
    texts = [d.text for d in stdlib_documents(max_bytes=700_000)]
    train, held_out = "".join(texts[::2]), "".join(texts[1::2])[:100_000]
    model = NGramModel.fit(train, 5)
    bits = model.total_bits(held_out) / len(held_out.encode())
    assert 8 > bits[0] > bits[1] > bits[2] > bits[3] > 1  # uniform, unigram, bigram, ...
    assert 4 < bits[0] < 5.5
    as_chars = NGramModel.fit(train, 3, "char").bits_per_byte(held_out)
    assert as_chars == pytest.approx(bits[2], rel=0.05)  # the text is nearly all ASCII
    plain, given_train = xz_bits_per_byte(held_out), xz_bits_per_byte(held_out, train)
    assert given_train < plain < bits[0]


def test_xz_finds_a_copy_far_back() -> None:
    rng = np.random.default_rng(0)
    text = bytes(rng.integers(32, 127, 300_000, dtype=np.uint8)).decode()
    assert xz_bits_per_byte(text[:20_000], text) < 0.2
    assert xz_bits_per_byte(text[:20_000]) > 6


def test_samples() -> None:
    model = NGramModel.fit("to be or not to be. " * 30, 6, "char")
    assert model.sample(30, np.random.default_rng(0), "to be or ").startswith("to be or not to be. to be")
    assert model.sample(20, np.random.default_rng(1)) == model.sample(20, np.random.default_rng(1))
    chinese = NGramModel.fit("世界" * 500, 6).sample(
        300, np.random.default_rng(0), "世"
    )  # 100 characters, byte by byte
    assert chinese.count("世界") > 40


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="order must be at least 1, not 0"):
        NGramModel.fit("abc", 0)
    with pytest.raises(ValueError, match="5-grams in a text of 3 bytes"):
        NGramModel.fit("abc", 5)
    with pytest.raises(ValueError, match=r"unit must be 'byte' or 'char'.*, not 'word'\."):
        NGramModel.fit("abc", 1, "word")  # type: ignore[arg-type]
    model = NGramModel.fit("abcabc", 2)
    with pytest.raises(ValueError, match="order must be from 1 to 2, for which this model was fitted, not 3"):
        model.bits_per_byte("abc", 3)
    with pytest.raises(ValueError, match="empty text"):
        model.bits_per_byte("")
    with pytest.raises(ValueError, match="empty text"):
        xz_bits_per_byte("", "given")
