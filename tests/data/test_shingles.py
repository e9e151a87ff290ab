"""Shingles: the hashes are those of the formulas, in whole numbers of plain Python, on every machine."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from minillm.data.shingles import distinct, mix, ngram_hashes, shingles, word_hashes

BASE = 0x9E3779B97F4A7C15
U64 = 2**64 - 1


def mix_one(x: int) -> int:
    return int(mix(np.array([x], dtype=np.uint64))[0])


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    """The generator's published first numbers for the seed 1234567; its state goes up by 2⁶⁴/φ."""
    states = (1234567 + BASE * np.arange(1, 6).astype(object)) & U64
    assert mix(states.astype(np.uint64)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(st.lists(st.one_of(st.text(alphabet="abcéß9", min_size=1, max_size=5), st.just("中")), max_size=6))
def test_a_word_is_its_polynomial(words: list[str]) -> None:
    def polynomial(word: str) -> int:
        return sum(ord(c) * pow(BASE, i, 2**64) for i, c in enumerate(word)) + len(word)

    assert word_hashes(" ".join(words)).tolist() == [mix_one(polynomial(word) & U64) for word in words]


def test_a_word_of_over_256_letters_begins_again() -> None:
    long = "ab" * 200
    total = sum(ord(c) * pow(BASE, i % 256, 2**64) for i, c in enumerate(long)) + len(long)
    assert word_hashes(long).tolist() == [mix_one(total & U64)]
    swapped = "b" + long[1:256] + "a" + long[257:]  # the letters of places 0 and 256, whose powers are alike
    assert long[0] == long[256] == "a" and word_hashes(swapped).tolist() != word_hashes(long).tolist()
    assert word_hashes("a" + "x" * 255 + "b").tolist() == word_hashes("b" + "x" * 255 + "a").tolist()
    assert word_hashes("a" + "x" * 254 + "b").tolist() != word_hashes("b" + "x" * 254 + "a").tolist()


@given(st.lists(st.integers(0, U64), max_size=12), st.integers(1, 13))
def test_a_run_is_the_polynomial_of_its_words(words: list[int], n: int) -> None:
    def run(part: list[int]) -> int:
        total = 0
        for word in part:
            total = (total * BASE + word) & U64
        return mix_one(total)

    expected = [run(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert ngram_hashes(np.array(words, dtype=np.uint64), n).tolist() == expected


@given(st.lists(st.one_of(st.integers(0, 9), st.integers(0, U64)), max_size=12))
def test_a_set_is_sorted(numbers: list[int]) -> None:
    given_ones = np.array(numbers, dtype=np.uint64)
    assert distinct(given_ones).tolist() == sorted(set(numbers)) and given_ones.tolist() == numbers


def test_five_words_are_a_shingle_and_fewer_are_one() -> None:
    words = word_hashes("a b c d e f a b c d e")
    assert shingles("a b c d e f a b c d e").tolist() == sorted(set(ngram_hashes(words, 5).tolist()))
    assert len(shingles("a b c d e f a b c d e")) == 6  # of seven runs the last is the first again
    assert shingles("a b c d").tolist() == ngram_hashes(words[:4], 4).tolist()
    assert shingles("a b c", 2).tolist() == sorted(ngram_hashes(words[:3], 2).tolist())
    assert shingles("a").tolist() == ngram_hashes(words[:1], 1).tolist()
    with pytest.raises(ValueError, match="n must be at least 1"):
        ngram_hashes(words, -1)
